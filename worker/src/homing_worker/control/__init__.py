"""What servers send to workers, and what follows from it: heartbeats, the catalog, the gate, tombstones, secrets."""

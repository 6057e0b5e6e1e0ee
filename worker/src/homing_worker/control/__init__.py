"""What servers tell workers, and what follows from it: the control link, the catalog, the gate, tombstones, secrets."""

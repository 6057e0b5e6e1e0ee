"""What homing's server and worker share: the broker seam, wire messages, the life cycle, the retry policy."""

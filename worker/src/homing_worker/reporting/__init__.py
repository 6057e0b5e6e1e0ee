"""What a worker tells: events, progress, log lines."""

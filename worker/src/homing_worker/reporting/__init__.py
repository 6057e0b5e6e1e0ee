"""What a worker reports: events, progress, log lines."""

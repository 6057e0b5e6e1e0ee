"""The HTTP port: health, metrics, and the data port that workers read and store large bodies by."""

"""What functions write: taken in from workers, and followed by readers."""

"""Results and changes as they are committed, for everyone who watches."""

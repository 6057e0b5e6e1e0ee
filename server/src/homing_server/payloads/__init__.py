"""Bodies over the inline limit: their files, their references and signed URLs."""

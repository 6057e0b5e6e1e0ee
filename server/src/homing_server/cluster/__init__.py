"""The others: which servers and workers live, who leads, and why work waits."""

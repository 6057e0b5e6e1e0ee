"""Outcomes on their way to callbacks and destinations, and the dead letters of those that came to nothing."""

"""Measures what homing does in a second and what an operation costs, beside others on the same machine."""

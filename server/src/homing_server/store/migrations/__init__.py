"""Brings the schema of a database up to date."""

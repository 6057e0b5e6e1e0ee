"""Secrets and signing keys, encrypted in the store and on their way to workers."""

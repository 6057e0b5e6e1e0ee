# Generated from _aio/__init__.py by scripts/unasync.py; do not edit.
"""The synchronous client, on grpc."""

"""The synchronous client, on the synchronous gRPC stack."""

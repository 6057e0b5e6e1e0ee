"""The public API over gRPC."""

"""The asynchronous client, on grpc.aio."""

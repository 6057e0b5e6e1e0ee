"""Where gRPC for asyncio differs from that for threads. ``_sync/seam`` has the same names, without ``Async``."""

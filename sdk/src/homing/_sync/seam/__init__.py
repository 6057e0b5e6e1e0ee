"""Where gRPC for threads differs from that for asyncio. ``_aio/seam`` has the same names, with ``Async``."""

"""The doors: gRPC and HTTP. They translate, and decide nothing."""

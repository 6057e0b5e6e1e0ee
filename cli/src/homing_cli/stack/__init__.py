"""Stack files: OpenFaaS's `stack.yaml`, read as `faas-cli` reads it."""

"""The truth about invocations: SQL tables behind a few operations, each of them one transaction."""

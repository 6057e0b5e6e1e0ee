"""The homing server: admission, store, dispatcher, recorder and watch hub behind gRPC and HTTP."""

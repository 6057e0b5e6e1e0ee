"""REST: the API of `homing.v1` as resources over HTTP, with JSON, and streams of server-sent events."""

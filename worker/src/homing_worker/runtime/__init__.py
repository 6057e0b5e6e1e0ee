"""What runs functions, behind one seam."""

from homing_worker.runtime.base import Answer, Body, CallFailedError, Instance, Request, Runtime, StartFailedError

__all__ = ["Answer", "Body", "CallFailedError", "Instance", "Request", "Runtime", "StartFailedError"]

"""What runs functions, behind one seam."""

from homing_worker.runtime.seam import Answer, CallFailedError, Instance, Request, Runtime, StartFailedError

__all__ = ["Answer", "CallFailedError", "Instance", "Request", "Runtime", "StartFailedError"]

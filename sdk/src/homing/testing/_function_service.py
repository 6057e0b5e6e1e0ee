"""What a fake server answers about functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from homing.testing._refusal import Refusal, invalid_request, served
from homing.testing._rules import check_function, check_scale
from homing.v1 import function_pb2, function_service_pb2_grpc
from homing.v1 import function_service_pb2 as api

if TYPE_CHECKING:
    from homing.testing._state import State


class Functions(function_service_pb2_grpc.FunctionServiceServicer):
    """homing.v1.FunctionService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._deployed = state.deployed

    @served
    def DeployFunction(  # noqa: N802
        self, request: api.DeployFunctionRequest, _context: grpc.ServicerContext
    ) -> api.DeployFunctionResponse:
        earlier = self._deployed.get(request.function.name)
        revision = earlier.revision if earlier else 0
        if request.HasField("expected_revision") and request.expected_revision != revision:
            raise Refusal(
                code=grpc.StatusCode.ABORTED,
                reason="REVISION_MISMATCH",
                message=f"function {request.function.name!r} is at revision {revision}: nothing was changed",
                metadata={
                    "function": request.function.name,
                    "expected": str(request.expected_revision),
                    "actual": str(revision),
                },
            )
        function = _wanted(request, earlier)
        if function.WhichOneof("source") is None:
            self.state.find(function.name)
        check_function(function)
        missing = [name for name in function.secrets if name not in self.state.secrets]
        if missing:
            raise invalid_request([("function.secrets", f"there is no secret {name!r}") for name in missing])
        function.paused = earlier is not None and earlier.paused
        return api.DeployFunctionResponse(function=self._put(function, force=request.force), created=earlier is None)

    @served
    def GetFunction(  # noqa: N802
        self, request: api.GetFunctionRequest, _context: grpc.ServicerContext
    ) -> api.GetFunctionResponse:
        self.state.find(request.name)
        return api.GetFunctionResponse(function=self._deployed[request.name])

    @served
    def ListFunctions(  # noqa: N802
        self, _request: api.ListFunctionsRequest, _context: grpc.ServicerContext
    ) -> api.ListFunctionsResponse:
        return api.ListFunctionsResponse(functions=[self._deployed[name] for name in sorted(self._deployed)])

    @served
    def DeleteFunction(  # noqa: N802
        self, request: api.DeleteFunctionRequest, _context: grpc.ServicerContext
    ) -> api.DeleteFunctionResponse:
        function = self.state.find(request.name)
        del self._deployed[request.name]
        return api.DeleteFunctionResponse(invalidated=self.state.store.invalidate(function))

    @served
    def PauseFunction(  # noqa: N802
        self, request: api.PauseFunctionRequest, _context: grpc.ServicerContext
    ) -> api.PauseFunctionResponse:
        self.state.find(request.name).paused = True
        function = _copy(self._deployed[request.name])
        function.paused = True
        return api.PauseFunctionResponse(function=self._put(function))

    @served
    def ResumeFunction(  # noqa: N802
        self, request: api.ResumeFunctionRequest, _context: grpc.ServicerContext
    ) -> api.ResumeFunctionResponse:
        held = self.state.find(request.name)
        held.paused = False
        function = _copy(self._deployed[request.name])
        function.paused = False
        response = api.ResumeFunctionResponse(function=self._put(function))
        self.state.store.release(held)
        return response

    @served
    def ScaleFunction(  # noqa: N802
        self, request: api.ScaleFunctionRequest, _context: grpc.ServicerContext
    ) -> api.ScaleFunctionResponse:
        self.state.find(request.name)
        function = _copy(self._deployed[request.name])
        if request.HasField("min_instances"):
            function.min_instances = request.min_instances
        if request.HasField("max_instances"):
            function.max_instances = request.max_instances
        check_scale(function)
        return api.ScaleFunctionResponse(function=self._put(function))

    def _put(self, function: function_pb2.Function, *, force: bool = False) -> function_pb2.Function:
        """Keep a function as it is now: under a new revision, where it has changed or is rolled out by force."""
        earlier = self._deployed.get(function.name)
        function.revision = earlier.revision if earlier else 0
        if earlier:
            function.create_time.CopyFrom(earlier.create_time)
            function.update_time.CopyFrom(earlier.update_time)
            function.rollout_revision = earlier.rollout_revision
        if function != earlier or force:
            function.revision += 1
            if force:
                function.rollout_revision = function.revision
            function.update_time.GetCurrentTime()
            if not earlier:
                function.create_time.CopyFrom(function.update_time)
            self._deployed[function.name] = function
        return function


def _wanted(request: api.DeployFunctionRequest, earlier: function_pb2.Function | None) -> function_pb2.Function:
    """Return a function as it shall be: as a whole, or as it was with the fields that a mask names."""
    function = _copy(request.function)
    if not request.HasField("update_mask"):
        return function
    named = set(request.update_mask.paths)
    updated = _copy(earlier) if earlier else function_pb2.Function(name=function.name)
    for field in function_pb2.Function.DESCRIPTOR.fields_by_name:
        (updated if field in named else function).ClearField(field)  # type: ignore[arg-type]  # any of its fields
    updated.MergeFrom(function)
    return updated


def _copy(function: function_pb2.Function) -> function_pb2.Function:
    copy = function_pb2.Function()
    copy.CopyFrom(function)
    return copy

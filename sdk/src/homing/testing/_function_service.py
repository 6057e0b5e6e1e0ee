"""What a fake server answers about functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from homing.testing._refusal import Refusal, served
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
        for name in request.function.secrets:
            if name not in self.state.secrets:
                raise Refusal(
                    code=grpc.StatusCode.INVALID_ARGUMENT,
                    reason="INVALID_REQUEST",
                    message=f"there is no secret {name!r}",
                    field="function.secrets",
                )
        function = function_pb2.Function()
        function.CopyFrom(request.function)
        earlier = self._deployed.get(function.name)
        function.revision = earlier.revision + 1 if earlier else 1
        function.update_time.GetCurrentTime()
        function.paused = earlier is not None and earlier.paused
        function.create_time.CopyFrom(earlier.create_time if earlier else function.update_time)
        self._deployed[function.name] = function
        return api.DeployFunctionResponse(function=function)

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
        self._deployed[request.name].paused = True
        return api.PauseFunctionResponse(function=self._deployed[request.name])

    @served
    def ResumeFunction(  # noqa: N802
        self, request: api.ResumeFunctionRequest, _context: grpc.ServicerContext
    ) -> api.ResumeFunctionResponse:
        function = self.state.find(request.name)
        function.paused = False
        self._deployed[request.name].paused = False
        self.state.store.release(function)
        return api.ResumeFunctionResponse(function=self._deployed[request.name])

    @served
    def ScaleFunction(  # noqa: N802
        self, request: api.ScaleFunctionRequest, _context: grpc.ServicerContext
    ) -> api.ScaleFunctionResponse:
        self.state.find(request.name)
        function = self._deployed[request.name]
        if request.HasField("min_instances"):
            function.min_instances = request.min_instances
        if request.HasField("max_instances"):
            function.max_instances = request.max_instances
        return api.ScaleFunctionResponse(function=function)

"""homing.v1.FunctionService."""

from __future__ import annotations

from collections.abc import Collection

from homing.v1 import function_pb2
from homing.v1 import function_service_pb2 as api
from homing_core.destinations import function_of
from homing_server.admin.deployment import Deployment
from homing_server.auth.identity import Identity
from homing_server.errors import ApiError, Code
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext
from homing_server.functions.annotations import applied, named_as_written
from homing_server.functions.catalog import Catalog
from homing_server.rules.update_mask import check_update_mask, only
from homing_server.rules.validation import Checks


class FunctionService:
    """Serves functions."""

    def __init__(self, catalog: Catalog, deployment: Deployment) -> None:
        self._catalog = catalog
        self._deployment = deployment

    async def DeployFunction(
        self, request: api.DeployFunctionRequest, _context: CallContext
    ) -> api.DeployFunctionResponse:
        """Create a function or change it."""
        identity = caller()
        identity.check_function(request.function.name)
        wanted = request.function
        paths: Collection[str] | None = None
        expected = None
        checks = Checks()
        checks.function_name("function.name", wanted.name)
        if request.HasField("update_mask"):
            paths = frozenset(request.update_mask.paths)
            check_update_mask(checks, request.update_mask.paths, force=request.force)
        if request.HasField("expected_revision"):
            expected = request.expected_revision
            checks.integer("expected_revision", expected, 0, 2**63 - 1)
        checks.done()
        if paths is not None:
            wanted = only(wanted, paths)
        written, said = wanted, paths
        wanted, paths = applied(wanted, paths)
        try:
            await self._check_destinations(wanted, identity)
            await self._check_secrets(wanted, identity)
            function, created = await self._deployment.deploy(
                wanted, paths=paths, expected_revision=expected, force=request.force
            )
        except ApiError as error:
            raise named_as_written(error, written, said) from error
        return api.DeployFunctionResponse(function=function, created=created)

    async def GetFunction(self, request: api.GetFunctionRequest, _context: CallContext) -> api.GetFunctionResponse:
        """Return one function."""
        caller().check_function(request.name)
        return api.GetFunctionResponse(function=await self._catalog.get(request.name))

    async def ListFunctions(
        self, request: api.ListFunctionsRequest, _context: CallContext
    ) -> api.ListFunctionsResponse:
        """Return a page of functions."""
        return self._catalog.list(request, caller=caller())

    async def DeleteFunction(
        self, request: api.DeleteFunctionRequest, _context: CallContext
    ) -> api.DeleteFunctionResponse:
        """Delete a function."""
        caller().check_function(request.name)
        return api.DeleteFunctionResponse(invalidated=await self._deployment.delete(request.name))

    async def PauseFunction(
        self, request: api.PauseFunctionRequest, _context: CallContext
    ) -> api.PauseFunctionResponse:
        """Hold a function's work."""
        caller().check_function(request.name)
        return api.PauseFunctionResponse(function=await self._deployment.pause(request.name, paused=True))

    async def ResumeFunction(
        self, request: api.ResumeFunctionRequest, _context: CallContext
    ) -> api.ResumeFunctionResponse:
        """Let held work go on."""
        caller().check_function(request.name)
        return api.ResumeFunctionResponse(function=await self._deployment.pause(request.name, paused=False))

    async def ScaleFunction(
        self, request: api.ScaleFunctionRequest, _context: CallContext
    ) -> api.ScaleFunctionResponse:
        """Change how many instances a function has."""
        caller().check_function(request.name)
        function = await self._deployment.scale(
            request.name,
            min_instances=request.min_instances if request.HasField("min_instances") else None,
            max_instances=request.max_instances if request.HasField("max_instances") else None,
        )
        return api.ScaleFunctionResponse(function=function)

    async def _check_destinations(self, wanted: function_pb2.Function, identity: Identity) -> None:
        """Check that who deploys a function may send its outcomes to the functions that it names.

        :raises ApiError: PERMISSION_DENIED; UNAVAILABLE: the store could not be read.
        """
        if not identity.functions:
            return
        for destination in (*wanted.on_success, *wanted.on_failure):
            name = function_of(destination.uri)
            if name:
                await self._catalog.check_invoke(name, identity)

    async def _check_secrets(self, wanted: function_pb2.Function, identity: Identity) -> None:
        """Check that a key which is limited to functions gives them no secrets that they have not been given before.

        :raises ApiError: PERMISSION_DENIED; UNAVAILABLE: the store could not be read.
        """
        if not (identity.functions and wanted.secrets):
            return
        try:
            given = set((await self._catalog.get(wanted.name)).secrets)
        except ApiError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            given = set()
        if set(wanted.secrets) - given:
            identity.check_unlimited("secrets are")

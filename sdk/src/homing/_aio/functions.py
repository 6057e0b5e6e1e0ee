"""Functions, for the asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Unpack

from homing._aio.connection import AsyncConnection
from homing._aio.logs import AsyncLogTail
from homing._core import check, convert
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.deploy import FunctionOptions, deploy_request, scale_request, update_request
from homing._core.destinations import Destinations
from homing._core.function import Function, Limits
from homing._core.logs import FunctionLogLine, FunctionLogProgress
from homing._core.policy import RetryPolicy
from homing._core.spec import Seconds
from homing.v1 import function_service_pb2


class AsyncFunctions:
    """Deploys, shows, holds, scales and removes functions; reached as ``client.functions``."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def deploy(
        self,
        *,
        name: str,
        image: str | None = None,
        command: Sequence[str] | None = None,
        http_command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        secrets: Sequence[str] | None = None,
        limits: Limits | None = None,
        concurrency: int | None = None,
        min_instances: int | None = None,
        max_instances: int | None = None,
        idle_timeout: Seconds | None = None,
        retry_policy: RetryPolicy | None = None,
        attempt_timeout: Seconds | None = None,
        max_age: Seconds | None = None,
        retention: Seconds | None = None,
        record_sync: bool | None = None,
        on_success: Destinations | None = None,
        on_failure: Destinations | None = None,
        public: bool | None = None,
        expected_revision: int | None = None,
        force: bool = False,
    ) -> Function:
        """Create a function or, where the name exists, change it as a whole. Durations are seconds or timedeltas.

        :param name: Letters a to z, digits and hyphens, at most 63 characters.
        :param image: A container image that answers HTTP on port 8080. Exactly one of image,
            command, http_command and url is given.
        :param command: A program and its arguments, run on the worker's host once a call.
        :param http_command: A program and its arguments that is started on the worker's host and stays: it answers HTTP
            on the port of 127.0.0.1 that its environment variable ``PORT`` names.
        :param url: Where the function already runs.
        :param env: Environment variables of its instances.
        :param labels: For finding it.
        :param annotations: For tools.
        :param secrets: Names of the secrets that its instances see as files, at most 32; see ``client.secrets``.
        :param limits: What one instance may use.
        :param concurrency: How many invocations one instance runs at a time; 1 by default.
        :param min_instances: How many instances each worker keeps at least; 0 by default.
        :param max_instances: How many instances each worker starts at most; 4 by default.
        :param idle_timeout: How long an instance idles before it is stopped; 5 min by default.
        :param retry_policy: Which failed attempts of its invocations are made again.
        :param attempt_timeout: How long one attempt may run; 5 min by default.
        :param max_age: How long an invocation may wait for its first start; 24 h by default.
        :param retention: How long ended records are kept; 7 days by default.
        :param record_sync: Whether synchronous calls leave records; they do by default.
        :param on_success: Where the envelopes of its asynchronous invocations go that succeed, unless they bring their
            own destinations: one URI or up to 8, each ``https://…``, ``http://…``, ``function:NAME`` or
            ``amqp:EXCHANGE/KEY``.
        :param on_failure: Where those go that end otherwise, in the same way.
        :param public: Whether it may be invoked without a key; by default not.
        :param expected_revision: The revision that it must have now, 0 where there must be none; by default any.
        :param force: Make a new revision although nothing has changed: instances are replaced, and the name of an image
            is looked up anew, as for one that was built again under the same name.
        :returns: The function as it is now.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises RevisionMismatchError: It has another revision than expected.
        :raises RequestError: The call failed. With an expected revision it is not retried: a second try would not find
            the revision.
        """
        options = FunctionOptions(
            image=image,
            command=command,
            http_command=http_command,
            url=url,
            env=env,
            labels=labels,
            annotations=annotations,
            secrets=secrets,
            limits=limits,
            concurrency=concurrency,
            min_instances=min_instances,
            max_instances=max_instances,
            idle_timeout=idle_timeout,
            retry_policy=retry_policy,
            attempt_timeout=attempt_timeout,
            max_age=max_age,
            retention=retention,
            record_sync=record_sync,
            on_success=on_success,
            on_failure=on_failure,
            public=public,
        )
        return await self._deploy(deploy_request(name, options, expected_revision=expected_revision, force=force))

    async def update(
        self,
        name: str,
        *,
        expected_revision: int | None = None,
        force: bool = False,
        **options: Unpack[FunctionOptions],
    ) -> Function:
        """Change what is given of a function, and leave the rest as it is.

        ::

            await client.functions.update("figlet", image="figlet:2", min_instances=None)

        A name that is new is created, where a source is among what is given.

        :param expected_revision: The revision that it must have now; by default any.
        :param force: Roll it out anew, as ``deploy`` does, whether anything changes or not.
        :param options: What changes, without ``force`` at least one of the arguments of ``deploy``; None takes it back
            to its default. Of a mapping, a list, limits and a retry policy the whole is set.
        :returns: The function as it is now.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule, or the function would.
        :raises NotFoundError: There is none of this name, and nothing given that it could run.
        :raises RevisionMismatchError: It has another revision than expected.
        :raises RequestError: The call failed. With an expected revision it is not retried: a second try would not find
            the revision.
        """
        return await self._deploy(update_request(name, options, expected_revision=expected_revision, force=force))

    async def get(self, name: str) -> Function:
        """Return a function.

        :raises NotFoundError: There is none of this name.
        :raises RequestError: The call failed.
        """
        return await self._get(check.text("name", name), deadline=self._deadline())

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        since: datetime | None = None,
        tail: int | None = None,
        timeout: Seconds | Unset | None = UNSET,
    ) -> AsyncLogTail[FunctionLogLine]:
        """Return the lines that a function wrote, whatever invocations it served.

        ::

            async with client.functions.logs("resize", tail=100, follow=True) as lines:
                async for line in lines:
                    print(line.invocation_id, line.text)

        :param follow: Whether to wait for more, until this is closed.
        :param since: Leaves out what was written before.
        :param tail: How many of the lines that there are, the last ones, up to 10,000; by default all.
        :param timeout: How long to wait for a server that is away, each time, in seconds or as a timedelta; by default
            the client's.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        seconds = Deadline.of(timeout, self._connection.settings.timeout).remaining()
        progress = FunctionLogProgress(
            check.text("name", name),
            follow=check.flag("follow", follow),
            since=None if since is None else check.moment("since", since),
            tail=None if tail is None else check.integer("tail", tail),
        )
        return AsyncLogTail(
            self._connection,
            progress,
            method=lambda stubs: stubs.logs.TailFunctionLogs,
            find_server=lambda: self._get(name, deadline=Deadline.after(seconds)),
        )

    async def list(self) -> AsyncIterator[Function]:
        """Yield all functions by name, fetched page by page.

        :raises RequestError: The call failed.
        """
        token = ""
        while True:
            response = await self._connection.call_idempotent(
                self._connection.functions.ListFunctions,
                function_service_pb2.ListFunctionsRequest(page_token=token),
                deadline=self._deadline(),
            )
            for message in response.functions:
                yield convert.function(message)
            token = response.next_page_token
            if not token:
                return

    async def delete(self, name: str) -> int:
        """Remove a function. Its waiting invocations end INVALID, running ones finish.

        :returns: How many waiting invocations ended INVALID.
        :raises NotFoundError: There is none of this name.
        :raises RequestError: The call failed. It is not retried: a second try would not find the function.
        """
        response = await self._connection.call(
            self._connection.functions.DeleteFunction,
            function_service_pb2.DeleteFunctionRequest(name=check.text("name", name)),
            deadline=self._deadline(),
        )
        return response.invalidated

    async def pause(self, name: str) -> Function:
        """Hold a function's invocations: they are still accepted, none starts; what runs finishes.

        :returns: The function as it is now.
        :raises NotFoundError: There is none of this name.
        :raises RequestError: The call failed.
        """
        response = await self._connection.call_idempotent(
            self._connection.functions.PauseFunction,
            function_service_pb2.PauseFunctionRequest(name=check.text("name", name)),
            deadline=self._deadline(),
        )
        return convert.function(response.function)

    async def resume(self, name: str) -> Function:
        """Let held invocations go on.

        :returns: The function as it is now.
        :raises NotFoundError: There is none of this name.
        :raises RequestError: The call failed.
        """
        response = await self._connection.call_idempotent(
            self._connection.functions.ResumeFunction,
            function_service_pb2.ResumeFunctionRequest(name=check.text("name", name)),
            deadline=self._deadline(),
        )
        return convert.function(response.function)

    async def scale(self, name: str, *, min_instances: int | None = None, max_instances: int | None = None) -> Function:
        """Change how many instances each worker keeps and starts.

        :param min_instances: The least number that a worker keeps; by default unchanged.
        :param max_instances: The largest number that a worker starts; by default unchanged.
        :returns: The function as it is now.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises NotFoundError: There is none of this name.
        :raises RequestError: The call failed.
        """
        response = await self._connection.call_idempotent(
            self._connection.functions.ScaleFunction,
            scale_request(name, min_instances=min_instances, max_instances=max_instances),
            deadline=self._deadline(),
        )
        return convert.function(response.function)

    async def _get(self, name: str, *, deadline: Deadline) -> Function:
        response = await self._connection.call_idempotent(
            self._connection.functions.GetFunction,
            function_service_pb2.GetFunctionRequest(name=name),
            deadline=deadline,
        )
        return convert.function(response.function)

    async def _deploy(self, request: function_service_pb2.DeployFunctionRequest) -> Function:
        call = self._connection.call if request.HasField("expected_revision") else self._connection.call_idempotent
        response = await call(self._connection.functions.DeployFunction, request, deadline=self._deadline())
        return convert.function(response.function)

    def _deadline(self) -> Deadline:
        return Deadline.after(self._connection.settings.timeout)

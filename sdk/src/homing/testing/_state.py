"""What a fake server knows: its functions, its invocations, and which calls it is to refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from homing.testing._function import FakeFunction
from homing.testing._refusal import Refusal, request_id_reused
from homing.testing._rules import Rules
from homing.testing._store import Store
from homing.v1 import function_pb2, secret_service_pb2
from homing.v1.invocation_pb2 import Invocation, InvocationSpec


class State:
    """Shared by the services of a fake server and by the test."""

    def __init__(self) -> None:
        self.deployed: dict[str, function_pb2.Function] = {}
        self.store = Store(self.deployed)
        self.secrets: dict[str, secret_service_pb2.Secret] = {}
        self._functions: dict[str, FakeFunction] = {}
        self._bulk_calls: dict[str, tuple[Message, Message]] = {}
        self._refusals: dict[str, list[Refusal]] = {}

    def function(self, name: str) -> FakeFunction:
        """Return the function of a name; there is one from then on."""
        if name not in self._functions:
            self._functions[name] = FakeFunction(name, self.store.release)
            self.deployed.setdefault(name, function_pb2.Function(name=name, image=f"{name}:fake", revision=1))
        return self._functions[name]

    def find(self, name: str) -> FakeFunction:
        """Return the function of a name.

        :raises Refusal: There is none.
        """
        if name not in self.deployed:
            raise Refusal(
                code=grpc.StatusCode.NOT_FOUND,
                reason="FUNCTION_NOT_FOUND",
                message=f"there is no function {name!r}",
                metadata={"function": name},
            )
        return self.function(name)

    def check_destinations(self, spec: InvocationSpec) -> None:
        """Check that the functions exist that outcomes are to go to.

        :raises Refusal: One does not.
        """
        rules = Rules()
        for field in ("on_success", "on_failure"):
            for place, destination in enumerate(getattr(spec, field)):
                name = destination.uri.removeprefix("function:")
                if name != destination.uri and name not in self.deployed:
                    rules.add(f"spec.{field}[{place}].uri", f"names a function that does not exist, {name!r}")
        rules.done()

    def rerun(self, earlier: Invocation, request_id: str = "") -> tuple[Invocation, bool]:
        """Run an invocation again; return the new one, and whether the same request made it before.

        :raises Refusal: Its function is gone.
        """
        function = self.find(earlier.function)
        earlier.spec.ClearField("schedule_time")
        earlier.spec.ClearField("delay")
        record, duplicate = self.store.accept(
            earlier.spec, function, sync=False, request_id=request_id, rerun_of=earlier.id
        )
        self.store.run(record.id)
        return record, duplicate

    def bulk(self, request: Any, work: Callable[[], Any]) -> Iterator[Any]:
        """Answer a call about many: at once with how many match, and once more when all is done.

        :param work: Does it, unless an earlier call with the same request id did; returns the last message.
        :raises Refusal: The request id was used for another call.
        """
        remembered = request.request_id and not request.dry_run
        if remembered and request.request_id in self._bulk_calls:
            earlier, response = self._bulk_calls[request.request_id]
            if earlier != request:
                raise request_id_reused(request.request_id)
            yield response
            return
        response = work()
        if remembered:
            self._bulk_calls[request.request_id] = request, response
        if not request.dry_run:
            yield type(response)(matched=response.matched)
        response.done = True
        yield response

    def refuse(self, method: str, refusal: Refusal, times: int) -> None:
        """Let the next calls of a method be refused."""
        self._refusals.setdefault(method, []).extend([refusal] * times)

    def check(self, method: str) -> None:
        """Let a call pass.

        :raises Refusal: It is to be refused.
        """
        with self.store.changed:
            if self._refusals.get(method):
                raise self._refusals[method].pop(0)

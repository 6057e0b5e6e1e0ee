"""A process that accepts invocations from many callers and says of each what became of it, until it is killed.

Given a limit in bytes its files may not grow beyond that; once every caller was refused they may again.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import signal
import sys
from pathlib import Path

from homing.v1 import invocation_pb2 as api
from homing_core.guard import Guard
from homing_server.auth.identity import EVERYBODY
from homing_server.errors import ApiError
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import Admission
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.tasks import Tasks
from support.scripted_broker import ScriptedBroker
from support.store import make_spec, opened

CALLERS = 16


async def main(folder: Path, limit: int) -> None:
    """Accept."""
    async with opened(folder) as database, Tasks() as tasks:
        catalog = Catalog(database)
        await catalog.load()
        broker = ScriptedBroker(up=False)
        dispatcher = Dispatcher(database, broker, catalog, urls=SignedUrls(), announce=lambda _: None, resend_after=600)
        admission = Admission(database, catalog, dispatcher, Metrics(), blobs=Blobs(database, folder), guard=Guard())
        tasks.repeat(admission.commit_group, pause=0.01)
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        async with asyncio.timeout(60):
            await asyncio.gather(*(call(admission, number) for number in range(CALLERS)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await accept(admission, make_spec(), "after")


async def call(admission: Admission, number: int) -> None:
    """Ask for one invocation after the other, until one is refused."""
    for attempt in itertools.count():
        request_id = f"{number}-{attempt}"
        spec = make_spec(data=request_id.encode() + bytes(2000), labels={"caller": str(number)})
        try:
            await accept(admission, spec, request_id)
        except ApiError as error:
            say("refused", request_id, error.code.name, error.reason)
            return


async def accept(admission: Admission, spec: api.InvocationSpec, request_id: str) -> None:
    """Ask for an invocation."""
    accepted = await admission.accept(
        spec, request_id=request_id, caller=EVERYBODY, traceparent="", connection=lambda: "one"
    )
    say("accepted", request_id, accepted.id)


def say(*words: str) -> None:
    """Write a line at once."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

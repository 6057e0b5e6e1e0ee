"""The steps of docs/http.md by curl, as they are typed there, with real containers."""

from __future__ import annotations

import math
import re
import subprocess
import time
from queue import Queue

import pytest

from homing import Client, InvocationState
from support.docker import FunctionImages
from support.documents import ROOT
from support.processes import Cluster
from support.receiver import Request, receiver

PATIENCE = 60.0


def steps() -> list[str]:
    """Return what is typed in the steps, in order."""
    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    section = text.split("## Step by step")[1].split("\n## ")[0]
    typed = re.sub(r"\\\n\s*", " ", section)
    return re.findall(r"^\$ (curl .*)$", typed, flags=re.MULTILINE)


def run(step: str, server: str, hook: str) -> tuple[str, float]:
    """Type a step; return what it prints and how many seconds it took."""
    command = step.replace("localhost:8080", server).replace("https://example.org/hook", hook)
    begun = time.monotonic()
    done = subprocess.run(
        ["sh", "-c", command.replace("curl ", "curl -sS --fail ", 1)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{step}: {done.stderr}"
    return done.stdout, time.monotonic() - begun


def ended(client: Client, call_id: str) -> list[tuple[str, InvocationState]]:
    """Return function and state of what shows a call id, once all of it has ended."""
    records = [
        client.handle(record.id).wait(PATIENCE)
        for record in client.list_invocations(call_id=call_id, order="oldest_first")
    ]
    return [(record.function, record.state) for record in records]


@pytest.mark.timeout(180)
def test_the_steps_do_what_they_say(docker_cluster: Cluster, function_images: FunctionImages) -> None:
    server = docker_cluster.start_server()
    worker = docker_cluster.start_worker()
    client = docker_cluster.client(timeout=PATIENCE)
    client.functions.deploy(name="figlet", image=function_images.figlet)
    client.functions.deploy(
        name="long-task", image=function_images.long_task, max_instances=1, concurrency=10, min_instances=1
    )
    client.invoke("long-task", timeout=PATIENCE)  # the start of its container is not what is shown
    draw, ten_now, ten_later, call_back, chain, put_off, stop = steps()

    with receiver(statuses=[200]) as (hook, received):
        art, _ = run(draw, server.http, hook)
        drawn = "\n".join(line.rstrip() for line in art.splitlines()).rstrip()
        assert drawn in (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
        nothing, seconds = run(ten_now, server.http, hook)
        assert (nothing, 10 <= seconds < 20) == ("", True), seconds

        ids, fastest = [], math.inf
        for _ in range(3):
            # Others may keep this machine busy for a moment, so one of several has to do.
            accepted, seconds = run(ten_later, server.http, hook)
            found = re.findall(r"^location: /v1/invocations/(\S+)", accepted, flags=re.MULTILINE)
            assert (accepted.count("202 Accepted"), len(set(found))) == (10, 10)
            ids += found
            fastest = min(fastest, seconds)
            if fastest < 1:
                break
        assert fastest < 1
        assert {client.handle(key).wait(PATIENCE).state for key in ids} == {InvocationState.SUCCEEDED}

        check_callback(call_back, art, server.http, hook, received)
    with client.watch_results(function="long-task", call_id="order-7") as results:
        run(chain, server.http, hook)
        second = next(iter(results)).invocation
    done = InvocationState.SUCCEEDED
    assert ended(client, "order-7") == [("figlet", done), ("long-task", done)]

    run(put_off, server.http, hook)
    run(stop, server.http, hook)
    assert ended(client, "order-8") == [("long-task", InvocationState.STOPPED)]
    for key in [*ids, second.id]:
        worker.wait_for_log("run_ended", invocation_id=key)
    worker.wait_for_log("run_ended", function="figlet", call_id="order-7")


def check_callback(step: str, art: str, server: str, hook: str, received: Queue[Request]) -> None:
    """Check that the output arrives, and what tells of it."""
    run(step, server, hook)
    path, headers, body = received.get(timeout=PATIENCE)
    assert (path, body.decode()) == ("/", art)
    assert (headers["x-function-name"], headers["x-function-status"]) == ("figlet", "200")

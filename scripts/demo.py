"""Show homing at work: functions in containers, invoked now and later, their results coming home.

A server and a worker run as processes of their own, on free ports, in a temporary folder. RabbitMQ is the one that
answers on this machine, in a virtual host made for this, or else a node started for this. BROKER=embedded runs
`homing dev` instead, RUNTIME=process the functions as commands in place of containers. All of it is gone at the end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from homing import Client, InvocationState, verify_callback

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.docker import ROOT, build_function, make_base_image, remove_by_label
from support.processes import Cluster, Dev
from support.rabbitmq import SCRIPTS, RabbitNode

TASKS = 10
LIMIT = 150
"""Seconds after which the demo gives up."""

Callback = tuple[dict[str, str], str]


class DemoError(Exception):
    """Something did not hold."""


def hold(condition: object, promise: str) -> None:
    """Raise DemoError unless a promise was kept."""
    if not condition:
        raise DemoError(promise)


def title(text: str) -> None:
    """Print a heading."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def show(text: str) -> None:
    """Print lines, indented."""
    for line in text.rstrip().splitlines():
        print(f"   {line}".rstrip(), flush=True)


@contextlib.contextmanager
def own_vhost() -> Iterator[str]:
    """Yield the URL of a virtual host of the RabbitMQ that answers on this machine."""
    name = f"homing-demo-{secrets.token_hex(4)}"

    def control(*arguments: str) -> None:
        subprocess.run(
            ["rabbitmqctl", "--quiet", *arguments],
            check=True,
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    control("add_vhost", name)
    try:
        control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        yield f"amqp://guest:guest@127.0.0.1:5672/{name}"
    finally:
        control("delete_vhost", name)


@contextlib.contextmanager
def own_node(folder: Path) -> Iterator[str]:
    """Yield the URL of a RabbitMQ node that is started for the demo."""
    with RabbitNode(folder) as node:
        yield node.new_vhost()


def find_broker(stack: contextlib.ExitStack, folder: Path) -> tuple[str, str]:
    """Return the URL of a broker, and what it is."""
    try:
        socket.create_connection(("127.0.0.1", 5672), 2).close()
        answers = True
    except OSError:
        answers = False
    if answers and shutil.which("rabbitmqctl"):
        with contextlib.suppress(subprocess.SubprocessError):
            return stack.enter_context(own_vhost()), "the RabbitMQ of this machine, in a virtual host of its own"
    if shutil.which("rabbitmq-server") or any((scripts / "rabbitmq-server").exists() for scripts in SCRIPTS):
        return stack.enter_context(own_node(folder / "rabbitmq")), "a RabbitMQ node started for this"
    hold(answers, "RabbitMQ neither answers at 127.0.0.1:5672 nor is it installed")
    return "amqp://guest:guest@127.0.0.1:5672/%2F", "the RabbitMQ that answers at 127.0.0.1:5672"


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, queue.Queue[Callback]]]:
    """Yield the URL of a web server and the callbacks that it received."""
    received: queue.Queue[Callback] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            received.put((dict(self.headers), body.decode()))

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/figlet-is-done", received
    finally:
        server.shutdown()
        server.server_close()


def invoke_figlet(client: Client) -> None:
    """Show a call that waits for its result."""
    title('client.invoke("figlet", "LaterIsBetter")')
    art = client.invoke("figlet", "LaterIsBetter", timeout=60).text
    show(art)
    hold("___" in art, "figlet answered with large letters")


def invoke_tasks(client: Client) -> float:
    """Show calls that wait, one after the other, and return how long they took."""
    title(f'client.invoke("long-task"), {TASKS} times, each after the one before')
    start = time.monotonic()
    print("   ", end="")
    for _ in range(TASKS):
        client.invoke("long-task", timeout=60)
        print(".", end="", flush=True)
    took = time.monotonic() - start
    print()
    show(f"{took:.1f} s until the last one ended; the caller waited all the time")
    hold(took >= TASKS, f"{TASKS} tasks of one second, one after the other, take {TASKS} seconds")
    return took


def invoke_tasks_async(client: Client, waited: float) -> None:
    """Show calls that are handed over, and their results as a watch sees them."""
    title(f'client.invoke_async("long-task"), {TASKS} times, and client.watch_results()')
    batch = {"batch": "ten"}
    with client.watch_results(function="long-task", labels=batch) as watch:
        start = time.monotonic()
        waiting = {client.invoke_async("long-task", labels=batch).id for _ in range(TASKS)}
        accepted = time.monotonic() - start
        show(f"{accepted:.2f} s until all were accepted; the caller is free")
        for event in watch:
            invocation = event.invocation
            hold(invocation.id in waiting, "each result is watched once")
            waiting.discard(invocation.id)
            hold(invocation.state is InvocationState.SUCCEEDED, f"{invocation.id} succeeded: {invocation.failure}")
            attempt = invocation.attempts[-1]
            show(
                f"{time.monotonic() - start:5.1f} s  {invocation.id}  {invocation.state}  status {attempt.status_code}"
                f"  instance {attempt.instance[-12:]}"
            )
            if not waiting:
                break
        took = time.monotonic() - start
    show(f"{took:.1f} s until the last one ended, on several instances side by side, in place of {waited:.1f} s")
    hold(accepted < took / 2, "handing over is faster than waiting")
    hold(took < waited, "several instances are faster than one")


def invoke_with_callback(client: Client) -> None:
    """Show a result that comes to a web server."""
    title('client.invoke_async("figlet", "It came home", callback_url=…)')
    key = client.signing_keys.rotate().key
    with receiver() as (url, received):
        call = client.invoke_async("figlet", "It came home", callback_url=url)
        show(f"accepted as {call.id}")
        try:
            headers, art = received.get(timeout=60)
        except queue.Empty:
            raise DemoError(f"the callback came: {call.describe()}") from None
    show("POST /figlet-is-done\n" + "\n".join(f"{name}: {value}" for name, value in headers.items()) + "\n\n" + art)
    verified = verify_callback(headers, art.encode(), key)
    show(f"homing.verify_callback(…): genuine, delivery {verified.id}")
    names = {name.lower(): value for name, value in headers.items()}
    hold(names.get("x-call-id") == call.id, "the callback bears the id of the invocation")
    hold(names.get("x-function-name") == "figlet", "the callback bears the name of the function")
    hold(names.get("x-function-status") == "200", "the callback bears the status of the function")
    hold(art == call.result(timeout=30).text, "the callback carries the function's own output")


COMMANDS = {
    "figlet": [sys.executable, str(ROOT / "examples" / "figlet" / "handler.py")],
    "long-task": ["sleep", "1"],
}


def build_images(stack: contextlib.ExitStack) -> dict[str, str]:
    """Build the images of the functions and return their names; they are removed by the stack."""
    base = make_base_image()
    tag = secrets.token_hex(4)
    label = f"homing.demo={tag}"
    stack.callback(remove_by_label, label)
    images = {name: f"homing-demo-{name}:{tag}" for name in COMMANDS}
    for name, image in images.items():
        build_function(name, base=base, tag=image, label=label)
    show("images of figlet and long-task are built")
    return images


def start_cluster(stack: contextlib.ExitStack, folder: Path, runtime: str) -> Client:
    """Start a server and a worker on RabbitMQ; return a client."""
    url, broker = find_broker(stack, folder)
    show(f"broker: {broker}")
    cluster = Cluster(url, folder, runtime=runtime)

    def stop(kind: type[BaseException] | None, *_: object) -> bool:
        if kind is not None and issubclass(kind, Exception):
            print(cluster.logs(), file=sys.stderr)
        cluster.close()
        return False

    stack.push(stop)
    server, worker = cluster.start_server(), cluster.start_worker()
    show(f"server: gRPC on {server.target}, HTTP on {server.http}\nworker: {worker.worker}")
    return cluster.client()


def start_dev(stack: contextlib.ExitStack, folder: Path, runtime: str) -> Client:
    """Start homing dev; return a client."""
    dev = Dev(folder / "dev", HOMING_RUNTIME=runtime)

    def stop(kind: type[BaseException] | None, *_: object) -> bool:
        if kind is not None and issubclass(kind, Exception):
            print(dev.tail(), file=sys.stderr)
        dev.terminate()
        return False

    dev.start()
    stack.push(stop)
    return stack.enter_context(Client(dev.target))


def run(stack: contextlib.ExitStack, broker: str, runtime: str) -> None:
    """Run the demo; what it starts is stopped by the stack."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="homing-demo-")))
    title("making ready")
    images = build_images(stack) if runtime == "docker" else {}
    client = (start_dev if broker == "embedded" else start_cluster)(stack, folder, runtime)
    # Cleaning up is not what the time is for.
    stack.callback(signal.alarm, 0)
    for name, command in COMMANDS.items():
        if runtime == "docker":
            deployed = client.functions.deploy(name=name, image=images[name])
        else:
            deployed = client.functions.deploy(name=name, command=command)
        show(f"deployed {deployed.name} from {deployed.image or ' '.join(deployed.command or ())}")

    invoke_figlet(client)
    invoke_tasks_async(client, invoke_tasks(client))
    invoke_with_callback(client)


def give_up(*_: object) -> None:
    """End the demo from within, so that it cleans up."""
    raise DemoError(f"the demo ends within {LIMIT} s")


def main() -> None:
    """Run the demo and end with status 1 where something did not hold."""
    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.alarm(LIMIT)
    # The settings of the user's own homing are not the demo's.
    for name in [name for name in os.environ if name.startswith("HOMING_")]:
        if name != "HOMING_BASE_IMAGE":
            del os.environ[name]
    broker, runtime = os.environ.get("BROKER") or "rabbitmq", os.environ.get("RUNTIME") or "docker"
    if broker not in {"rabbitmq", "embedded"} or runtime not in {"docker", "process"}:
        sys.exit("BROKER is rabbitmq or embedded, RUNTIME is docker or process")
    try:
        with contextlib.ExitStack() as stack:
            run(stack, broker, runtime)
    except DemoError as error:
        sys.exit(f"\nThis did not hold: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; nothing is left running.")
    title("Everything held; nothing is left running.")


if __name__ == "__main__":
    main()

"""A RabbitMQ node of the tests' own, which they may stop, kill and starve."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pika

MAX_MESSAGE_SIZE = 16 * 2**20
"""Bytes that the node takes in a message."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
CONTROL_TIMEOUT = 60.0
VHOSTS_AT_ONCE = 10

SCRIPTS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin"), Path("/usr/local/sbin"))
"""Where packages put RabbitMQ's own scripts. The ones in /usr/sbin are Debian's, which change the user."""

AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
LOG_TAIL = 4000

GUARD = """cat >/dev/null; kill -9 "$1"; while kill -0 "$1"; do sleep 0.1; done; epmd -kill; rm -rf "$2" """
"""Waits until the tests are gone, however they went, and ends the node for them."""


class RabbitError(Exception):
    """The node did not do what it should."""


class RabbitNode:
    """A node with its own name, ports, data, cookie and epmd, so that it meets no other on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scripts = find_scripts()
        self.port, self._dist_port, self._epmd_port = free_ports(3)
        self.tls_port = 0
        """Where it listens to TLS, where it does."""
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._vhosts: list[str] = []
        self._left: list[str] = []
        (folder / "home").mkdir(parents=True)
        cookie = folder / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
            "loopback_users.guest = true\n"
            "log.console = false\n"
            # A small write-ahead log starts and restarts fast.
            "raft.wal_max_size_bytes = 33554432\n"
            # As version 4 has it by default; before it was 128 MiB.
            f"max_message_size = {MAX_MESSAGE_SIZE}\n"
        )
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script then becomes the node instead of waiting for it, so that a signal to it is one to the node.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": f"homing-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the node's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the node."""
        if self._process is None:
            raise RabbitError("the node does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the node, with the data it had, and return once it takes connections."""
        if self.running:
            raise RabbitError("the node runs already")
        with (self.folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._scripts / "rabbitmq-server"],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in the terminal is for the tests; they stop what they started.
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self._process.pid), str(self.folder)],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                why = "did not start in time" if self.running else "ended"
                raise RabbitError(f"the RabbitMQ node {why}\n{self.log()}")
            time.sleep(0.05)

    def listen_to_tls(self, *, ca: Path, cert: Path, key: Path) -> None:
        """Listen on `tls_port` too, from the next start on, for clients that show a certificate of this authority."""
        (self.tls_port,) = free_ports(1)
        with (self.folder / "rabbitmq.conf").open("a") as conf:
            conf.write(
                f"listeners.ssl.local = 127.0.0.1:{self.tls_port}\n"
                f"ssl_options.cacertfile = {ca}\n"
                f"ssl_options.certfile = {cert}\n"
                f"ssl_options.keyfile = {key}\n"
                "ssl_options.verify = verify_peer\n"
                "ssl_options.fail_if_no_peer_cert = true\n"
            )

    def stop(self) -> None:
        """Shut the node down in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the node with SIGKILL and wait until it is gone."""
        self._end(signal.SIGKILL)

    def sync(self) -> None:
        """Have the node write down which queues it has.

        It does so half a second late, and a quorum queue that it has not written down is without a leader for ever
        when the node is killed.
        """
        self.ctl("eval", "[dets:sync(T) || T <- dets:all()], ok.")

    def suspend(self) -> None:
        """Freeze the node with SIGSTOP, as a machine that hangs does."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the node go on after `suspend`."""
        self._signal(signal.SIGCONT)

    def ctl(self, *arguments: str, stdin: str = "") -> str:
        """Run rabbitmqctl on the node and return what it prints."""
        done = subprocess.run(
            [self._scripts / "rabbitmqctl", "-q", *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=CONTROL_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise RabbitError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def new_vhost(self) -> str:
        """Return the AMQP URL of a virtual host that nobody uses yet."""
        if not self._vhosts:
            # The control program starts slowly, so a number of them are made, and those left deleted, at a time.
            self._vhosts = [f"v{secrets.token_hex(6)}" for _ in range(VHOSTS_AT_ONCE)]
            add = 'rabbit_vhost:add(Name, <<"tests">>)'
            permit = 'rabbit_auth_backend_internal:set_permissions(<<"guest">>, Name, All, All, All, <<"tests">>)'
            self.ctl(
                "eval",
                f'All = <<".*">>, [rabbit_vhost:delete(Name, <<"tests">>) || Name <- {_erlang(self._left)}],'
                f" [begin {add}, {permit} end || Name <- {_erlang(self._vhosts)}], ok.",
            )
            self._left.clear()
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{self._vhosts.pop()}"

    def leave_vhost(self, url: str) -> None:
        """Give a virtual host up: it is deleted later, with all that is in it."""
        self._left.append(vhost_of(url))

    def queues(self, url: str, *columns: str) -> dict[str, dict[str, str]]:
        """Return the queues of a virtual host by name, with what rabbitmqctl list_queues tells in these columns."""
        rows = json.loads(self.ctl("list_queues", "-p", vhost_of(url), "--formatter", "json", "name", *columns))
        return {row["name"]: row for row in rows}

    def log(self) -> str:
        """Return the end of what the node has logged."""
        files = [self.folder / "output.log", *sorted((self.folder / "log").glob("*.log"))]
        return "\n".join(f"--- {file.name} ---\n{file.read_text()[-LOG_TAIL:]}" for file in files if file.exists())

    def close(self) -> None:
        """Kill the node and what it started, and remove its data."""
        if self.running:
            self.kill()
        self._dismiss_guard()
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run([epmd, "-kill"], env=self._environment, capture_output=True, timeout=10, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(AMQP_HEADER)
                return len(connection.recv(8)) > 0
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        process = self._signal(number)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RabbitError(f"the RabbitMQ node did not end in time\n{self.log()}") from None
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None

    def _signal(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RabbitError("the node does not run")
        self._process.send_signal(number)
        return self._process


def lose_one(url: str, queue: str) -> None:
    """Take a message out of a queue and forget it."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    method, _, _ = connection.channel().basic_get(queue, auto_ack=True)
    connection.close()
    if method is None:
        raise RabbitError(f"nothing waits in {queue}")


def find_scripts() -> Path:
    """Return the folder of RabbitMQ's scripts."""
    for folder in SCRIPTS:
        if (folder / "rabbitmq-server").exists() and (folder / "rabbitmqctl").exists():
            return folder
    found = shutil.which("rabbitmq-server")
    if found is not None:
        return Path(found).resolve().parent
    raise RabbitError("RabbitMQ is not installed, and these tests need it (Debian: apt-get install rabbitmq-server)")


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _erlang(names: Iterable[str]) -> str:
    """Return names as a list of Erlang."""
    return "[" + ", ".join(f'<<"{name}">>' for name in names) + "]"


def vhost_of(url: str) -> str:
    """Return the name of the virtual host in an AMQP URL."""
    return url.rsplit("/", 1)[1]

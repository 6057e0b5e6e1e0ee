"""What README.md and the documentation tell people to type works: it is run against `homing dev`."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from packaging.requirements import Requirement

from homing import Client, NotFoundError, RetryPolicy
from support.cli import homing, program
from support.console import Command, Program, commands_of
from support.curl import curl
from support.documents import DOCUMENTS, ROOT, blocks_of
from support.processes import Dev
from support.rabbitmq import RabbitError, RabbitNode

ID = re.compile(r"019[34]…|01935000-0000-7000-8000-000000000001")
"""How the documents write the id of an invocation."""
NOT_RUN = {
    "homing dev": "is what the others are run against",
    "homing build": "needs an engine; test_stack_files.py does the same",
    "homing up": "needs an engine; test_stack_files.py does the same",
    "homing watch": "lasts until it is interrupted",
    "homing --install-completion": "changes the shell of the one who runs it",
    "homing --show-completion": "asks which shell it was run by",
}
"""Commands that are not run but whose options are looked up, and why."""
FUNCTIONS = (
    "greet",
    "hello",
    "shout",
    "figlet",
    "long-task",
    "resize",
    "render",
    "report",
    "mail",
    "mailer",
    "billing",
    "upper",
    "flaky",
    "ticker",
)
FILES = ("words.txt", "names.txt", "photo.jpg", "corrected.json", "tls.key")
STAND_INS: dict[str, Callable[[bytes], bytes]] = {
    "cat": lambda _: b"some words",
    "find": lambda _: b"./photo.jpg\n",
    "pass": lambda _: b"a password",
    # It is given what a program is to read.
    "jq": lambda piped: b"".join(json.dumps(json.loads(line)).encode() for line in piped.splitlines()),
}
"""What programs that are not ours give for what is piped to them; a machine may not have them."""


class Place:
    """A `homing dev` with functions that answer what they get."""

    def __init__(self, client: Client, dev: Dev, data: Path, node: RabbitNode) -> None:
        self.client = client
        self.target = dev.target
        self.http = dev.http
        self.data = data
        """The folder of its data."""
        self.node = node
        for name in FUNCTIONS:
            self.restore(name)
        client.functions.deploy(name="broken", command=["false"], retry_policy=RetryPolicy(max_attempts=1))
        client.invoke("report", b"large" * 100_000)  # so that there is a folder of blobs

    def restore(self, name: str) -> None:
        """Make a function as it was, whatever a command did to it."""
        self.client.functions.deploy(name=name, command=["cat"])
        self.client.functions.resume(name)

    def prepare(self, words: Sequence[str]) -> list[str]:
        """Return the words of a command with ids of what there is, and see to it that what it makes is not there."""
        match words:
            case ("secret", "create", name, *_):
                with contextlib.suppress(NotFoundError):
                    self.client.secrets.delete(name)
            case ("keys", "create", name, *_):
                with contextlib.suppress(NotFoundError):
                    self.client.keys.revoke(name)
            case ("deploy", name, *options, "--expected-revision", _):
                revision = self.client.functions.get(name).revision
                words = ["deploy", name, *options, "--expected-revision", str(revision)]
            case ("signing-key", "revoke", "ID"):
                words = [*words[:2], self.client.signing_keys.rotate(function="billing").signing_key.id]
        return [ID.sub(lambda _: self._id_for(words[0]), word) for word in words]

    def _id_for(self, command: str) -> str:
        """Return the id of a new invocation, in the state that a command is about."""
        if command == "stop":
            return self.client.invoke_async("report", delay=3600).id
        return self.ended("broken" if command == "deadletters" else "render")

    def ended(self, function: str = "render") -> str:
        """Return the id of an invocation that has ended."""
        call = self.client.invoke_async(function)
        call.wait(timeout=60)
        return call.id


def run_homing(place: Place, command: Program, piped: bytes | None) -> bytes:
    """Run the command homing and return what it printed; where it would not end, look up its options."""
    words: Sequence[str] = command.words[1:]
    if any(str(command).startswith(start) for start in NOT_RUN):
        # With --help behind the options of a command all of them are read before it shows the help.
        result = homing("--help", *words) if words[0].startswith("-") else homing(*words, "--help")
        assert result.exit_code == 0, f"{command}: {result.output}"
        return b""
    words = place.prepare(words)
    if command.reads:
        piped = Path(command.reads).read_bytes()
    if piped is None and words[:2] == ["secret", "create"] and "--from-file" not in words:
        piped = b"a password"  # in place of one that is typed on a terminal
    if piped is not None:
        done = program(*words, piped=piped)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
        return done.stdout
    result = homing(*words)
    if result.exit_code == 2 and "--yes" in result.stderr:
        result = homing(*words, "--yes")  # in place of a `y` that is typed on a terminal
    assert result.exit_code == 0, f"{command}: {result.output}"
    if words[0] in {"deploy", "pause", "scale", "remove"}:
        for name in FUNCTIONS if words[1] == "-f" else words[1:2]:
            place.restore(name)
    return result.stdout_bytes


def run_grpcurl(place: Place, command: Program, __: bytes | None) -> bytes:
    """Do what grpcurl does, with nothing known but what the server tells by reflection."""
    *options, target, what = command.words[1:]
    assert target == "localhost:50051"
    with grpc.insecure_channel(place.target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if what == "list":
            return json.dumps(list(database.get_services())).encode()
        service, _, name = what.partition("/")
        method = DescriptorPool(database).FindServiceByName(service).FindMethodByName(name)
        given = options[options.index("-d") + 1] if "-d" in options else "{}"
        request = json_format.Parse(given, GetMessageClass(method.input_type)())
        call = channel.unary_unary(
            f"/{what}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return json_format.MessageToJson(call(request, timeout=60)).encode()


def run_curl(place: Place, command: Program, _: bytes | None) -> bytes:
    """Ask the HTTP port."""
    return curl([ID.sub(lambda _: place.ended(), word) for word in command.words[1:]], server=place.http)


def check_pip(_: Place, command: Program, __: bytes | None) -> bytes:
    """Check that what is installed is a distribution of ours, or its folder, and has the extras that are named."""
    projects = {
        path.parent.name: tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        for path in ROOT.glob("*/pyproject.toml")
    }
    by_name = projects | {project["name"]: project for project in projects.values()}
    assert command.words[1] == "install"
    pinned = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    for word in command.words[2:]:
        wanted = Requirement(word.removeprefix("./"))
        if wanted.name not in by_name:
            assert f"\n{wanted} " in pinned, f"{command}: not the version that is tested"
            continue
        assert wanted.extras <= set(by_name[wanted.name].get("optional-dependencies", {})), command
    return b""


def check_go(_: Place, command: Program, __: bytes | None) -> bytes:
    """Check that generators are of the versions that are tested, and that our module is where it is said to be."""
    clients = ROOT / "clients" / "go"
    match command.words[1:]:
        case ("install", package):
            name, version = package.split("@")
            required = re.findall(
                r"^\s*(\S+) (v\S+)", (clients / "tools" / "go.mod").read_text(encoding="utf-8"), re.MULTILINE
            )
            assert any(name.startswith(module) and version == pin for module, pin in required), command
        case ("mod", "edit", _, replace):
            module, folder = replace.removeprefix("-replace=").split("=")
            assert f"module {module}\n" in (ROOT / folder.removeprefix("../homing/") / "go.mod").read_text(
                encoding="utf-8"
            )
        case _:
            assert command.words[1:] == ("mod", "tidy"), command
    return b""


def check_npm(_: Place, command: Program, __: bytes | None) -> bytes:
    """Check that packages are installed in the versions that are tested."""
    package = json.loads((ROOT / "tests" / "polyglot" / "typescript" / "package.json").read_text(encoding="utf-8"))
    pinned = [
        f"{name}@{version}" for kind in ("dependencies", "devDependencies") for name, version in package[kind].items()
    ]
    assert command.words[1] == "install"
    assert {word for word in command.words[2:] if not word.startswith("--")} <= {*pinned}, command
    return b""


def check_generate(_: Place, command: Program, __: bytes | None) -> bytes:
    """Let pass what tests/polyglot generates its code with."""
    package = (ROOT / "tests" / "polyglot" / "typescript" / "package.json").read_text(encoding="utf-8")
    assert f" {command}" in package.replace(".venv/bin/", ""), command
    return b""


def check_make(_: Place, command: Program, __: bytes | None) -> bytes:
    """Check that there is such a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target, *variables = command.words[1:]
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), command
    assert all(f"$({variable.partition('=')[0]})" in makefile for variable in variables), command
    return b""


def run_program(_: Place, command: Program, piped: bytes | None) -> bytes:
    """Run what is on every machine; python3 is the one that runs the tests."""
    name = sys.executable if command.name == "python3" else command.name
    done = subprocess.run([name, *command.words[1:]], input=piped, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
    return done.stdout


def check_module(_: Place, command: Program, __: bytes | None) -> bytes:
    """Check that a module of ours, which serves for as long as it is let, takes these arguments."""
    done = subprocess.run([sys.executable, *command.words[1:], "--help"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
    return b""


def run_rabbitmqctl(place: Place, command: Program, _: bytes | None) -> bytes:
    """Run it on the node of the tests."""
    return place.node.ctl(*command.words[1:]).encode()


def check_nothing(_: Place, command: Program, __: bytes | None) -> bytes:
    """Let pass what has only settings, which are looked up wherever they are named."""
    assert command.name == "export" or len(command.words) == 1, command
    return b""


PROGRAMS = {
    "homing": run_homing,
    "grpcurl": run_grpcurl,
    "curl": run_curl,
    "pip": check_pip,
    "make": check_make,
    "go": check_go,
    "npm": check_npm,
    "buf": check_generate,
    "scripts/googleapis": check_generate,
    "rabbitmqctl": run_rabbitmqctl,
    "export": check_nothing,
    "homing-server": check_nothing,
    "homing-worker": check_nothing,
    "cp": run_program,
    "python": check_module,
    "python3": run_program,
}
"""What is done with each program that may be typed; one that is not here fails its document."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, rabbit_node: RabbitNode) -> Iterator[Place]:
    data = tmp_path_factory.mktemp("dev")
    dev = Dev(data)
    dev.start()
    with Client(dev.target) as client:
        yield Place(client, dev, data, rabbit_node)
    assert dev.terminate() == 0
    with contextlib.suppress(RabbitError):  # there is none where no document made one
        rabbit_node.ctl("delete_vhost", "shop")
        rabbit_node.ctl("delete_user", "shop")


def run_command(place: Place, command: Command) -> None:
    """Run a pipeline, each program with what the one before it printed."""
    piped: bytes | None = None
    for part in command.pipeline:
        if part.name in STAND_INS and len(command.pipeline) > 1:
            piped = STAND_INS[part.name](piped or b"")
        else:
            assert part.name in PROGRAMS, f"{command}: say in {Path(__file__).name} how {part.name} is checked"
            piped = PROGRAMS[part.name](place, part, piped)


@pytest.mark.parametrize("document", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS])
def test_what_is_typed_works(document: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOMING_TARGET", place.target)
    for name in FILES:
        Path(name).write_text('"a line"\n')
    Path("data").symlink_to(place.data)
    Path("backup").mkdir()
    for block in blocks_of(document):
        for command in commands_of(block) if block.language == "console" else ():
            run_command(place, command)

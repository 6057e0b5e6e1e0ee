"""What stands in README.md and the documentation holds: examples run, commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import base64
import contextlib
import getpass
import inspect
import json
import logging
import pathlib
import re
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

import grpc
import pytest

import homing
from homing.testing import FakeServer
from homing_cli.stack.document import read_document
from homing_cli.stack.schema import parse_stack
from homing_cli.stack.substitution import substituted
from homing_server.settings import ServerSettings
from homing_worker.settings import WorkerSettings
from support.certificates import Authority
from support.documents import DOCUMENTS, FENCE, ROOT, Block, blocks_of
from support.signatures import signature

SIGNING_KEY = b"a signing key of homing's"
NOT_RUN = {
    """curl -d '{"percent": 40, "text": "resizing"}' "$Http_X_Homing_Progress_Url"\n""": "runs within a function",
    """<script>
  const watch = new EventSource("/v1/results:watch?filter.functions=shout")
  watch.addEventListener("invocation", event => console.log(JSON.parse(event.data).invocation))
</script>
""": "runs in a browser; test_rest.py does what that does",
    """export OPENFAAS_URL=http://127.0.0.1:8080
faas-cli login -u admin -p "$HOMING_API_KEY"   # any user, an API key as the password; not needed where no keys are
faas-cli deploy --image ghcr.io/openfaas/figlet:latest --name figlet --fprocess figlet
faas-cli list
faas-cli logs figlet
""": "faas-cli is no package that is served here; test_system.py makes its calls",
}
"""Examples for the shell that no test runs, and why."""
OTHER_SETTINGS = {"HOMING_TARGET", "HOMING_API_KEY", "HOMING_USE_PROXY", "HOMING_SECRETS_DIR"}
"""What is neither a setting of the server nor of the worker: of clients, and what a function finds."""


class EnoughError(Exception):
    """An example that goes on for ever has shown what it shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a web framework gives to a receiver."""

    headers: dict[str, str]
    body: bytes

    @staticmethod
    def of_homing(body: bytes) -> Request:
        """Return one as homing makes it."""
        now = int(time.time())
        signed = signature([SIGNING_KEY], id_="delivery-1", timestamp=now, body=body)
        return Request(
            headers={"webhook-id": "delivery-1", "webhook-timestamp": str(now), "webhook-signature": signed}, body=body
        )


class ResizeIn(TypedDict):
    width: int


class ResizeOut(TypedDict):
    size: int


def save(_: object) -> None:
    """Keep a resume token, and leave the watch."""
    raise EnoughError


def run_python(block: Block, names: dict[str, Any], target: str) -> None:
    """Run a block as a program that begins on its line of the document, where a traceback will show it."""
    text = "\n" * (block.line - 1) + block.text.replace("localhost:50051", target)
    code = compile(text, str(block.document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    done = eval(code, names)
    if inspect.iscoroutine(done):
        asyncio.run(done)


def names_for(fake: FakeServer, client: homing.Client) -> dict[str, Any]:
    """Return what the examples take for granted, as an application would have it."""
    noon = datetime.now(UTC) - timedelta(hours=1)
    envelope = next(block.text for block in blocks_of(ROOT / "docs" / "deliveries.md") if block.language == "json")
    ours = {name: getattr(homing, name) for name in homing.__all__}
    modules = {"homing": homing, "getpass": getpass, "grpc": grpc, "pathlib": pathlib, "time": time}
    return {
        **ours,
        **modules,
        "timedelta": timedelta,
        "logger": logging.getLogger("example"),
        "fake": fake,
        "client": client,
        "call": client.invoke_async("render", b"an old scene"),
        "noon": noon,
        "yesterday": noon - timedelta(days=1),
        "scene": {"scene": 7},
        "better_scene": {"scene": 8},
        "words": ["one", "two"],
        "lines": ["one", "two"],
        "inputs": [],
        "ResizeIn": ResizeIn,
        "ResizeOut": ResizeOut,
        "key": "hk_1f0c9a3b5d7e_secret",
        "secret": f"whsec_{base64.b64encode(SIGNING_KEY).decode()}",
        "request": Request.of_homing(json.dumps({"type": "invocation.failed", "data": json.loads(envelope)}).encode()),
        "tokens": types.SimpleNamespace(current=lambda: "token"),
        "opentelemetry": types.SimpleNamespace(propagate=types.SimpleNamespace(inject=lambda carrier: carrier.clear())),
        "seen_before": {"delivery-0"}.__contains__,
        "save": save,
    }


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """Yield a server with the functions that the examples name, and go to a folder with the files that they name."""
    authority = Authority(tmp_path, "ca")
    authority.issue("me")
    (tmp_path / "tls.key").write_text("key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    monkeypatch.setattr(getpass, "getpass", lambda: "a password")
    with FakeServer() as server:
        monkeypatch.setenv("HOMING_TARGET", server.target)
        for function in ("shout", "publish", "billing", "a", "b"):
            server.function(function)
        server.function("figlet").returns({"art": "_"}, headers={"Content-Type": "application/json"})
        server.function("resize").returns({"size": 7})
        server.function("render").fails(400, "no scene", times=1)  # for those who look for dead letters
        yield server


each_document = pytest.mark.parametrize(
    "document", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS]
)


@pytest.mark.timeout(60)
@each_document
def test_the_examples_run(document: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a document in their order, with the names that the ones before have made."""
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    names = module.__dict__
    with homing.Client(fake.target) as client:
        names.update(names_for(fake, client))
        fake.function("render").hold()  # for examples that stop what they have begun
        for block in blocks_of(document):
            if block.language == "python":
                names["client"] = client
                with contextlib.suppress(EnoughError):
                    run_python(block, names, fake.target)
                with contextlib.suppress(homing.ClosedClientError):
                    names["client"].functions.list()  # through the interceptors of a client that the example made
        if "hook" in names:
            request = names["request"]
            assert names["hook"](request.headers, request.body) is None


@each_document
def test_a_block_is_of_a_kind_that_is_looked_at(document: Path) -> None:
    for block in blocks_of(document):
        match block.language:
            case "python" | "console":
                pass  # these are run, here and in test_documents_console.py
            case "json":
                json.loads(block.text)
            case "yaml":
                assert not parse_stack(read_document(substituted(block.text, {}))).remarks, block
            case "go" | "typescript" | "java" | "xml":
                assert stands_in_source(block), f"{block} stands in none of the programs of other languages"
            case "":
                assert "$ " not in block.text, f"{block} is a figure, or else a block of `console`"
            case _:
                assert block.text in NOT_RUN, f"{block} is run by no test: say here why not"


def stands_in_source(block: Block) -> bool:
    """Tell whether a block is a part of what is built and run in tests/polyglot, but for spaces where lines begin."""
    sources = [
        *(ROOT / "docs" / "examples" / "clients").rglob("*.*"),
        *(ROOT / "tests" / "polyglot" / "go").glob("*.go"),
        *(ROOT / "tests" / "polyglot" / "typescript").glob("*.ts"),
    ]
    return any(without_indents(block.text) in without_indents(path.read_text(encoding="utf-8")) for path in sources)


def without_indents(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"`[^`]*`", "", FENCE.sub("", document.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), target


def anchors_of(document: Path) -> set[str]:
    """Return what a link may name behind its #: the headings, as a browser of repositories writes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_settings_exist(document: Path) -> None:
    fields = {*ServerSettings.model_fields, *WorkerSettings.model_fields}
    known = {f"HOMING_{field.upper()}" for field in fields} | OTHER_SETTINGS

    named = set(re.findall(r"HOMING_[A-Z_]*[A-Z]", document.read_text(encoding="utf-8")))

    assert named <= known

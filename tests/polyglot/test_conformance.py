"""Clients of other languages against real servers: every rpc, errors, deadlines, keys, TLS, a server that is killed.

A program for each language runs the cases, all of them at the same time and against the same servers, and prints what
came of each. What they run is built here first: a toolchain or a package that is missing fails the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from support.certificates import Authority
from support.confidential import confidential
from support.docker import ROOT
from support.polyglot import Outcome, Words, conduct, methods, run, with_tools
from support.processes import Cluster
from support.rabbitmq import RabbitNode

HERE: Final = Path(__file__).resolve().parent
EXAMPLES: Final = ROOT / "docs" / "examples" / "clients"
ROOT_KEY: Final = confidential("the-root-key-of-the-polyglot-tests-0123456789")

CASES: Final = (
    "functions",
    "invoke",
    "invoke-stream",
    "invoke-async",
    "batch",
    "stop-and-rerun",
    "large-bodies",
    "logs",
    "dead-letters",
    "secrets",
    "signing-keys",
    "api-keys",
    "error-info",
    "bad-request",
    "retry-info",
    "deadline",
    "wait",
    "cancel",
    "keys",
    "scopes",
    "tls",
    "mtls",
    "compression",
    "message-sizes",
    "wrong-token",
    "watch-resume",
    "keepalive",
)
PINGS: Final = ("too-many-pings",)
"""Of the clients that can be told to ping more often than a server allows."""
EXPECTED: Final = {"go": CASES, "connect-node": CASES + PINGS, "grpc-js": CASES + PINGS}

pytestmark = pytest.mark.timeout(900)  # the first run installs toolchains and builds


@pytest.fixture(scope="module")
def go_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build what is written in Go; return the folder of the programs."""
    built = tmp_path_factory.mktemp("go")
    # The example is built with the module of the tests, whose versions are those that the documentation names.
    for name, source in {"conformance": ".", "example": str(EXAMPLES / "go" / "first_calls.go")}.items():
        run("go", "vet", source, folder=HERE / "go")
        run("go", "build", "-buildvcs=false", "-o", built / name, source, folder=HERE / "go")
    return built


@pytest.fixture(scope="module")
def typescript() -> Path:
    """Install what is written in TypeScript needs, generate its code and check its types; return its folder."""
    folder = HERE / "typescript"
    wanted, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
    run("npm", "run", "generate", folder=folder)
    run("npm", "run", "check", folder=folder)
    return folder


@pytest.fixture(scope="module")
def examples(go_programs: Path, typescript: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Words]:
    """Return how to run the examples of the documentation, those in TypeScript in a project as a user has it."""
    project = tmp_path_factory.mktemp("typescript")
    shutil.copytree(EXAMPLES / "typescript", project / "src")
    for name in ("gen", "node_modules", "package.json"):
        (project / name).symlink_to(typescript / name)
    settings = json.loads((typescript / "tsconfig.json").read_text(encoding="utf-8"))
    (project / "tsconfig.json").write_text(json.dumps(settings | {"include": ["src"]}))
    run("npm", "run", "check", folder=project)
    return {
        "go": [go_programs / "example"],
        "connect-node": ["node", project / "src" / "connect.ts"],
        "grpc-js": ["node", project / "src" / "grpc_js.ts"],
    }


@pytest.fixture(scope="module")
def main_cluster(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield a server that wants keys, with a worker."""
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("polyglot")) as cluster:
        cluster.start_server(HOMING_ROOT_KEY=ROOT_KEY, HOMING_COMPRESS_RESPONSES="true")
        cluster.start_worker()
        yield cluster
    rabbit_node.leave_vhost(url)


@pytest.fixture(scope="module")
def outcomes(
    go_programs: Path,
    typescript: Path,
    main_cluster: Cluster,
    rabbit_node: RabbitNode,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Outcome]]:
    """Yield what came of all cases of all clients."""
    files = tmp_path_factory.mktemp("certificates")
    authority, people = Authority(files / "authority"), Authority(files / "people", "people")
    served, mine = authority.issue("server", "127.0.0.1", "localhost"), people.issue("me")
    stranger = Authority(files / "strangers", "strangers").issue("stranger")
    settings = {
        "HOMING_ROOT_KEY": ROOT_KEY,
        "HOMING_TLS_CERT": str(served.cert),
        "HOMING_TLS_KEY": str(served.key),
    }
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("secure")) as secure:
        tls = secure.start_server(**settings)
        mtls = secure.start_server(**settings, HOMING_TLS_CLIENT_CA=str(people.ca))
        trusted = {"ca": str(authority.ca), "stranger_ca": str(people.ca)}
        config = {
            "target": main_cluster.target,
            "root_key": ROOT_KEY,
            "tls": trusted | {"target": tls.target},
            "mtls": trusted
            | {
                "target": mtls.target,
                "cert": str(mine.cert),
                "key": str(mine.key),
                "stranger_cert": str(stranger.cert),
                "stranger_key": str(stranger.key),
            },
        }
        script = ("node", typescript / "main.ts")
        started: dict[str, Words] = {
            "go": [go_programs / "conformance", json.dumps(config)],
            "connect-node": [*script, "connect-node", json.dumps(config)],
            "grpc-js": [*script, "grpc-js", json.dumps(config)],
        }
        actions: dict[str, Callable[[], object]] = {
            "kill the server": main_cluster.server.kill,
            "start the server": main_cluster.server.start,
        }
        yield conduct(started, actions)
    rabbit_node.leave_vhost(url)


@pytest.mark.parametrize(("client", "case"), [(client, case) for client, cases in EXPECTED.items() for case in cases])
def test_case(client: str, case: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[client]
    assert case in outcome.cases, f"the program did not come to it, and ended with status {outcome.status}"
    report = outcome.cases[case]
    assert report["ok"], report["error"]


@pytest.mark.parametrize("client", EXPECTED)
@pytest.mark.parametrize("method", methods())
def test_every_method_is_called(client: str, method: str, outcomes: dict[str, Outcome]) -> None:
    assert method in outcomes[client].methods


@pytest.mark.parametrize("client", EXPECTED)
def test_no_case_goes_unnoticed(client: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[client].cases.keys() == set(EXPECTED[client])


@pytest.mark.parametrize("client", EXPECTED)
def test_the_example_runs(client: str, examples: dict[str, Words], main_cluster: Cluster) -> None:
    done = subprocess.run(
        with_tools(*examples[client]),
        cwd=ROOT,
        env=os.environ | {"HOMING_TARGET": main_cluster.target, "HOMING_API_KEY": ROOT_KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    now, later, refused, watched = done.stdout.splitlines()
    assert now == "LATER IS BETTER"
    assert later.endswith("SUCCEEDED")
    assert "INVALID_REQUEST" in refused
    assert watched.startswith("watched")
    assert watched.endswith("SUCCEEDED")


def test_the_lock_names_no_address() -> None:
    lock = json.loads((HERE / "typescript" / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all("resolved" not in package and package["integrity"] for package in packages)

"""What is built is whole, and installs from wheels alone into an empty environment, where it works."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from support.curl import curl
from support.documents import ROOT, blocks_of
from support.processes import Dev

VERSION = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
FOLDERS = {"homing": "sdk"} | {f"homing-{name}": name for name in ("core", "server", "worker", "function", "cli")}
PACKAGES = {name: name.replace("-", "_") for name in FOLDERS}

each_distribution = pytest.mark.parametrize("name", FOLDERS)


def run(*command: str | Path) -> str:
    """Run a command, which must succeed, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A virtual environment with nothing in it but what was asked for, and what that needs."""

    folder: Path
    packages: frozenset[str]

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run a program that is installed here, which must succeed, and return what it printed."""
        return run(self.folder / "bin" / program, *arguments)


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What `make dist` made, and beside it the wheels that it needs, as requirements/ pins them."""

    ours: Path
    others: Path

    def wheel(self, name: str) -> Path:
        """Return the wheel of a distribution of ours."""
        return self.ours / f"{PACKAGES[name]}-{VERSION}-py3-none-any.whl"

    def sdist(self, name: str) -> Path:
        """Return the source distribution of one of ours."""
        return self.ours / f"{PACKAGES[name]}-{VERSION}.tar.gz"

    def metadata(self, name: str) -> Metadata:
        """Return what a wheel says of itself; raises ExceptionGroup where it breaks the rules for that."""
        with zipfile.ZipFile(self.wheel(name)) as wheel:
            return Metadata.from_email(wheel.read(f"{PACKAGES[name]}-{VERSION}.dist-info/METADATA"), validate=True)

    def install(self, requirement: str, folder: Path) -> Environment:
        """Install a distribution of ours into a new environment, without asking any registry."""
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        # uv resolves and installs as pip does, in a tenth of its time.
        uv, environment = (ROOT / ".venv" / "bin" / "uv", "pip"), f"--python={folder / 'bin' / 'python'}"
        wheels = (f"--find-links={self.ours}", f"--find-links={self.others}")
        run(*uv, "install", environment, "--offline", "--no-index", "--only-binary=:all:", *wheels, requirement)
        listed = run(*uv, "list", environment, "--format=freeze").lower().replace("_", "-").splitlines()
        return Environment(folder=folder, packages=frozenset(line.partition("==")[0] for line in listed))


@pytest.fixture(scope="module")
def built(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Built:
    ours: Path | None = pytestconfig.getoption("--built")
    if ours is None:
        ours = tmp_path_factory.mktemp("dist")
        run(ROOT / "scripts" / "dist", ours)
    others = tmp_path_factory.mktemp("wheels")
    pinned = ("--no-deps", "--require-hashes", f"--requirement={ROOT / 'requirements' / 'run.txt'}")
    run(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--dest={others}", *pinned)
    return Built(ours=ours, others=others)


def test_six_distributions_are_built(built: Built) -> None:
    expected = {path.name for name in FOLDERS for path in (built.wheel(name), built.sdist(name))}

    assert {path.name for path in built.ours.iterdir()} == expected


@each_distribution
def test_a_wheel_tells_what_it_is(built: Built, name: str) -> None:
    project = tomllib.loads((ROOT / FOLDERS[name] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = built.metadata(name)

    assert (metadata.name, str(metadata.version)) == (name, VERSION)
    assert (metadata.license_expression, metadata.license_files) == ("Apache-2.0", ["LICENSE"])
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.summary == project["description"]
    assert metadata.keywords
    assert metadata.classifiers is not None
    assert "Typing :: Typed" in metadata.classifiers
    assert set(metadata.project_urls or ()) == {"Homepage", "Documentation", "Source", "Changelog"}
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / FOLDERS[name] / "README.md").read_text(encoding="utf-8")


@each_distribution
def test_a_wheel_has_the_whole_package_its_types_and_the_licence(built: Built, name: str) -> None:
    package = PACKAGES[name]
    source = ROOT / FOLDERS[name] / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    with zipfile.ZipFile(built.wheel(name)) as wheel:
        held = {path for path in wheel.namelist() if not path.startswith(f"{package}-{VERSION}.dist-info/")}
        licence = wheel.read(f"{package}-{VERSION}.dist-info/licenses/LICENSE")

    assert held == expected
    assert f"{package}/py.typed" in held
    assert licence == (ROOT / "LICENSE").read_bytes()


@each_distribution
def test_a_source_distribution_has_what_it_is_built_from(built: Built, name: str) -> None:
    top = f"{PACKAGES[name]}-{VERSION}"

    with tarfile.open(built.sdist(name)) as archive:
        files = {member.name for member in archive if member.isfile()}

    assert {f"{top}/{file}" for file in ("LICENSE", "README.md", "pyproject.toml", "PKG-INFO")} <= files


def test_the_sdk_brings_what_grpc_and_retries_need_and_nothing_else(built: Built, tmp_path: Path) -> None:
    environment = built.install("homing", tmp_path)

    # grpcio asks for typing-extensions, which is small.
    assert environment.packages == {
        "homing",
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "tenacity",
        "typing-extensions",
    }
    code = "import homing; homing.Client('localhost:1').close(); print(homing.__version__)"
    assert environment.run("python", "-W", "error", "-c", code) == f"{VERSION}\n"


def test_functions_are_written_with_little(built: Built, tmp_path: Path) -> None:
    environment = built.install("homing-function", tmp_path)

    assert environment.packages == {"homing-function", "click", "h11", "httptools", "uvicorn"}
    (tmp_path / "app.py").write_text(
        "from homing_function import function\n\n@function\ndef hello(name: str) -> str:\n    return name\n"
    )
    listed = environment.run("python", "-W", "error", "-m", "homing_function", tmp_path / "app.py", "--list")
    assert listed == '[{"name": "hello", "concurrency": 1}]\n'


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("homing-server", {"homing-worker", "homing-cli", "aiodocker"}),
        ("homing-worker", {"homing-server", "homing-cli", "sqlalchemy", "alembic"}),
        ("homing-cli", {"homing-core", "homing-server", "homing-worker"}),
    ],
)
def test_a_program_is_installed_with_no_more_than_it_needs(
    built: Built, name: str, without: set[str], tmp_path: Path
) -> None:
    program = name.removesuffix("-cli")
    environment = built.install(name, tmp_path)

    assert {name, "homing"} <= environment.packages
    assert environment.packages & without == set()
    assert environment.run(program, "--version") == f"{program} {VERSION}\n"
    assert "--help" in environment.run(program, "--help")


def test_the_first_example_runs_with_what_the_wheels_install(built: Built, tmp_path: Path) -> None:
    """`pip install 'homing-cli[dev]'`, `homing dev app.py`, and the first lines of Python in README.md."""
    environment = built.install("homing-cli[dev]", tmp_path / "environment")
    examples = [block.text for block in blocks_of(ROOT / "README.md") if block.language == "python"]
    example, app = examples[0], next(text for text in examples if "homing_function" in text)
    (tmp_path / "app.py").write_text(app, encoding="utf-8")
    dev = Dev(tmp_path / "data", str(tmp_path / "app.py"))
    dev.python = str(environment.folder / "bin" / "python")

    dev.start()
    try:
        (tmp_path / "first.py").write_text(example.replace("localhost:50051", dev.target), encoding="utf-8")
        dev.wait_for_log("", match=lambda line: "hello is deployed" in str(line["text"]))
        hello = curl(["http://localhost:8080/function/hello", "-d", "world"], server=dev.http)
        first, second, third = environment.run("python", "-W", "error", tmp_path / "first.py").splitlines()
    finally:
        assert dev.terminate() == 0

    assert hello == b"Hello world, this is attempt 1\n"
    assert first == "LATER IS BETTER"
    assert second.endswith(" NOW IS FINE TOO")
    assert third == "AND TELL ME"

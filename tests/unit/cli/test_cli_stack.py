"""The commands about stack files: new, build, up and deploy -f, with a docker command that writes down its words."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import grpc
import pytest

from homing.v1 import function_pb2, function_service_pb2
from support.cli import homing, objects, program
from support.scripted_server import Refusal, ScriptedServer

pytestmark = pytest.mark.usefixtures("scripted_target", "folder")

DOCKER = """\
#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "version":
    sys.exit("warning\\nCannot connect to the Docker daemon" if os.environ.get("AWAY") else 0)
print("output of", sys.argv[1], flush=True)
sys.exit(3 if os.environ.get("BREAKS", "nothing") in " ".join(sys.argv) else 0)
"""
STACK = """\
version: 1.0
provider:
  name: openfaas
functions:
  one:
    lang: dockerfile
    handler: ./one
    image: ${PREFIX:-me}/one:1
    build_args: {A: 1, B: two words}
  two:
    lang: dockerfile
    handler: ./two
    image: me/two:1
    fprocess: cat
    limits: {memory: 64Mi}
  bought:
    image: theirs:1
  made:
    image: made:1
    handler: ./made
    skip_build: true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def docker(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker command on the PATH; return the file where it writes what it is told."""
    place = tmp_path_factory.mktemp("bin")
    (place / "docker").write_text(DOCKER.format(python=sys.executable, log=str(place / "log")))
    (place / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    return place / "log"


@pytest.fixture
def stack(folder: Path, scripted_server: ScriptedServer) -> Path:
    """Make a stack file with the folders that it names, and let the server deploy all."""
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "Dockerfile").touch()
    (folder / "stack.yaml").write_text(STACK)
    scripted_server.script("DeployFunction", deployed)
    return folder / "stack.yaml"


def deployed(
    request: function_service_pb2.DeployFunctionRequest, _context: grpc.ServicerContext
) -> function_service_pb2.DeployFunctionResponse:
    if request.function.name == "refused":
        raise Refusal(code=grpc.StatusCode.PERMISSION_DENIED, message="no", reason="PERMISSION_DENIED")
    if request.function.name == "away":
        raise Refusal(code=grpc.StatusCode.DEADLINE_EXCEEDED, message="late", reason="DEADLINE_EXCEEDED")
    return function_service_pb2.DeployFunctionResponse(function=request.function)


def told(docker: Path) -> list[list[str]]:
    """Return what the docker command was told."""
    return [json.loads(line) for line in docker.read_text().splitlines()]


def names(server: ScriptedServer) -> list[str]:
    """Return the functions that were deployed, or were to be."""
    return [request.function.name for request in server.requests["DeployFunction"]]


def write(folder: Path, *functions: str) -> None:
    body = "".join(f"  {name}: {{image: x:1}}\n" for name in functions)
    (folder / "stack.yaml").write_text(f"functions:\n{body}")


def test_the_functions_of_a_file_are_deployed_one_after_the_other(stack: Path, scripted_server: ScriptedServer) -> None:
    result = homing("deploy", "-f", str(stack))

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "one is deployed, revision 0: image me/one:1",
        "two is deployed, revision 0: image me/two:1",
        "bought is deployed, revision 0: image theirs:1",
        "made is deployed, revision 0: image made:1",
    ]
    assert scripted_server.requests["DeployFunction"][1] == function_service_pb2.DeployFunctionRequest(
        function=function_pb2.Function(
            name="two", image="me/two:1", env={"fprocess": "cat"}, limits=function_pb2.Limits(memory_bytes=2**26)
        )
    )


def test_options_choose_and_force_and_the_file_is_found_by_its_name(
    stack: Path, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFIX", "us")
    result = homing("deploy", "--filter", "o*", "--force", "--json")

    assert (result.exit_code, [each["image"] for each in objects(result.stdout)]) == (0, ["us/one:1"])
    assert [request.force for request in scripted_server.requests["DeployFunction"]] == [True]
    stack.rename("stack.yml")
    assert homing("deploy", "--regex", "^(two|made)$").exit_code == 0
    assert names(scripted_server) == ["one", "two", "made"]


def test_one_that_is_refused_is_told_and_the_others_are_deployed(
    stack: Path, folder: Path, scripted_server: ScriptedServer
) -> None:
    write(folder, "first", "refused", "last")

    result = homing("deploy", "-f", "stack.yaml")

    assert result.exit_code == 5
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["first", "last"]
    assert result.stderr.startswith("homing: refused: no")
    assert names(scripted_server) == ["first", "refused", "last"]


def test_a_server_that_is_away_is_not_waited_for_again_and_again(
    stack: Path, folder: Path, scripted_server: ScriptedServer
) -> None:
    write(folder, "first", "away", "third", "last")

    result = homing("deploy", "-f", "stack.yaml")

    assert result.exit_code == 3
    assert names(scripted_server) == ["first", "away"]
    assert result.stderr.splitlines()[-1] == "homing: 2 functions not tried"


def test_nothing_is_deployed_where_anything_in_the_file_is_wrong(stack: Path, scripted_server: ScriptedServer) -> None:
    stack.write_text(STACK + "    environment_file: [nowhere.yml]\n")

    result = homing("deploy", "-f", "stack.yaml")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "homing: nowhere.yml: cannot be read: No such file or directory\n"
    assert names(scripted_server) == []


@pytest.mark.parametrize(
    ("gateway", "goes"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080", True),
        ("http://[::1]:8080", True),
        ("http://0.0.0.0:8080", True),
        ("''", True),
        ("https://gateway.example.org", False),
        ("http://10.0.0.7:8080", False),
    ],
)
def test_a_file_for_elsewhere_is_not_deployed_here(
    gateway: str, *, goes: bool, stack: Path, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gateway speaks HTTP; where gRPC is served there must be said."""
    stack.write_text(STACK.replace("name: openfaas", f"name: openfaas\n  gateway: {gateway}"))
    assert homing("--target", scripted_server.target, "deploy").exit_code == 0
    assert homing("deploy", "--target", scripted_server.target).exit_code == 0
    assert homing("deploy").exit_code == 0
    deployed = len(names(scripted_server))
    monkeypatch.delenv("HOMING_TARGET")
    monkeypatch.setattr("homing_cli.stack_deploy.connect", lambda ctx, target: pytest.fail("it was called"))

    if goes:
        with pytest.raises(pytest.fail.Exception):
            raise homing("deploy").exception or AssertionError
    else:
        result = homing("deploy")
        assert result.exit_code == 2
        assert "name where that serves gRPC, by --target or HOMING_TARGET" in result.stderr
    assert len(names(scripted_server)) == deployed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--image", "x"], "--image: is for one function"),
        (["--public"], "--public: is for one function"),
        (["--env", "A=1"], "--env: is for one function"),
        (["--max-instances", "2"], "--max-instances: is for one function"),
        (["--expected-revision", "0"], "--expected-revision: is for one function"),
        (["one"], "NAME: a stack file names its functions itself"),
        (["--regex", "["], "--regex is no regular expression"),
        (["--regex", "a", "--filter", "b"], "not given together"),
        (["--filter", "nothing"], "has no functions that --filter or --regex means"),
    ],
)
def test_what_does_not_go_with_a_file_is_told(
    arguments: list[str], complaint: str, stack: Path, scripted_server: ScriptedServer
) -> None:
    result = homing("deploy", "-f", "stack.yaml", *arguments)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert names(scripted_server) == []


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("deploy", "name a function, or a stack file: -f FILE"),
        ("build", "name a stack file, -f FILE"),
        ("up", "name a stack file, -f FILE"),
    ],
)
def test_where_there_is_no_file_it_is_told(command: str, what: str) -> None:
    result = homing(command)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"homing: there is no stack.yaml or stack.yml here: {what}\n"


def test_what_has_no_meaning_is_told_and_the_rest_done(stack: Path) -> None:
    stack.write_text(STACK + "    constraints: [x]\n")

    result = homing("deploy")

    assert result.exit_code == 0
    assert result.stderr == "homing: stack.yaml: functions.made.constraints has no meaning here\n"


def test_images_are_built_from_the_folders_with_their_arguments(stack: Path, docker: Path) -> None:
    done = program("build", "-f", "stack.yaml", "--build-arg", "A=9", "--build-arg", "C=3")

    assert done.returncode == 0, done.stderr
    assert told(docker)[1:] == [
        ["build", "--tag=me/one:1", "--build-arg=A=9", "--build-arg=B=two words", "--build-arg=C=3", "--", "./one"],
        ["build", "--tag=me/two:1", "--build-arg=A=9", "--build-arg=C=3", "--", "./two"],
    ]
    assert done.stdout.decode().splitlines() == [
        "output of build",
        "one is built: image me/one:1",
        "output of build",
        "two is built: image me/two:1",
    ]
    assert done.stderr.decode().splitlines() == [
        "homing: bought is not built: it has no handler",
        "homing: made is not built: skip_build",
        "homing: building one",
        "homing: building two",
    ]


def test_for_programs_there_is_json_alone_on_standard_output(stack: Path, docker: Path) -> None:
    done = program("build", "--filter", "one", "--json")

    assert done.returncode == 0
    assert objects(done.stdout.decode()) == [{"name": "one", "image": "me/one:1", "pushed": False}]
    assert b"output of build" in done.stderr


def test_one_that_cannot_be_built_is_told_and_nothing_deployed(
    stack: Path, docker: Path, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAKS", "me/one")

    done = program("up", target=scripted_server.target)

    assert done.returncode == 5
    assert [words[0] for words in told(docker)] == ["version", "build", "build"]
    assert b"homing: one: docker build ended with status 3\n" in done.stderr
    assert b"two is built" in done.stdout
    assert names(scripted_server) == []


@pytest.mark.parametrize(("options", "pushes"), [([], []), (["--push"], ["me/one:1", "me/two:1"])])
def test_up_builds_and_rolls_out_anew_and_pushes_only_where_told(
    options: list[str], pushes: list[str], stack: Path, docker: Path, scripted_server: ScriptedServer
) -> None:
    done = program("up", *options, target=scripted_server.target)

    assert done.returncode == 0, done.stderr
    assert [words[-1] for words in told(docker) if words[0] == "push"] == pushes
    assert [words[-1] for words in told(docker) if words[0] == "build"] == ["./one", "./two"]
    assert names(scripted_server) == ["one", "two", "bought", "made"]
    assert {request.force for request in scripted_server.requests["DeployFunction"]} == {True}


def test_a_push_that_fails_ends_it(
    stack: Path, docker: Path, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAKS", "push -- me/two")

    done = program("up", "--push", target=scripted_server.target)

    assert (done.returncode, names(scripted_server)) == (5, [])
    assert b"homing: two: docker push ended with status 3\n" in done.stderr


def test_an_engine_that_is_away_is_told_in_one_line(stack: Path, docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWAY", "1")
    result = homing("build", "--filter", "one")
    assert result.exit_code == 5
    assert result.stderr == "homing: no Docker engine answers: Cannot connect to the Docker daemon\n"

    monkeypatch.setenv("PATH", "/nowhere")
    result = homing("build", "--filter", "one")
    assert result.exit_code == 5
    assert result.stderr == "homing: the docker command is not installed, which builds and pushes images\n"


def test_nothing_is_asked_of_an_engine_where_nothing_is_built(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert homing("up", "--regex", "bought|made").exit_code == 0


def test_a_folder_without_a_dockerfile_is_told_before_anything_is_built(stack: Path, docker: Path) -> None:
    Path("two/Dockerfile").unlink()

    result = homing("build")

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "homing: two cannot be built: there is no two/Dockerfile"
    assert not docker.exists()

    stack.write_text(STACK.replace("lang: dockerfile", "lang: Node20"))
    result = homing("build", "--filter", "two")
    assert result.exit_code == 2
    assert "no two/Dockerfile, and templates such as node20 are faas-cli's to build" in result.stderr


def test_what_new_makes_can_be_built_and_deployed(docker: Path, stack: Path, scripted_server: ScriptedServer) -> None:
    stack.unlink()

    made = [
        homing("new", "hello-world", "--lang", "python", "--prefix", "me/"),
        homing("new", "long-task", "--lang", "dockerfile", "--append", "stack.yaml"),
    ]
    assert [result.exit_code for result in made] == [0, 0], made
    assert made[1].stdout.splitlines() == [
        "long-task/Dockerfile is made",
        "long-task is in stack.yaml; homing up builds and deploys it",
    ]
    done = program("up", target=scripted_server.target)

    assert (done.returncode, done.stderr.decode().splitlines()) == (
        0,
        ["homing: building hello-world", "homing: building long-task"],
    )
    assert [words[1] for words in told(docker)[1:]] == ["--tag=me/hello-world:latest", "--tag=long-task:latest"]
    assert names(scripted_server) == ["hello-world", "long-task"]


def test_new_tells_people_and_programs_what_it_made() -> None:
    told = homing("new", "first", "--lang", "dockerfile", "-f", "some other.yaml").stdout.splitlines()
    assert told[-1] == "first is in some other.yaml; homing up -f 'some other.yaml' builds and deploys it"

    result = homing("new", "hello", "--lang", "dockerfile", "-f", "other.yaml", "--json")

    assert objects(result.stdout) == [
        {"name": "hello", "image": "hello:latest", "stack": "other.yaml", "files": ["hello/Dockerfile"]}
    ]


@pytest.mark.parametrize(
    ("name", "handler"), [("hello", "hello"), ("a-b", "a_b"), ("class", "_class"), ("1st", "_1st"), ("str", "str")]
)
def test_a_function_in_python_has_its_name_there_too(name: str, handler: str) -> None:
    assert homing("new", name, "--lang", "python").exit_code == 0

    text = Path(name, "handler.py").read_text()
    assert f"def {handler}(text: str, ctx: Context) -> str:" in text
    compile(text, "handler.py", "exec")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["taken"], "homing: taken is there already"),
        (["hello", "-f", "there.yaml"], "homing: there.yaml is there already; --append there.yaml adds to it"),
        (["hello", "--append", "nowhere.yaml"], "homing: nowhere.yaml: cannot be read: No such file or directory"),
        (["has", "--append", "there.yaml"], "homing: there.yaml: functions.has: there is one already"),
        (["hello", "--append", "flow.yaml"], "homing: flow.yaml: a function cannot be added"),
        (["hello", "-f", "nowhere/stack.yaml"], "homing: nowhere/stack.yaml: cannot be written: No such file"),
        (["hello", "-f", "a.yaml", "--append", "there.yaml"], "--yaml makes a file, and --append adds to one"),
        (["Hello"], "'Hello' must be letters a to z"),
        (["../hello"], "'../hello' must be letters a to z"),
        (["a" * 64], "must be letters a to z"),
        (["hello-"], "must be letters a to z"),
        (["hello", "--lang", "cobol"], "'cobol'"),
    ],
)
def test_new_overwrites_nothing_and_takes_no_wrong_word(arguments: list[str], complaint: str, folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "there.yaml").write_text("functions:\n  has: {image: x}\n")
    (folder / "flow.yaml").write_text("functions: {has: {image: x}}\n")
    before = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}

    result = homing("new", "--lang", "dockerfile", *arguments)

    assert result.exit_code == 2
    assert complaint in result.stderr
    after = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    assert after == before


def test_new_makes_no_second_stack_file_beside_one_of_another_ending(folder: Path) -> None:
    (folder / "stack.yml").write_text("functions:\n  has: {image: x}\n")

    result = homing("new", "hello", "--lang", "dockerfile")

    assert result.exit_code == 2
    assert result.stderr == "homing: stack.yml is there already; --append stack.yml adds to it\n"
    assert not Path("hello").exists()

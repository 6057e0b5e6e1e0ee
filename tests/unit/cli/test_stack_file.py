"""What a stack file says, and what becomes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from homing import FunctionOptions, Limits
from homing_cli.stack.conversion import deploy_options
from homing_cli.stack.document import read_document
from homing_cli.stack.errors import StackError
from homing_cli.stack.files import Selection, read_environments, read_stack
from homing_cli.stack.schema import StackFunction, parse_stack

NOTHING = FunctionOptions(image="x:1", env={}, labels={}, annotations={}, secrets=())


def parsed(body: str) -> StackFunction:
    """Return a function with an image and what else is said of it."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (function,) = parse_stack(read_document(f"functions:\n  f:\n    image: x:1\n{lines}")).functions
    return function


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", {}),
        ("lang: dockerfile\nhandler: ./f\nskip_build: true\nbuild_args: {A: 1}", {}),
        ("fprocess: cat -n", {"env": {"fprocess": "cat -n"}}),
        ("fprocess: cat\nenvironment: {fprocess: wc}", {"env": {"fprocess": "wc"}}),
        ("environment:\n  write_debug: true\n  n: 1.10\n  empty:\n  quoted: '007'",
         {"env": {"write_debug": "true", "n": "1.10", "empty": "", "quoted": "007"}}),
        ("secrets: [b, a, b]", {"secrets": ("b", "a")}),
        ("labels: {com.openfaas.scale.min: 2, canary: true}",
         {"labels": {"com.openfaas.scale.min": "2", "canary": "true"}}),
        ("annotations:\n  com.openfaas.retry.attempts: 3\n  com.openfaas.health.http.path: /up\n  dev.homing.public: 1",
         {"annotations": {"com.openfaas.retry.attempts": "3", "com.openfaas.health.http.path": "/up",
                          "dev.homing.public": "1"}}),
        ("limits: {memory: 128Mi, cpu: 100m}", {"limits": Limits(memory_bytes=128 * 2**20, cpu_millis=100)}),
        ("limits: {memory: 64Mi}", {"limits": Limits(memory_bytes=64 * 2**20)}),
        ("limits: {cpu: 2}", {"limits": Limits(cpu_millis=2000)}),
        ("limits:", {}),
        ("namespace: openfaas-fn\nreadonly_root_filesystem: true", {}),
        ("environment:\nlabels:\nannotations:\nsecrets:\nenvironment_file:\nlimits:\nskip_build:", {}),
    ],
)  # fmt: skip
def test_a_function_is_deployed_as_the_file_says(body: str, expected: FunctionOptions) -> None:
    assert deploy_options(parsed(body)) == {**NOTHING, **expected}


def test_what_it_is_built_from_is_read_too() -> None:
    function = parsed("lang: dockerfile\nhandler: ./f\nskip_build: yes\nbuild_args: {A: 1, B: two}")

    assert (function.handler, function.skip_build) == ("./f", True)
    assert function.build_args == {"A": "1", "B": "two"}
    assert not parsed("skip_build: false").skip_build


def test_environment_files_go_before_what_is_said_in_place_and_later_ones_before_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "1.yml").write_text("environment:\n  a: 1\n  b: 1\n  debug: true\n")
    (tmp_path / "2.yml").write_text("environment: {b: 2, fprocess: wc}\n")
    (tmp_path / "3.yml").write_text("")
    files = ", ".join(str(tmp_path / f"{number}.yml") for number in (1, 2, 3))
    function = parsed(f"fprocess: cat\nenvironment: {{a: 0, c: 0}}\nenvironment_file: [{files}]")

    assert deploy_options(function, read_environments(function))["env"] == {
        "a": "1",
        "b": "2",
        "c": "0",
        "debug": "true",
        "fprocess": "wc",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("functions: {f: {imagee: x}}", "functions.f.imagee: there is no such key; is image meant?"),
        ("functions: {f: {image: x, zzz: 1}}", "functions.f.zzz: there is no such key"),
        ("functons: {}", "functons: there is no such key; is functions meant?"),
        ("provider: {gatewy: x}", "provider.gatewy: there is no such key; is gateway meant?"),
        ("provider: {name: kubernetes}", "provider.name: must be openfaas, and is kubernetes"),
        ("version: 2.0", "version: must be 1.0, and is 2.0"),
        ("functions: {f: {lang: x}}", "functions.f.image: must be given"),
        ("functions: {f: }", "functions.f.image: must be given"),
        ("functions: {F: {image: x}}", "functions.F: the name must be"),
        ("functions: {a_b: {image: x}}", "functions.a_b: the name must be"),
        ("functions: {-a: {image: x}}", "functions.-a: the name must be"),
        (f"functions: {{{'a' * 64}: {{image: x}}}}", f"functions.{'a' * 60}…: the name must be"),
        ("functions: {null: {image: x}}", "functions: a key is empty, or a null that wants quotes"),
        ("functions: [f]", "functions: must be a mapping"),
        ("functions: {f: x}", "functions.f: must be a mapping"),
        ("functions: {f: {image: [x]}}", "functions.f.image: must be a text"),
        ("functions: {f: {image: x, namespace: dev}}", "functions.f.namespace: must be openfaas-fn"),
        ("functions: {f: {image: x, environment: [A=1]}}", "functions.f.environment: must be a mapping"),
        ("functions: {f: {image: x, environment: {a: {b: c}}}}", "functions.f.environment.a: must be a text"),
        ("functions: {f: {image: x, secrets: one}}", "functions.f.secrets: must be a list"),
        ("functions: {f: {image: x, secrets: [{a: b}]}}", "functions.f.secrets[0]: must be a text"),
        ("functions: {f: {image: x, environment_file: one.yml}}", "functions.f.environment_file: must be a list"),
        ("functions: {f: {image: x, skip_build: maybe}}", "functions.f.skip_build: must be true or false"),
        ("functions: {f: {image: x, limits: {memory: 128MB}}}",
         "functions.f.limits.memory: must be a size in bytes such as 128Mi or 1G, and is 128MB"),
        ("functions: {f: {image: x, limits: {cpu: two}}}",
         "functions.f.limits.cpu: must be a number of cores such as 0.5 or 100m, and is two"),
        ("[]", "must be a mapping"),
        ("just a text", "must be a mapping"),
        (f"version: {'9' * 100_000}", f"version: must be 1.0, and is {'9' * 60}…"),
        (f"{'k' * 1000}: 1", f"{'k' * 60}…: there is no such key"),
        ("", "has no functions"),
        ("functions:", "has no functions"),
        ("functions: {f: {image: '${NO^}'}}", "line 1: ${NO^} cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_function_and_key(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(text)

    with pytest.raises(StackError, match=f"^{re.escape(f'{path}: {complaint}')}") as raised:
        read_stack(path, {}, Selection())
    assert len(str(raised.value)) < 400 + len(str(path))


def test_what_has_no_meaning_here_is_told() -> None:
    text = """
    provider: {name: openfaas, network: func_functions}
    configuration: {templates: [{name: x}]}
    functions:
      f:
        image: x
        constraints: ["node.platform.os == linux"]
        requests: {memory: 1Mi}
        limits: {nvidia.com/gpu: 1}
        platforms: linux/amd64
        build_options: [dev]
        readonly_root_filesystem: false
      quiet: {image: x, constraints: [], readonly_root_filesystem: true, requests: }
    """

    remarks = parse_stack(read_document(text)).remarks

    assert sorted(remarks) == [
        "configuration has no meaning here",
        "functions.f.build_options has no meaning here",
        "functions.f.constraints has no meaning here",
        "functions.f.limits.nvidia.com/gpu has no meaning here",
        "functions.f.platforms has no meaning here",
        "functions.f.readonly_root_filesystem is always true here",
        "functions.f.requests has no meaning here",
        "provider.network has no meaning here",
    ]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["url-ping", "nodejs-echo", "ruby-echo", "abcd-eeee"]),
        (Selection(filter="*echo"), ["nodejs-echo", "ruby-echo"]),
        (Selection(filter="**-*"), ["url-ping", "nodejs-echo", "ruby-echo", "abcd-eeee"]),
        (Selection(filter="ruby-echo"), ["ruby-echo"]),
        (Selection(regex="node"), ["nodejs-echo"]),
        (Selection(regex="e{4}|^url"), ["url-ping", "abcd-eeee"]),
    ],
)
def test_functions_are_chosen_by_name(selection: Selection, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    names = ("url-ping", "nodejs-echo", "ruby-echo", "abcd-eeee")
    path.write_text("functions:\n" + "".join(f"  {name}: {{image: '${{PREFIX:-me}}/{name}'}}\n" for name in names))

    stack = read_stack(path, {"PREFIX": "us"}, selection)

    assert [each.name for each in stack.functions] == expected
    assert {each.image for each in stack.functions} == {f"us/{name}" for name in expected}


@pytest.mark.parametrize("pattern", ["echo", "?rl-ping", "URL*", "[a-z]*"])
def test_a_filter_that_means_nothing_is_told(pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text("functions: {url-ping: {image: x}}")

    with pytest.raises(StackError, match="has no functions that --filter or --regex means"):
        read_stack(path, {}, Selection(filter=pattern))


def test_a_choice_that_cannot_be_is_told() -> None:
    with pytest.raises(StackError, match="not given together"):
        Selection(filter="a", regex="b")
    with pytest.raises(StackError, match="no regular expression"):
        Selection(regex="[")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b"#" * (256 * 1024 + 1), "has more than 262,144 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(data: bytes | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(StackError, match=f"{re.escape(str(path))}: {complaint}"):
        read_stack(path, {}, Selection())
    function = parsed(f"environment_file: [{path}]")
    with pytest.raises(StackError, match=f"{re.escape(str(path))}: {complaint}"):
        read_environments(function)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text("\ufefffunctions: {f: {image: x}}")

    assert read_stack(path, {}, Selection()).functions[0].name == "f"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="cannot be read: Is a directory"):
        read_stack(tmp_path, {}, Selection())

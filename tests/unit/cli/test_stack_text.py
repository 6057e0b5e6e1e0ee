"""The text of stack files: variables, YAML with bounds, quantities, and entries that are added."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from homing_cli.stack.document import read_document
from homing_cli.stack.entry import with_function
from homing_cli.stack.errors import StackError
from homing_cli.stack.quantities import cpu_millis, memory_bytes
from homing_cli.stack.schema import NAME, parse_stack
from homing_cli.stack.substitution import substituted
from homing_core.limits import FUNCTION_NAME

VARIABLES = {"SET": "value", "EMPTY": "", "OTHER": "other"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing here: $SET {SET} $ }", "nothing here: $SET {SET} $ }"),
        ("${SET}/image:${OTHER}", "value/image:other"),
        ("[${UNSET}]", "[]"),
        ("${SET:-default}", "value"),
        ("${UNSET:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${UNSET:-}", ""),
        ("${UNSET:=default} ${UNSET=default}", "default default"),
        ("${UNSET:-http://a:1/{x}", "http://a:1/{x"),
        ("${UNSET:-${SET}}", "value"),
        ("${UNSET:-a-${EMPTY:-${OTHER}}-b}", "a-other-b"),
        ("$${SET}", "${SET}"),
        ("$$${SET}", "$value"),
        ("cost: $$5", "cost: $5"),
        (r"a\\b \/ \n", r"a\b / \n"),
    ],
)
def test_variables_have_their_values(text: str, expected: str) -> None:
    assert substituted(text, VARIABLES) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a\nb: ${SET^^}", r"line 2: \$\{SET\^\^\} cannot be read"),
        ("${SET-default}", r"\$\{SET-default\} cannot be read"),
        ("${#SET}", "cannot be read"),
        ("${SET:2:3}", "cannot be read"),
        ("${SET/a/b}", "cannot be read"),
        ("${}", "cannot be read"),
        ("${1}", "cannot be read"),
        ("${SET", "cannot be read"),
        ("${UNSET:-default", r"has no \}"),
        ("${A:-" * 30 + "}" * 30, "cannot be read"),
        ("${LONG}" * 1000, "more than 262,144 characters"),
    ],
)
def test_what_is_no_variable_is_told(text: str, complaint: str) -> None:
    with pytest.raises(StackError, match=complaint):
        substituted(text, {"LONG": "x" * 1000})


def test_a_scalar_is_the_text_that_it_is_written_as() -> None:
    text = "{a: 1.10, b: true, c: 0x10, d: 2026-01-01, e: yes, f: 'null', g: null, h: ~, i: , j: name}"

    assert read_document(text) == {
        "a": "1.10",
        "b": "true",
        "c": "0x10",
        "d": "2026-01-01",
        "e": "yes",
        "f": "null",
        "g": None,
        "h": None,
        "i": None,
        "j": "name",
    }


def test_aliases_and_merges_are_resolved() -> None:
    text = "base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\nsame: *base\n"

    assert read_document(text) == {
        "base": {"a": "1", "b": "2"},
        "other": {"a": "1", "b": "3"},
        "same": {"a": "1", "b": "2"},
    }


def bomb(last: str) -> str:
    """Return a small document that would be a huge one if its aliases were written out."""
    lines = ["a: &a {k: x}"]
    for before, name in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f"{name}: &{name} " + last % ", ".join([f"*{before}"] * 9))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (bomb("[%s]"), "more than 20,000 values"),
        (bomb("{<<: [%s]}"), "more than 20,000 values"),
        ("[" * 100_000, "more than 20 levels"),
        ("{a: " * 50_000, "more than 20 levels"),
        ("\n".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else ''}]" for i in range(30)), "more than 20 levels"),
        (f"[{'x,' * 100_000}]", "more than 20,000 values"),
        ("a: &a [*a]", "an alias is in what it stands for"),
        ("a: &a {<<: *a}", "an alias is in what it stands for"),
        ("a: *nowhere", "line 1: found undefined alias"),
        ("x: 1\na: !!python/object/apply:os.system [ls]", "line 2: the tag .*os.system has no meaning"),
        ("a: !!binary aGk=", "has no meaning"),
        ("a: !own x", "has no meaning"),
        ("a: 1\nb: 2\na: 3", "line 3: a stands there twice"),
        ("a: 1\n---\nb: 2", "is no YAML: line 2"),
        ("a:\n\tb: 1", "is no YAML: line 2"),
        ("a: [", "is no YAML: line 1"),
        ("a: \0", "is no YAML"),
        ("? [a]\n: b", "unhashable"),
        ("a: {<<: x}", "is no YAML"),
    ],
)
def test_what_is_too_much_or_no_plain_data_is_told(text: str, complaint: str) -> None:
    with pytest.raises(StackError, match=complaint):
        read_document(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("128Mi", 128 * 2**20), ("1G", 10**9), ("64k", 64_000), ("1.5Gi", 3 * 2**29), ("1e3", 1000), ("12E2", 1200)),
        *(("1000000", 10**6), ("+5", 5), ("5.", 5), (".5Ki", 512), ("100m", 1), ("2Ti", 2**41)),
    ],
)
def test_memory_is_a_quantity(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100m", 100), ("0.5", 500), ("2", 2000), ("1e-1", 100), ("1u", 1), ("0.0001", 1), ("1k", 10**6)],
)
def test_processors_are_a_quantity(text: str, expected: int) -> None:
    assert cpu_millis(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " 1", "-1", "0", "0Mi", "1mi", "1 Mi", "1MB", "1Kb", "x", "1e999", "10E", "1" * 30, "٣", "1.2.3", ".", "1e"],
)
def test_what_is_no_quantity_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size in bytes such as 128Mi"):
        memory_bytes(text)


def test_a_name_is_what_the_server_takes() -> None:
    assert NAME.pattern == FUNCTION_NAME.pattern


ENTRY = {"lang": "dockerfile", "handler": "./new", "image": "me/new:latest"}
SOME = """\
# of the team
version: 1.0
provider: {name: openfaas}

functions:
    old: # the first
        image: ${PREFIX:-me}/old:1
"""


def test_a_new_file_has_all_that_faas_cli_wants() -> None:
    assert yaml.safe_load(with_function("", "new", ENTRY)) == {
        "version": 1.0,
        "provider": {"name": "openfaas", "gateway": "http://127.0.0.1:8080"},
        "functions": {"new": ENTRY},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "    new:\n"),
        ("# the end", "# the end\n    new:\n"),
        ("configuration:\n  copy: [a]\n", "    new:\n"),
    ],
    ids=["end", "comment", "between"],
)
def test_an_entry_is_added_and_all_else_stays_as_it_is(before: str, after: str) -> None:
    text = with_function(SOME + before, "new", ENTRY)

    assert text.startswith(SOME + after)
    whole = yaml.safe_load(text)
    assert whole["functions"] == {"old": {"image": "${PREFIX:-me}/old:1"}, "new": ENTRY}
    assert whole.get("configuration") == ({"copy": ["a"]} if "configuration" in before else None)
    assert before in text


@pytest.mark.parametrize(
    "text", ["version: 1.0\n", "version: 1.0", "functions:\n", "functions:\nversion: 1.0\n", "# no\n"]
)
def test_an_entry_is_added_where_there_is_none_yet(text: str) -> None:
    assert yaml.safe_load(with_function(text, "new", ENTRY))["functions"] == {"new": ENTRY}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SOME + "    new: {image: x}\n", "functions.new: there is one already"),
        ("functions: {}\n", "write it in by hand"),
        ("functions: {a: {image: x}}\n", "write it in by hand"),
        ("{functions: {a: {image: x}}}\n", "write it in by hand"),
        ("functions: &all\n  a: {image: x}\nother: *all\n", "write it in by hand"),
        ("functions:\n  a: {image: x}\n...\n", "write it in by hand"),
        ("functions: [a]\n", "functions: must be a mapping"),
        ("[a]\n", "is no mapping"),
        ("a: [", "is no YAML"),
    ],
)
def test_where_nothing_can_be_added_it_is_told(text: str, complaint: str) -> None:
    with pytest.raises(StackError, match=re.escape(complaint)):
        with_function(text, "new", ENTRY)


@settings(max_examples=30)
@given(st.from_regex(FUNCTION_NAME, fullmatch=True))
def test_a_name_comes_back_whatever_else_yaml_takes_it_for(name: str) -> None:
    """Such as 1, null, true, 1e3 or 0x10."""
    text = (
        with_function(with_function("", "other", ENTRY), name, ENTRY)
        if name != "other"
        else with_function("", name, ENTRY)
    )

    assert {each.name for each in parse_stack(read_document(text)).functions} == {"other", name}

"""The commands that list and count invocations, against the fake server."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from homing import Client
from homing.testing import FakeServer
from support.cli import homing, rows


@pytest.fixture
def listed(homing_fake: FakeServer, homing_client: Client) -> list[str]:
    homing_fake.function("a").returns("ok")
    homing_fake.function("b").fails(400)
    homing_fake.function("c").hold()
    names = ["a", "b", "c", "a"]
    return [homing_client.invoke_async(name, labels={"n": str(n)}).id for n, name in enumerate(names)]


def test_list_is_a_table_of_the_newest(listed: list[str]) -> None:
    header, *table = rows(homing("list"))

    assert header == ["ID", "FUNCTION", "STATE", "ACCEPTED", "TOOK", "ATTEMPTS", "DETAIL"]
    assert [row[:3] for row in table] == [
        [listed[3], "a", "SUCCEEDED"],
        [listed[2], "c", "RUNNING"],
        [listed[1], "b", "FAILED"],
        [listed[0], "a", "SUCCEEDED"],
    ]
    assert table[2][-1] == "it answered 400"


def test_list_says_when_there_are_more(listed: list[str], homing_client: Client) -> None:
    assert homing("list", "--limit", "4").stderr == ""
    assert homing("list", "--limit", "3").stderr == (
        "homing: there are more than these 3; see --limit, or homing count\n"
    )
    again = homing_client.rerun(listed[0]).id
    assert [row[0] for row in rows(homing("list", "--rerun-of", listed[0]))[1:]] == [again]


def test_count_is_a_table_by_state(listed: list[str]) -> None:
    assert rows(homing("count")) == [
        ["STATE", "COUNT"],
        ["RUNNING", "1"],
        ["SUCCEEDED", "2"],
        ["FAILED", "1"],
        ["all", "4"],
    ]
    assert rows(homing("count", "--ended-since", "1h"))[-1] == ["all", "3"]
    assert json.loads(homing("count", "--json", "--function", "a").stdout) == {"SUCCEEDED": {"count": 2, "more": False}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--function", "a", "-f", "b"], [3, 1, 0]),
        (["--state", "failed", "-s", "RUNNING"], [2, 1]),
        (["--label", "n=0"], [0]),
        (["--limit", "2"], [3, 2]),
        (["--oldest-first", "-n", "3"], [0, 1, 2]),
        (["--since", "1h"], [3, 2, 1, 0]),
        (["--until", "1h"], []),
        (["--since", (datetime.now(UTC) - timedelta(days=1)).isoformat()], [3, 2, 1, 0]),
        (["--since", "2020-01-01T00:00", "--until", "2020-01-02"], []),
        (["--started-since", "1h"], [3, 2, 1, 0]),
        (["--started-until", "1h"], []),
        (["--ended-since", "1h"], [3, 1, 0]),
        (["--ended-until", "1h"], []),
        (["--id-prefix", "0190"], [3, 2, 1, 0]),
        (["--id-prefix", "ff"], []),
        (["--rerun-of", "01900000-0000-7000-8000-000000000001"], []),
    ],
)
def test_list_filters(listed: list[str], arguments: list[str], expected: list[int]) -> None:
    result = homing("list", "--json", *arguments)

    assert result.exit_code == 0, result.stderr
    found = [json.loads(line)["id"] for line in result.stdout.splitlines()]
    assert found == [listed[number] for number in expected]


@pytest.mark.parametrize(
    ("arguments", "matched"),
    [
        (["rerun", "--started-since", "1h"], 3),
        (["rerun", "--started-until", "1h"], 0),
        (["rerun", "--ended-since", "1h"], 3),
        (["rerun", "--ended-until", "1h"], 0),
        (["stop", "--started-since", "1h"], 1),
        (["stop", "--started-until", "1h"], 0),
    ],
)
@pytest.mark.usefixtures("listed")
def test_many_are_chosen_by_the_same_times(arguments: list[str], matched: int) -> None:
    result = homing(*arguments, "--dry-run", "--json")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["matched"] == matched


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--state", "GONE"], "Invalid value for --state: 'GONE' is none of SCHEDULED, ENQUEUED"),
        (["list", "--ended-since", "1h", "--ended-until", "2h"], "ended_until: must be later than ended_since"),
        (["list", "--since", "yesterday"], "'yesterday' is neither a time such as"),
        (["list", "--since", "1h", "--until", "2h"], "created_until: must be later than created_since"),
        (["list", "--limit", "0"], "Invalid value for '--limit'"),
        (["count", "--label", "job"], "'job' is not KEY=VALUE"),
    ],
    ids=str,
)
def test_wrong_usage_is_explained(homing_fake: FakeServer, arguments: list[str], message: str) -> None:
    result = homing(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in re.sub(r"\s+", " ", result.stderr)
    assert homing_fake.calls() == ()

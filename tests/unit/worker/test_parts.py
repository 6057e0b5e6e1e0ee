from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from homing.v1.function_pb2 import Function
from homing.v1.invocation_pb2 import Result
from homing_core import limits
from homing_core.guard import Guard
from homing_core.wire.v1 import DeliveryMessage, FunctionState, Snapshot, Tombstone
from homing_worker.control.catalog import Catalog
from homing_worker.control.gate import Gate
from homing_worker.control.tombstones import Tombstones
from homing_worker.deliveries.request import url_of
from homing_worker.owner import OwnerLock, is_orphaned
from homing_worker.runtime import Request
from homing_worker.runtime.headers import joined, kept_headers, overridden, pairs
from homing_worker.runtime.request_variables import request_variables
from homing_worker.runtime.spool import Spools
from homing_worker.settings import WorkerSettings
from support.http_headers import headers_of, pairs_of


def test_headers_of_the_connection_are_dropped_and_the_others_kept_in_order() -> None:
    answered = [
        ("X-A", "1"), ("Connection", "close"), ("X-B", "3"), ("x-a", "2"), ("Content-Length", "5"), ("TE", "x")
    ]  # fmt: skip

    assert kept_headers(answered) == [("x-a", "1"), ("x-b", "3"), ("x-a", "2")]


@pytest.mark.parametrize("name", ["x-{}", "x-same"])
def test_headers_are_bounded_each_counts(name: str) -> None:
    many = kept_headers((name.format(number), "v") for number in range(1000))
    large = kept_headers((name.format(number), "v" * 8000) for number in range(10))

    assert len(many) == limits.MAX_HEADERS
    assert len(large) == 2
    assert sum(len(name) + len(value) for name, value in large) <= limits.MAX_HEADERS_SIZE


def test_headers_take_the_place_of_those_of_the_same_name_in_whatever_case() -> None:
    headers = [("X-A", "1"), ("x-b", "2"), ("x-a", "3")]

    assert overridden(headers, by=[("x-A", "4"), ("X-a", "5")]) == [("x-b", "2"), ("x-A", "4"), ("X-a", "5")]
    assert overridden(headers, by=[]) == headers
    assert joined(headers) == {"x-a": "1, 3", "x-b": "2"}


def test_a_name_is_spelled_as_it_is_first() -> None:
    assert pairs(headers_of([("X-A", "1"), ("x-b", "2"), ("x-a", "3")])) == [("X-A", "1"), ("x-b", "2"), ("X-A", "3")]


@given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=100))))
def test_whatever_bytes_headers_hold_messages_can_carry_them(answered: list[tuple[bytes, bytes]]) -> None:
    # As aiohttp decodes them.
    decoded = [(n.decode("utf-8", "surrogateescape"), v.decode("utf-8", "surrogateescape")) for n, v in answered]

    kept = kept_headers(decoded)

    sent = Result(headers=headers_of(kept))
    assert pairs_of(Result.FromString(sent.SerializeToString()).headers) == kept


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_header_is_read_in_the_encoding_that_it_has(encoding: str) -> None:
    decoded = "Grün.pdf".encode(encoding).decode("utf-8", "surrogateescape")

    assert kept_headers([("X-Name", decoded)]) == [("x-name", "Grün.pdf")]


class Changes:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []
        self.catalog = Catalog(self._on_change)

    def _on_change(self, name: str, state: FunctionState | None, _: int) -> None:
        self.seen.append((name, state.function.revision if state is not None else None))


def state(name: str, revision: int, *, deleted: bool = False) -> FunctionState:
    return FunctionState(function=Function(name=name, revision=revision), deleted=deleted)


def test_only_newer_revisions_change_the_catalogue() -> None:
    changes = Changes()
    for news in (state("f", 2), state("f", 2), state("f", 1), state("f", 3), state("f", 3, deleted=True)):
        changes.catalog.apply(news)
    changes.catalog.apply(state("f", 2))
    changes.catalog.apply(state("f", 4))

    assert changes.seen == [("f", 2), ("f", 3), ("f", None), ("f", 4)]


def test_a_change_of_the_secrets_is_news_too() -> None:
    changes = Changes()
    changes.catalog.apply(FunctionState(function=Function(name="f", revision=2), secrets_version=5))
    changes.catalog.apply(FunctionState(function=Function(name="f", revision=2), secrets_version=4))
    changes.catalog.merge(
        Snapshot(functions=[FunctionState(function=Function(name="f", revision=2), secrets_version=6)])
    )
    changes.catalog.apply(FunctionState(function=Function(name="f", revision=1), secrets_version=7))

    assert changes.seen == [("f", 2), ("f", 2)]


def test_a_snapshot_removes_what_it_does_not_name_unless_it_was_heard_of_since() -> None:
    changes = Changes()
    changes.catalog.apply(state("old", 1))
    changes.catalog.expect_snapshot()
    changes.catalog.apply(state("new", 1))
    changes.catalog.merge(Snapshot(functions=[state("other", 1)]))

    assert changes.seen == [("old", 1), ("new", 1), ("old", None), ("other", 1)]


async def test_the_gate_opens_with_a_snapshot_and_closes_with_silence() -> None:
    gate = Gate(max_silence=0.05)
    gate.heard()
    assert not gate.open
    gate.reopen()
    assert gate.open
    await asyncio.sleep(0.06)
    assert not gate.open
    gate.heard()
    assert not gate.open
    waiting = asyncio.create_task(gate.wait())
    await asyncio.sleep(0)
    gate.reopen()
    async with asyncio.timeout(5):
        await waiting


async def test_the_gate_goes_by_when_a_word_was_said() -> None:
    gate = Gate(max_silence=10.0)
    gate.reopen(age=11.0)
    assert not gate.open
    gate.reopen(age=9.0)
    assert gate.open
    gate.heard(age=9.5)
    gate.heard(age=60.0)
    assert gate.open


def test_tombstones_are_kept_as_long_as_servers_tell_of_them() -> None:
    now = 100.0
    tombstones = Tombstones(clock=lambda: now)
    tombstones.add([Tombstone(invocation_id="old", generation=2)])
    assert tombstones.covers("old", 1)
    assert tombstones.covers("old", 2)
    assert not tombstones.covers("old", 3)
    assert not tombstones.covers("other", 1)
    now += 60.0
    tombstones.add([Tombstone(invocation_id="news", generation=1), Tombstone(invocation_id="old", generation=1)])
    assert tombstones.covers("old", 2), "an earlier word does not take back a later one"
    tombstones.merge([Tombstone(invocation_id="more", generation=1)])
    # A snapshot may have been made before the latest news.
    assert [tombstones.covers(each, 1) for each in ("old", "news", "more")] == [True] * 3
    now += 60.0
    tombstones.merge([Tombstone(invocation_id="more", generation=1)])
    assert [tombstones.covers(each, 1) for each in ("old", "news", "more")] == [False, False, True]


def test_an_owner_lives_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    lock = OwnerLock(tmp_path, "w-1")
    lock.take()

    assert not is_orphaned(tmp_path, "w-1")
    assert is_orphaned(tmp_path, "w-2")
    lock.release()
    assert is_orphaned(tmp_path, "w-1")
    assert not list((tmp_path / "workers").iterdir())


def test_commands_find_their_request_as_under_a_classic_watchdog() -> None:
    request = Request(
        method="PUT",
        target="/a/b?c=d",
        headers=[("x-call-id", "1"), ("Content-Type", "text/plain"), ("X-Mine", "a"), ("x-mine", "b")],
        body=b"four",
        spools=Spools(Path("/nowhere")),
    )

    assert request_variables(request) == {
        "Http_X_Call_Id": "1",
        "Http_Content_Type": "text/plain",
        "Http_X_Mine": "a, b",
        "Http_Method": "PUT",
        "Http_Path": "/a/b",
        "Http_Query": "c=d",
        "Http_ContentLength": "4",
        "Http_Content_Length": "4",
    }


@pytest.mark.parametrize(
    "name", ["Proxy", "PROXY", "pRoXy", "Proxy-Host", "proxyuser", "X_Call_Id", "X-Call_Id", "a.b", "-"]
)
def test_no_variable_is_one_that_programs_take_for_their_own(name: str) -> None:
    request = Request(
        method="POST", target="//a?b?c", headers=[(name, "mine")], body=b"", spools=Spools(Path("/nowhere"))
    )

    assert request_variables(request) == {
        "Http_Method": "POST",
        "Http_Path": "//a",
        "Http_Query": "b?c",
        "Http_ContentLength": "0",
        "Http_Content_Length": "0",
    }


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]", "[0:0::0001]", "[::FFFF:127.0.0.1]", "127.0.0.1"])
@pytest.mark.parametrize("rest", ["", "/", ":080/a", "?q", "/%zz/../b?a=%C3%BC&b", ":65535//x"])
def test_what_was_accepted_as_a_url_is_one_to_deliver_to(host: str, rest: str) -> None:
    uri = f"http://{host}{rest}"
    target = Guard(networks=[ipaddress.ip_network("::1/128"), ipaddress.ip_network("127.0.0.0/8")]).check_url(uri)

    assert url_of(DeliveryMessage(uri=uri), target).host == target.host


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_RUNTIME", "process, docker")
    monkeypatch.setenv("HOMING_CALLBACK_NETWORKS", "10.0.0.0/8")
    settings = WorkerSettings()

    assert settings.runtimes == ("process", "docker")
    settings.delivery_guard.check_url("http://10.0.0.1:9000/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOMING_RUNTIME", "podman"),
        ("HOMING_RUNTIME", ""),
        ("HOMING_CALLBACK_NETWORKS", "10.0.0.1/8"),
        ("HOMING_CALLBACK_HOSTS", "http://example.org"),
        ("HOMING_CALLBACK_HOSTS", "a..b"),
        ("HOMING_CALLBACK_HOSTS", "*.bücher.example"),
        ("HOMING_CALLBACK_PORTS", "0"),
        ("HOMING_AMQP_DESTINATIONS", "orders.*"),
        ("HOMING_AMQP_DESTINATIONS", "failures, homing.events.v1"),
        ("HOMING_AMQP_DESTINATIONS", "/homing.dead.v1"),
        ("HOMING_AMQP_DESTINATIONS", "/"),
        ("HOMING_DELIVERY_DELAYS", "5,soon"),
        ("HOMING_DELIVERY_DELAYS", "nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match=name.removeprefix("HOMING_").lower()):
        WorkerSettings()

"""How what functions write becomes lines, whose they are, and how many go on their way."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT
from homing_core import limits
from homing_core.broker import Broker, BrokerUnavailableError
from homing_core.log_lines import CUT, LineSplitter, LogAllowance
from homing_core.wire.v1 import LogMessage
from homing_worker.metrics import Metrics
from homing_worker.reporting import logs
from homing_worker.reporting.logs import InvocationLog, LogPublisher
from homing_worker.runtime import attribution
from homing_worker.runtime.attribution import Attribution
from homing_worker.runtime.container_log import Frames
from homing_worker.runtime.instance_log import WrittenLines

MS = 1000


def split(*parts: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for part in parts for line in splitter.feed(part)] + list(splitter.rest())


@given(st.lists(st.binary(max_size=40)))
def test_lines_do_not_depend_on_how_the_bytes_come(parts: list[bytes]) -> None:
    assert split(*parts) == split(b"".join(parts))


def test_lines_lose_their_ends_and_what_is_no_text_is_replaced() -> None:
    assert split(b"one\r\n\ntwo \xff\xe2\x82", b"\xac\nlast") == ["one", "", "two \ufffd€", "last"]


@pytest.mark.parametrize("part", [100, limits.MAX_LOG_LINE, 10 * limits.MAX_LOG_LINE])
def test_a_line_without_end_is_cut_at_once_and_its_rest_dropped(part: int) -> None:
    written = b"x" * (3 * limits.MAX_LOG_LINE) + b"\nnext\n"
    parts = [written[start : start + part] for start in range(0, len(written), part)]

    cut, following = split(*parts)

    assert cut.endswith(CUT)
    assert limits.MAX_LOG_LINE <= len(cut) - len(CUT) <= limits.MAX_LOG_LINE + part
    assert following == "next"


def test_an_allowance_ends_with_the_first_line_that_does_not_fit() -> None:
    many, long = LogAllowance(), LogAllowance()

    assert [many.take("") for _ in range(limits.MAX_LOG_LINES + 1)] == [True] * limits.MAX_LOG_LINES + [False]
    assert long.take("x" * limits.MAX_LOG_SIZE)
    assert not long.take("é")
    assert not long.take("")


class Clock:
    """The time, in microseconds, as the test sets it."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attribution, "now_us", clock)
    return clock


def served(clock: Clock, *calls: tuple[str, int, int | None]) -> Attribution:
    """Return what is known after calls that began and ended at these times, in milliseconds."""
    instance = Attribution()
    moments = [(begin, name, True) for name, begin, _ in calls]
    moments += [(end, name, False) for name, _, end in calls if end is not None]
    spans = {}
    for at, name, begins in sorted(moments):
        clock.now = at * MS
        if begins:
            spans[name] = instance.serving(cast(InvocationLog, name))
            spans[name].__enter__()
        else:
            spans[name].__exit__(None, None, None)
    return instance


@pytest.mark.parametrize(
    ("calls", "at", "owners"),
    [
        pytest.param([("a", 100, None)], 150, {"a"}, id="while it runs"),
        pytest.param([("a", 100, None)], 99, set(), id="before it began"),
        pytest.param([("a", 100, 200)], 150, {"a"}, id="read after it has ended"),
        pytest.param([("a", 100, 200)], 399, {"a"}, id="just after its end"),
        pytest.param([("a", 100, 200)], 401, set(), id="long after its end"),
        pytest.param([("a", 100, 200), ("b", 300, None)], 299, {"a"}, id="before the next one began"),
        pytest.param([("a", 100, 200), ("b", 300, None)], 300, {"b"}, id="the next one has begun"),
        pytest.param([("a", 100, 200), ("b", 201, None)], 205, {"a", "b"}, id="soon after a change: either"),
        pytest.param([("a", 100, 200), ("b", 201, None)], 211, {"b"}, id="later after a change"),
        pytest.param([("a", 100, 200), ("b", 201, 250)], 260, {"b"}, id="after both: the later one"),
        pytest.param([("a", 100, 200), ("b", 150, 250)], 180, {"a", "b"}, id="at the same time"),
        pytest.param([("a", 100, 200), ("b", 150, 250)], 225, {"b"}, id="at the same time, then one"),
        pytest.param([("a", 100, 240), ("b", 150, 250)], 300, {"a", "b"}, id="after both that ran together"),
    ],
)
def test_a_line_belongs_to_those_that_may_have_written_it(
    clock: Clock, calls: list[tuple[str, int, int | None]], at: int, owners: set[str]
) -> None:
    assert set(cast(list[str], served(clock, *calls).at(at * MS))) == owners


def test_a_line_of_two_attempts_in_a_row_belongs_to_their_invocation_once(clock: Clock) -> None:
    instance = Attribution()
    log = cast(InvocationLog, "a")

    with instance.serving(log):
        clock.now += 50 * MS
    clock.now += MS
    with instance.serving(log):
        clock.now += MS
        assert instance.at(clock.now) == [log]


def test_a_line_may_be_of_an_invocation_that_has_no_log(clock: Clock) -> None:
    instance = Attribution()
    log = cast(InvocationLog, "a")

    with instance.serving(log), instance.serving(None):
        assert instance.at(clock.now) == [log, None]


def test_an_invocation_counts_as_served_until_its_end(clock: Clock) -> None:
    instance = served(clock, ("a", 100, 200))
    a, b = cast(InvocationLog, "a"), cast(InvocationLog, "b")

    with instance.serving(b):
        clock.now = 1000 * MS
        assert instance.served(b, clock.now)
    assert instance.served(a, 199 * MS)
    assert not instance.served(a, 200 * MS)
    assert not instance.served(cast(InvocationLog, "c"), 0)


class Written:
    """Takes the lines of one invocation."""

    def __init__(self, call_id: str = "c") -> None:
        self.call_id = call_id
        self.lines: list[tuple[str, bool]] = []

    def write(self, text: str, _stream: int, _time_us: int, *, shared: bool = False) -> None:
        self.lines.append((text, shared))


def test_a_line_belongs_to_those_for_whom_it_was_begun() -> None:
    first, second = Written(), Written()
    a, b = cast(InvocationLog, first), cast(InvocationLog, second)
    stream = WrittenLines(LOG_STREAM_STDOUT)

    stream.feed(b"one\nhalf of ", [a], 1)
    stream.feed(b"two\nbegun", [a], 2)
    stream.feed(b"mine\nours ", [b], 3)
    stream.feed(b"too\n" + b"x" * limits.MAX_LOG_LINE, [b, a], 4)
    assert stream.begun_for == [b, a]
    stream.feed(b"xx", [a, b], 5)
    stream.feed(b"of nobody\nof b\n", [None], 6)
    stream.feed(b"last", [b], 7)
    stream.end_line()
    stream.end_line()

    long = "x" * limits.MAX_LOG_LINE + CUT
    assert first.lines == [("one", False), ("half of two", False), ("begun", False), ("too", True), (long, True)]
    assert second.lines == [("mine", True), ("ours ", False), ("too", True), (long, True), ("last", False)]
    assert not stream.begun_for


def test_a_line_that_bears_the_id_of_one_of_several_calls_is_that_ones_alone() -> None:
    first, second, alike = Written("c1"), Written("c2"), Written("c2")
    a, b, c = cast(InvocationLog, first), cast(InvocationLog, second), cast(InvocationLog, alike)
    stream = WrittenLines(LOG_STREAM_STDOUT)

    stream.feed(b"[c1] mine\n[c2] yours\n[c3] whose\nours\n[c1]\n", [a, None, b], 1)
    stream.feed(b"[c1] alone\n", [a], 2)
    stream.feed(b"[c2] of a chain\n", [b, c], 3)

    shared = [("[c3] whose", True), ("ours", True), ("[c1]", True)]
    assert first.lines == [("mine", False), *shared, ("alone", False)]
    assert second.lines == [("yours", False), *shared, ("[c2] of a chain", True)]
    assert alike.lines == [("[c2] of a chain", True)]


def test_what_goes_on_a_line_of_others_is_marked() -> None:
    first, second = Written(), Written()
    a, b = cast(InvocationLog, first), cast(InvocationLog, second)
    stream = WrittenLines(LOG_STREAM_STDOUT)

    stream.feed(b"begun", [a], 1)
    stream.end_line()
    stream.feed(b" and", [b], 2)
    stream.feed(b" over\nmine\nhalf", [b], 3)
    stream.end_line()
    stream.feed(b"\nmine too\n", [b], 4)

    assert first.lines == [("begun", False)]
    assert second.lines == [(" and over", True), ("mine", False), ("half", False), ("mine too", False)]


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=20))), st.integers(1, 30))
def test_frames_are_found_however_the_stream_comes(frames: list[tuple[int, bytes]], part: int) -> None:
    stream = b"".join(
        bytes([number, 0, 0, 0]) + len(content).to_bytes(4, "big") + content for number, content in frames
    )
    found = Frames()

    parts = [stream[start : start + part] for start in range(0, len(stream), part)]

    assert [frame for piece in parts for frame in found.feed(piece)] == frames


class FakeBroker:
    """Keeps what is published, unless told to refuse it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.messages = 0
        self.failures = 0

    async def publish_logs(self, body: bytes) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailableError("away")
        self.messages += 1
        batches = LogMessage.FromString(body).batches
        self.lines += [(batch.invocation_id, line.text) for batch in batches for line in batch.lines]


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def publisher(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> LogPublisher:
    monkeypatch.setattr(logs, "_MIN_INTERVAL", 0.001)
    return LogPublisher(cast(Broker, broker), Metrics())


def write(log: InvocationLog, *lines: str) -> None:
    for line in lines:
        log.write(line, LOG_STREAM_STDOUT, 1)


async def test_lines_of_many_invocations_travel_together_in_their_order(
    broker: FakeBroker, publisher: LogPublisher
) -> None:
    a, b = publisher.open("a", function="f"), publisher.open("b", function="f")
    for number in range(3):
        write(a, str(number))
        write(b, str(number))

    await publisher.flush()

    assert broker.messages == 1
    for name in ("a", "b"):
        assert [text for id_, text in broker.lines if id_ == name] == ["0", "1", "2"]


async def test_what_fits_no_message_goes_with_the_next(broker: FakeBroker, publisher: LogPublisher) -> None:
    line = "x" * limits.MAX_LOG_LINE
    for name in "abc":
        write(publisher.open(name, function="f"), *[line] * 30)

    await publisher.flush()

    assert broker.messages > 2
    assert len(broker.lines) == 90


async def test_of_an_invocation_that_writes_too_much_one_line_more_travels_than_is_kept(
    broker: FakeBroker, publisher: LogPublisher
) -> None:
    log = publisher.open("a", function="f")
    write(log, *["x"] * (limits.MAX_LOG_LINES + 1000))

    await publisher.flush()

    assert log.full
    assert len(broker.lines) == limits.MAX_LOG_LINES + 1


async def test_where_too_many_wait_lines_are_dropped_and_counted(
    broker: FakeBroker, publisher: LogPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MAX_BUFFER_BYTES", 1000)
    log = publisher.open("a", function="f")
    write(log, *["x" * 36] * 25)
    await publisher.flush()
    write(log, "later")
    await publisher.flush()

    assert [text for _, text in broker.lines][10:] == ["… 15 lines were lost on the way here", "later"]


async def test_what_the_broker_does_not_take_is_counted(broker: FakeBroker, publisher: LogPublisher) -> None:
    broker.failures = 3
    write(publisher.open("a", function="f"), "one", "two")

    await publisher.flush()

    assert broker.lines == [("a", "… 2 lines were lost on the way here")]


async def test_a_line_tells_where_and_when_it_was_written(publisher: LogPublisher) -> None:
    publisher.open("a", function="f").write("text", LOG_STREAM_STDERR, 123, shared=True)

    (batch,) = LogMessage.FromString(publisher._take().body).batches

    assert (batch.lines[0].stream, batch.lines[0].time_us, batch.lines[0].shared) == (LOG_STREAM_STDERR, 123, True)
    await publisher.close()

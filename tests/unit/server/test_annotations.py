"""Annotations and labels that say how a function is run: OpenFaaS's, and ours in files for its tools."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from homing.v1.function_pb2 import Function
from homing_server.errors import ApiError, Violation, invalid_request
from homing_server.functions.annotations import applied, named_as_written
from homing_server.rules.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("90", 90), ("0.25", 0.25), (" 5s ", 5), ("0", 0),
        ("2h45m", 9900), ("1us", 1e-6), ("1µs", 1e-6), ("", None), ("s", None), ("-5s", None), ("5 s", None),
        ("5d", None), ("1e3", None), ("inf", None), ("nan", None), ("٣s", None), ("1" * 65, None), ("5ss", None),
        ("1s2", None), ("0x5s", None),
    ],
)  # fmt: skip
def test_lengths_of_time(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == (None if seconds is None else pytest.approx(seconds))


def with_(annotations: dict[str, str], labels: dict[str, str], text: str = "") -> Function:
    function = text_format.Parse(text, Function(name="f", image="i"))
    function.annotations.update(annotations)
    function.labels.update(labels)
    return function


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("com.openfaas.retry.attempts", "5", "retry_policy { max_attempts: 5 }"),
        ("com.openfaas.retry.attempts", "0", "retry_policy { max_attempts: 1 }"),
        ("com.openfaas.retry.codes", "429, 500", "retry_policy { retry_status_codes: [429, 500] }"),
        ("com.openfaas.retry.min_wait", "5s", "retry_policy { initial_backoff { seconds: 5 } }"),
        ("com.openfaas.retry.max_wait", "1m", "retry_policy { max_backoff { seconds: 60 } }"),
        ("dev.homing.retry.multiplier", "1.5", "retry_policy { backoff_multiplier: 1.5 }"),
        ("dev.homing.retry.max-retry-after", "30", "retry_policy { max_retry_after { seconds: 30 } }"),
        ("dev.homing.concurrency", "8", "concurrency: 8"),
        ("dev.homing.min-instances", "1", "min_instances: 1"),
        ("dev.homing.max-instances", "9", "max_instances: 9"),
        ("dev.homing.idle-timeout", "10m", "idle_timeout { seconds: 600 }"),
        ("dev.homing.attempt-timeout", "1500ms", "attempt_timeout { seconds: 1 nanos: 500000000 }"),
        ("dev.homing.max-age", "1h", "max_age { seconds: 3600 }"),
        ("dev.homing.retention", "48h", "retention { seconds: 172800 }"),
        ("dev.homing.record-sync", "false", "record_sync: false"),
        ("dev.homing.public", "true", "public: true"),
        ("dev.homing.on-success", "function:a, x:y", 'on_success { uri: "function:a" } on_success { uri: "x:y" }'),
        ("dev.homing.on-failure", "amqp:e/k", 'on_failure { uri: "amqp:e/k" }'),
    ],
)  # fmt: skip
def test_an_annotation_sets_its_field_and_no_other(name: str, value: str, field: str) -> None:
    given = with_({name: value}, {})
    function, paths = applied(given, None)
    assert paths is None
    assert function == with_({name: value}, {}, field)
    # What a masked deployment does not say it leaves as it is.
    (first,) = [each.name for each, _ in function.ListFields() if each.name not in {"name", "image", "annotations"}]
    assert applied(given, {"annotations"}) == (function, {"annotations", first})


def test_labels_of_scaling_are_heeded() -> None:
    labels = {"com.openfaas.scale.min": "2", "com.openfaas.scale.max": "6", "com.openfaas.scale.zero-duration": "5m"}
    function, _ = applied(with_({}, labels), None)
    assert (function.min_instances, function.max_instances, function.idle_timeout.seconds) == (2, 6, 300)
    function, _ = applied(with_({}, labels | {"com.openfaas.scale.zero": "true"}), None)
    assert function.min_instances == 0


def test_what_a_deployment_says_itself_goes_before() -> None:
    annotations = {"dev.homing.concurrency": "8", "com.openfaas.retry.attempts": "9"}
    given = with_(annotations, {}, "concurrency: 2 retry_policy { max_attempts: 2 }")
    assert applied(given, None) == (given, None)
    given = with_(annotations, {})
    paths = {"annotations", "concurrency", "retry_policy"}
    assert applied(given, paths) == (given, paths)


def test_functions_without_them_are_left_alone() -> None:
    given = with_({"topic": "x", "com.openfaas.health.http.path": "/up"}, {"team": "a"})
    assert applied(given, None)[0] is given


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("com.openfaas.retry.attempts", "many"), ("com.openfaas.retry.attempts", "-1"), ("dev.homing.public", "yes"),
        ("com.openfaas.retry.codes", "4x"), ("com.openfaas.retry.min_wait", "soon"), ("dev.homing.concurrency", "1.5"),
        ("dev.homing.retry.multiplier", "x"), ("dev.homing.retention", "1 week"), ("dev.homing.concurrency", "9" * 30),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        applied(with_({name: value}, {}), None)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert [each.field for each in caught.value.violations] == [f'function.annotations["{name}"]']


def refused(wanted: Function, *fields: str, paths: set[str] | None = None) -> tuple[list[str], str]:
    """Return under which names fields are refused, and the message."""
    error = named_as_written(
        invalid_request([Violation(field=name, description="no") for name in fields]), wanted, paths
    )
    return [each.field for each in error.violations], error.message


def test_what_may_not_be_is_refused_under_the_name_that_was_written() -> None:
    most, codes, to = "com.openfaas.scale.max", "com.openfaas.retry.codes", "dev.homing.on-success"
    written = with_({codes: "429,999", to: "function:x"}, {most: "101"})

    assert refused(written, "function.max_instances", "function.retry_policy.retry_status_codes[1]") == (
        [f'function.labels["{most}"]', f'function.annotations["{codes}"]'],
        f'function.labels["{most}"]: no; function.annotations["{codes}"]: no',
    )
    assert refused(written, "function.on_success[0].uri")[0] == [f'function.annotations["{to}"]']
    others = ["function.min_instances", "function.max_instances_too", "function.retry_policy.max_attempts"]
    assert refused(written, *others)[0] == others
    # What the deployment says itself is refused as that.
    own = with_({}, {most: "101"}, "max_instances: 102")
    assert refused(own, "function.max_instances")[0] == ["function.max_instances"]
    assert refused(written, "function.max_instances", paths={"labels", "max_instances"})[0] == [
        "function.max_instances"
    ]

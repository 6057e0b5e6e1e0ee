"""The limits and defaults that callers, functions and operators were promised: none changes by oversight."""

from __future__ import annotations

import re
from typing import Final

import pytest

from homing_core import limits

MINUTE, DAY = 60.0, 86_400.0
KIB, MIB = 1024, 1_048_576

CALLS: Final = {
    "MAX_INLINE_PAYLOAD": 256 * KIB,
    "MAX_INLINE_RESULT": 256 * KIB,
    "MAX_PAYLOAD": 64 * MIB,
    "MAX_PART": MIB,
    "MAX_UPLOADS": 1000,
    "MAX_UPLOADS_SIZE": 4096 * MIB,
    "MAX_REQUEST_ID": 128,
    "MAX_CALL_ID": 128,
    "MAX_LABELS": 16,
    "MAX_LABEL_KEY": 63,
    "MAX_LABEL_VALUE": 255,
    "MAX_HEADERS": 64,
    "MAX_HEADERS_SIZE": 16 * KIB,
    "MAX_URL": 2048,
    "MAX_BATCH": 1000,
    "MAX_BULK_RATE": 10_000.0,
    "BULK_CALL_KEPT": 7 * DAY,
    "MAX_STOP_REASON": 1024,
    "MAX_FILTER_FUNCTIONS": 100,
    "MAX_DESTINATIONS": 8,
    "MAX_DEAD_LETTER_IDS": 1000,
    "MAX_DELAY": 30 * DAY,
}
POLICIES: Final = {
    "MAX_STATUS_CODES": 300,
    "MAX_ATTEMPTS": 100,
    "DEFAULT_ATTEMPTS": 3,
    "DEFAULT_INITIAL_BACKOFF": 1.0,
    "DEFAULT_BACKOFF_MULTIPLIER": 2.0,
    "DEFAULT_MAX_BACKOFF": 5 * MINUTE,
    "MAX_BACKOFF": DAY,
    "DEFAULT_MAX_RETRY_AFTER": 5 * MINUTE,
    "RETRY_STATUS_CODES": {408, 425, 429, 500, 502, 503, 504},
    "DEFAULT_ATTEMPT_TIMEOUT": 5 * MINUTE,
    "MAX_ATTEMPT_TIMEOUT": DAY,
    "DEFAULT_MAX_AGE": DAY,
    "MIN_MAX_AGE": 1.0,
    "MAX_MAX_AGE": 30 * DAY,
    "DEFAULT_RETENTION": 7 * DAY,
    "MIN_RETENTION": MINUTE,
    "MAX_RETENTION": 365 * DAY,
    "SHORT_RETRY_DELAY": 2.0,
    "POISON_STARTS": 3,
    "MAX_DEPTH": 16,
}
FUNCTIONS: Final = {
    "MAX_ANSWER_HEADERS": 500,
    "MAX_ANSWER_HEADER_SIZE": 64 * KIB,
    "MAX_PROGRESS_TEXT": 1024,
    "MAX_PROGRESS_BODY": 4 * KIB,
    "DEFAULT_CONCURRENCY": 1,
    "MAX_CONCURRENCY": 1000,
    "DEFAULT_MAX_INSTANCES": 4,
    "MAX_INSTANCES": 100,
    "DEFAULT_IDLE_TIMEOUT": 5 * MINUTE,
    "MIN_IDLE_TIMEOUT": 1.0,
    "MAX_IDLE_TIMEOUT": DAY,
    "MIN_MEMORY": 6 * MIB,
    "MAX_FUNCTION": 256 * KIB,
    "MAX_ARGUMENTS": 1000,
    "MAX_ARGUMENT": 64 * KIB,
    "MAX_ENV": 256,
    "MAX_ENV_NAME": 255,
    "MAX_ENV_VALUE": 64 * KIB,
    "MAX_ANNOTATIONS": 64,
    "MAX_ANNOTATION_KEY": 255,
    "MAX_ANNOTATION_VALUE": 64 * KIB,
    "MAX_ENVELOPE_BODY": 64 * KIB,
    "MAX_LOG_LINE": 16 * KIB,
    "MAX_LOG_LINES": 10_000,
    "MAX_LOG_SIZE": MIB,
    "MAX_SECRET": 64 * KIB,
    "MAX_SECRETS": 32,
}
KEYS: Final = {"MAX_KEY_FUNCTIONS": 100, "MAX_KEY_RATE": 1_000_000.0, "MIN_KEY_RATE": 0.001}
INSIDE: Final = {
    "KIB": KIB,
    "MIB": MIB,
    "MAX_BROKER_MESSAGES": 10_000,
    "MAX_BROKER_BYTES": 64 * MIB,
    "MAX_BROKER_LOGS": 32 * MIB,
    "CONTROL_INTERVAL": 2.0,
    "CONTROL_SILENCE": 10.0,
    "WORKER_LOST": 20.0,
    "TOMBSTONE_KEPT": 5 * MINUTE,
    "MAX_STOPS": 1000,
    "MAX_CANCELLED_CALLS": 10_000,
    "MAX_SNAPSHOT_PART": MIB,
    "MAX_MESSAGE": 16 * MIB,
}
"""What processes of several versions keep to among each other."""


def test_all_limits_are_what_was_promised() -> None:
    found = {
        name: value for name, value in vars(limits).items() if name.isupper() and not isinstance(value, re.Pattern)
    }
    assert found == CALLS | POLICIES | FUNCTIONS | KEYS | INSIDE


def test_a_worker_is_lost_only_once_it_has_closed_its_own_gate() -> None:
    assert limits.CONTROL_INTERVAL < limits.CONTROL_SILENCE < limits.WORKER_LOST


@pytest.mark.parametrize("name", ["a", "0", "resize", "a-b", "a--b", "0-9", "a" * 63])
def test_names(name: str) -> None:
    assert limits.FUNCTION_NAME.fullmatch(name)
    assert limits.SECRET_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "a b", "a\n", "ä", "a" * 64, ".a", "a.", "_a", "a_"])
def test_what_is_no_name(name: str) -> None:
    assert not limits.FUNCTION_NAME.fullmatch(name)
    assert not limits.SECRET_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["tls.key", "smtp_password"])
def test_secrets_and_keys_may_have_dots_and_underscores_in_their_names(name: str) -> None:
    assert limits.SECRET_NAME.fullmatch(name)
    assert not limits.FUNCTION_NAME.fullmatch(name)

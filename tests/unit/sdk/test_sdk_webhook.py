"""Telling whether a callback is genuine."""

from __future__ import annotations

import base64
import email.message
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from standardwebhooks import Webhook, WebhookVerificationError

import homing
from homing_core import signing
from support.signatures import signature

KEYS = [bytes(range(start, start + 32)) for start in range(3)]
SECRETS = [signing.show_key(key) for key in KEYS]
NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
BODY = '{"größe": 1}\n'.encode()


def signed(secret: str = SECRETS[0], *, body: bytes = BODY, time: datetime = NOW) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Webhook-Id": "d1",
        "Webhook-Timestamp": str(int(time.timestamp())),
        "Webhook-Signature": Webhook(secret).sign("d1", time, body.decode()),
    }


def verify(headers: Any, body: Any = BODY, secret: Any = SECRETS[0], **options: Any) -> homing.VerifiedCallback:
    return homing.verify_callback(headers, body, secret, **{"now": NOW} | options)


def test_what_standardwebhooks_signs_is_genuine() -> None:
    assert verify(signed()) == homing.VerifiedCallback(id="d1", time=NOW)


def test_what_homing_signs_is_genuine_here_and_with_standardwebhooks() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    headers = {
        "webhook-id": "d1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature(KEYS[:2], id_="d1", timestamp=int(now.timestamp()), body=BODY),
    }

    for secret in SECRETS[:2]:
        assert homing.verify_callback(headers, BODY, secret) == homing.VerifiedCallback(id="d1", time=now)
        assert Webhook(secret).verify(BODY, headers) == {"größe": 1}
    with pytest.raises(homing.CallbackVerificationError):
        homing.verify_callback(headers, BODY, SECRETS[2])
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[2]).verify(BODY, headers)


def test_any_of_several_secrets_may_have_signed() -> None:
    for secret in SECRETS[:2]:
        assert verify(signed(secret), secret=SECRETS[:2]).id == "d1"
    with pytest.raises(homing.CallbackVerificationError, match="no signature matches"):
        verify(signed(SECRETS[2]), secret=tuple(SECRETS[:2]))


def message(headers: dict[str, str]) -> email.message.Message:
    made = email.message.Message()
    for name, value in headers.items():
        made[name] = value
    return made


class Werkzeug:
    """What Flask has: items() with a parameter, and no mapping."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def items(self, lower: bool = False) -> Any:  # noqa: FBT001, FBT002 - as it is there
        return iter((name.lower() if lower else name, value) for name, value in self._headers.items())


@pytest.mark.parametrize(
    "shaped",
    [
        dict,
        lambda headers: {name.lower(): value for name, value in headers.items()},
        lambda headers: {name.upper(): value for name, value in headers.items()},
        message,
        CIMultiDict,
        lambda headers: CIMultiDictProxy(CIMultiDict(headers)),
        Werkzeug,
        lambda headers: {**headers, b"raw": b"bytes", "X-Other": 1},
    ],
    ids=["dict", "lower", "upper", "http.server", "aiohttp", "aiohttp proxy", "flask", "others"],
)
def test_headers_come_in_many_shapes(shaped: Any) -> None:
    assert verify(shaped(signed())).id == "d1"


@pytest.mark.parametrize("shape", [bytes, bytearray, memoryview])
def test_bodies_are_bytes_of_any_kind(shape: Any) -> None:
    assert verify(signed(), shape(BODY)).id == "d1"
    assert verify(signed(body=b""), shape(b"")).id == "d1"


def broken(name: str, value: str | None) -> dict[str, str]:
    headers = {key: given for key, given in signed().items() if key != name}
    return headers if value is None else {**headers, name: value}


ID, TIMESTAMP, SIGNATURE = "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"
GOOD = signed()[SIGNATURE]
TAMPERED = {
    "no id": (broken(ID, None), BODY, "webhook-id: the header is missing"),
    "empty id": (broken(ID, ""), BODY, "webhook-id: the header is missing"),
    "another id": (broken(ID, "d2"), BODY, "no signature matches"),
    "an id that takes of the time": (broken(ID, f"d1.{SECONDS}"), BODY, "no signature matches"),
    "an id with odd characters": (broken(ID, "d1\udcff"), BODY, "no signature matches"),
    "no timestamp": (broken(TIMESTAMP, None), BODY, "webhook-timestamp: the header is missing"),
    "another timestamp": (broken(TIMESTAMP, str(SECONDS + 1)), BODY, "no signature matches"),
    "a fraction": (broken(TIMESTAMP, f"{SECONDS}.0"), BODY, "webhook-timestamp: is no number"),
    "a sign": (broken(TIMESTAMP, f"+{SECONDS}"), BODY, "webhook-timestamp: is no number"),
    "a space": (broken(TIMESTAMP, f" {SECONDS}"), BODY, "webhook-timestamp: is no number"),
    "other digits": (broken(TIMESTAMP, "١٢٣"), BODY, "webhook-timestamp: is no number"),
    "not a number": (broken(TIMESTAMP, "nan"), BODY, "webhook-timestamp: is no number"),
    "far too many digits": (broken(TIMESTAMP, 5000 * "9"), BODY, "webhook-timestamp: is no number"),
    "no signature": (broken(SIGNATURE, None), BODY, "webhook-signature: the header is missing"),
    "empty signature": (broken(SIGNATURE, " "), BODY, "webhook-signature: has no signature of version v1"),
    "only of another version": (broken(SIGNATURE, f"v1a,{GOOD[3:]}"), BODY, "has no signature of version v1"),
    "without a version": (broken(SIGNATURE, GOOD[3:]), BODY, "has no signature of version v1"),
    "cut signature": (broken(SIGNATURE, GOOD[:-4]), BODY, "no signature matches"),
    "nothing after the version": (broken(SIGNATURE, "v1,"), BODY, "no signature matches"),
    "no base64": (broken(SIGNATURE, "v1,ÿ\udcff"), BODY, "no signature matches"),
    "of another key": (signed(SECRETS[1]), BODY, "no signature matches"),
    "a changed byte": (signed(), BODY[:-2] + b" \n", "no signature matches"),
    "a byte more": (signed(), BODY + b"\n", "no signature matches"),
    "a byte less": (signed(), BODY[:-1], "no signature matches"),
    "no body": (signed(), b"", "no signature matches"),
    "the same twice": ({**signed(), ID.lower(): "d1"}, BODY, "webhook-id: the header is there more than once"),
    "two times": ({**signed(), TIMESTAMP.lower(): "1"}, BODY, "webhook-timestamp: the header is there more than"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_was_tampered_with_is_refused(case: str) -> None:
    headers, body, told = TAMPERED[case]

    with pytest.raises(homing.CallbackVerificationError, match=told) as caught:
        verify(headers, body)

    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    for secret in (SECRETS[0].removeprefix("whsec_"), GOOD[3:]):
        assert secret not in str(caught.value)


def test_other_signatures_beside_do_no_harm() -> None:
    for other in (f"v1a,xyz {GOOD}", f"{GOOD} v2,xyz", f"v1,xyz {GOOD}"):
        assert verify(broken(SIGNATURE, other)).id == "d1"
    assert verify({**broken(SIGNATURE, "v1,xyz"), SIGNATURE.lower(): GOOD}).id == "d1"


def test_old_and_future_ones_are_refused() -> None:
    for seconds in (-300, 300):
        assert verify(signed(), now=NOW + timedelta(seconds=seconds)).time == NOW
        assert verify(signed(), now=SECONDS + seconds).time == NOW
    with pytest.raises(homing.CallbackVerificationError, match="too old: 301 s, more than 300 s"):
        verify(signed(), now=NOW + timedelta(seconds=301))
    with pytest.raises(homing.CallbackVerificationError, match="too new: 301 s ahead, more than 300 s"):
        verify(signed(), now=NOW - timedelta(seconds=301))
    with pytest.raises(homing.CallbackVerificationError, match="too old"):
        homing.verify_callback(signed(), BODY, SECRETS[0])  # by the clock
    assert verify(signed(), now=NOW + timedelta(days=1), tolerance=timedelta(days=1)).id == "d1"
    with pytest.raises(homing.CallbackVerificationError, match="too old: 1 s, more than 0 s"):
        verify(signed(), now=SECONDS + 1, tolerance=0)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        base64.b64encode(KEYS[0]).decode(),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        SECRETS[0] + "!",
        SECRETS[0] + "é",
        [],
        [SECRETS[0], "whsec_hunter2"],
    ],
    ids=str,
)
def test_what_is_no_secret_is_refused_and_not_told(secret: Any) -> None:
    with pytest.raises(homing.InvalidRequestError, match=r"^secret") as caught:
        verify(signed(), secret=secret)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"headers": [("webhook-id", "d1")]}, "headers must be a mapping, or have items"),
        ({"headers": {"webhook-id": b"d1"}}, "the header webhook-id must be str, not bytes"),
        ({"body": "text"}, "body must be the bytes that were received, not str"),
        ({"secret": KEYS[0]}, "secret must be str or several, not bytes"),
        ({"secret": [KEYS[0]]}, r"secret\[0\] must be str, not bytes"),
        ({"secret": None}, "secret must be str or several, not NoneType"),
        ({"tolerance": "5"}, "tolerance must be seconds"),
        ({"now": "today"}, "now must be a number"),
    ],
    ids=str,
)
def test_wrong_types_are_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        verify(**{"headers": signed()} | arguments)


def test_times_without_a_zone_and_negative_tolerances_are_refused() -> None:
    for options in ({"now": datetime(2026, 11, 22)}, {"tolerance": -1}):  # noqa: DTZ001 - that is what is refused
        with pytest.raises(homing.InvalidRequestError):
            verify(signed(), **options)

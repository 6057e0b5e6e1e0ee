"""URLs of large bodies are good for what they were signed for, until they expire, and for nothing else."""

from __future__ import annotations

import base64
import hmac
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from homing.v1.payload_pb2 import Blob, Payload
from homing_server.payloads.signed_urls import SignedUrls

STORED = Payload(blob=Blob(id="b1", size=1))


def signer(key: bytes = b"secret", base: str = "http://10.0.0.1:8080") -> SignedUrls:
    urls = SignedUrls()
    urls.open(base, key)
    return urls


def asked(urls: SignedUrls, method: str, url: str, *, path: str = "", expires: str = "", signature: str = "") -> bool:
    """Return whether a request by a URL is allowed, perhaps with a part of it changed."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return urls.allows(
        method,
        path or parts.path,
        expires=expires or query["expires"][0],
        signature=signature or query["signature"][0],
    )


def test_a_worker_may_read_the_payload_and_write_the_result_and_nothing_else() -> None:
    urls = signer()
    access = urls.access("i1", STORED)
    later = str(int(time.time()) + 10**6)

    assert access.payload_url.startswith("http://10.0.0.1:8080/v1/blobs/b1?expires=")
    assert access.result_url.startswith("http://10.0.0.1:8080/v1/results/i1?expires=")
    assert asked(urls, "GET", access.payload_url)
    assert asked(urls, "PUT", access.result_url)
    assert urls.reading(STORED).startswith("http://10.0.0.1:8080/v1/blobs/b1?expires=")
    assert asked(urls, "GET", urls.reading(STORED))
    for allowed in (
        asked(urls, "PUT", access.payload_url),
        asked(urls, "GET", access.result_url),
        asked(urls, "GET", access.payload_url, path="/v1/blobs/b2"),
        asked(urls, "PUT", access.result_url, path="/v1/results/i2"),
        asked(urls, "GET", access.payload_url, expires=later),
        asked(urls, "GET", access.payload_url, signature="AAAA"),
        asked(urls, "GET", access.payload_url, signature="é\ud800"),
        asked(urls, "GET", access.payload_url, expires="9" * 5000),
        asked(urls, "GET", access.payload_url, expires="-1"),
        asked(urls, "GET", access.payload_url, expires="soon"),
        asked(urls, "GET", access.payload_url, expires="²"),
        asked(signer(b"another"), "GET", access.payload_url),
    ):
        assert not allowed


def test_a_payload_in_the_message_has_no_url() -> None:
    assert not signer().access("i1", Payload(data=b"x")).payload_url
    assert not signer().reading(Payload(data=b"x"))


def test_the_base_may_have_a_path() -> None:
    urls = signer(base="https://homing.example/colors/")

    assert urls.base == "https://homing.example/colors"
    assert urls.access("i1", STORED).payload_url.startswith("https://homing.example/colors/v1/blobs/b1?")


def test_no_url_is_good_before_there_is_a_key() -> None:
    """Least of all one that is signed with none, as everybody could do."""
    urls = SignedUrls()
    expires = str(int(time.time()) + 60)
    forged = base64.urlsafe_b64encode(hmac.digest(b"", f"GET\n/v1/blobs/b1\n{expires}".encode(), "sha256"))

    assert urls.base == ""
    assert not urls.allows("GET", "/v1/blobs/b1", expires=expires, signature=forged.decode().rstrip("="))


def test_all_versions_sign_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of a store may be of several, and what one has signed another one checks."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.5)

    assert signer().reading(Payload(blob=Blob(id="b16"))) == (
        "http://10.0.0.1:8080/v1/blobs/b16?expires=1700604800&signature=UECt9TRxhMbymidYuzcT3Q23OVVF1YJdxVszClyLnjs"
    )


@pytest.mark.parametrize("wait", [0, 30 * 24 * 3600])
def test_a_url_expires_a_week_after_the_work_must_have_started(monkeypatch: pytest.MonkeyPatch, wait: int) -> None:
    urls, now, week = signer(), 1_700_000_000, 7 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: now)
    access = urls.access("i1", STORED, start_by_us=(now + wait) * 1_000_000 if wait else 0)

    monkeypatch.setattr(time, "time", lambda: now + wait + week - 1)
    assert asked(urls, "PUT", access.result_url)
    monkeypatch.setattr(time, "time", lambda: now + wait + week)
    assert not asked(urls, "PUT", access.result_url)


def test_a_time_that_is_no_time_is_refused_before_it_is_read() -> None:
    urls, week = signer(), 7 * 24 * 3600
    last, beyond = (
        urls.access("i1", STORED, start_by_us=(seconds - week) * 1_000_000).result_url
        for seconds in (10**12 - 1, 10**12)
    )

    assert asked(urls, "PUT", last)
    assert not asked(urls, "PUT", beyond)

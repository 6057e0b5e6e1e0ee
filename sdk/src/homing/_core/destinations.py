"""Places that receive the envelope of an ended invocation, as arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from homing._core import check
from homing.v1 import policy_pb2

Destinations = str | Sequence[str]
"""One URI or several: ``https://…``, ``http://…``, ``function:NAME`` or ``amqp:EXCHANGE/KEY``."""

MAX_DESTINATIONS: Final = 8
_MAX_URI: Final = 2048
_FORMS: Final = (
    ("function:", re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"), "the name of a function"),
    ("amqp:", re.compile(r"[^/]+/.*|/.+", re.DOTALL), "EXCHANGE/KEY, or /QUEUE"),
    ("https://", re.compile(r"[^/?#].*", re.DOTALL), "a host"),
    ("http://", re.compile(r"[^/?#].*", re.DOTALL), "a host"),
)


def destination_messages(name: str, value: Destinations | None) -> list[policy_pb2.Destination]:
    """Return an argument as messages; None is none. The server checks more: which hosts and exchanges it allows.

    :raises TypeError: It is neither a str nor several.
    :raises InvalidRequestError: There are too many, or one is no destination.
    """
    uris = [check.text(name, value)] if isinstance(value, str) else check.texts(name, value)
    if len(uris) > MAX_DESTINATIONS:
        raise check.invalid(name, f"must be at most {MAX_DESTINATIONS}, are {len(uris)}")
    for place, uri in enumerate(uris):
        _check(f"{name}[{place}]", uri)
    return [policy_pb2.Destination(uri=uri) for uri in uris]


def _check(name: str, uri: str) -> None:
    # A URI may hold a password, so no error repeats it.
    if len(uri) > _MAX_URI:
        raise check.invalid(name, f"must have at most {_MAX_URI} characters, has {len(uri)}")
    for scheme, rest, form in _FORMS:
        if uri.startswith(scheme):
            if not rest.fullmatch(uri, len(scheme)):
                raise check.invalid(name, f"must have {form} after {scheme}")
            return
    raise check.invalid(name, "must begin with https://, http://, function: or amqp:")

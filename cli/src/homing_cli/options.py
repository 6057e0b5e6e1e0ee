"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

import homing

CALL_TIMEOUT: Final = 10.0
"""How long a call may take that waits for nothing but the server, in seconds."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+|\d+(?:\.\d+)?")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_NO_TIME: Final = "is a time before the year 1 or after the year 9999"
_SIZES: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Globals:
    """The options that stood before the command."""

    target: str | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    json: bool = False


Target = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of the server, or https://HOST:PORT; by default HOMING_TARGET or localhost:50051."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object a line.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="A label; may be repeated.")
]

OnSuccess = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URI",
        help="Gets the envelope on success: https://…, function:NAME or amqp:EXCHANGE/KEY; may be repeated.",
    ),
]
OnFailure = Annotated[list[str] | None, typer.Option(metavar="URI", help="Gets the envelope of another end; the same.")]


def connect(ctx: typer.Context, target: str | None) -> homing.Client:
    """Return a client of the server that the options name.

    :raises homing.InvalidRequestError: A setting breaks a rule.
    """
    given = _globals(ctx)
    return homing.Client(
        target or given.target,
        tls_ca=given.tls_ca,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        timeout=CALL_TIMEOUT,
    )


def target_of(ctx: typer.Context, target: str | None) -> str:
    """Return the server that is named, by an option or the environment; empty where none is."""
    return target or _globals(ctx).target or os.environ.get("HOMING_TARGET", "")


def wants_json(ctx: typer.Context, *, json: bool) -> bool:
    """Tell whether the output is for a program."""
    return json or _globals(ctx).json


def _globals(ctx: typer.Context) -> Globals:
    given = ctx.find_object(Globals)
    return given if isinstance(given, Globals) else Globals()


def duration(text: str) -> float:
    """Return the seconds of a duration such as ``90``, ``1.5s`` or ``1h30m``.

    :raises typer.BadParameter: It is none.
    """
    if not _DURATION.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def memory(text: str) -> int:
    """Return the bytes of a size such as ``64Mi`` or ``1G``.

    :raises typer.BadParameter: It is none.
    """
    match = re.fullmatch(r"(\d{1,18})([kMG]i?|)", text.replace("Ki", "ki"))
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size in bytes such as 64Mi or 1G")
    return int(match[1]) * _SIZES[match[2].replace("ki", "Ki")]


def cpu(text: str) -> int:
    """Return the thousandths of a core of a number such as ``0.5`` or ``500m``.

    :raises typer.BadParameter: It is none.
    """
    match = re.fullmatch(r"(\d{1,18})m|(\d{1,18}(?:\.\d+)?)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a number of cores such as 0.5 or 500m")
    return int(match[1]) if match[1] else round(float(match[2]) * 1000)


def pairs(option: str, items: Sequence[str] | None) -> dict[str, str]:
    """Return the mapping that ``KEY=VALUE`` items mean.

    :raises typer.BadParameter: One has no ``=``.
    """
    return dict(_pairs(option, items))


def headers(option: str, items: Sequence[str] | None) -> dict[str, list[str]] | None:
    """Return the headers that ``KEY=VALUE`` items mean: each item is one, also of a name that came before.

    :raises typer.BadParameter: One has no ``=``.
    """
    found: dict[str, list[str]] = {}
    for name, value in _pairs(option, items):
        found.setdefault(name, []).append(value)
    return found or None


def _pairs(option: str, items: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    for item in items or ():
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{item!r} is not KEY=VALUE", param_hint=option)
        yield key, value


def moment(text: str) -> datetime:
    """Return a time such as ``2026-11-22T08:00``, local where it has no zone, or ``90m`` for so long ago.

    :raises typer.BadParameter: It is none.
    """
    return _moment(text, -1, "is neither a time such as 2026-11-22T08:00 nor so long ago, as 90m")


def end(text: str) -> datetime:
    """Return a time such as ``2030-01-01``, local where it has no zone, or ``30d`` for so long from now.

    :raises typer.BadParameter: It is none.
    """
    return _moment(text, 1, "is neither a time such as 2030-01-01 nor so long from now, as 30d")


def _moment(text: str, direction: int, otherwise: str) -> datetime:
    try:
        if _DURATION.fullmatch(text):
            return datetime.now(UTC) + direction * timedelta(seconds=duration(text))
        read = datetime.fromisoformat(text)
    except OverflowError:
        raise typer.BadParameter(f"{text!r} {_NO_TIME}") from None
    except ValueError:
        raise typer.BadParameter(f"{text!r} {otherwise}") from None
    try:
        return read.astimezone(UTC)
    except (OverflowError, ValueError):  # the latter for a local time
        raise typer.BadParameter(f"{text!r} {_NO_TIME}") from None

"""Make what tells of the reasons in proto/homing/v1/reason.proto: docs/reasons.md and the enums of the SDK.

``--check`` complains where they are not what would be made, and changes nothing.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto" / "homing" / "v1" / "reason.proto"
PAGE = ROOT / "docs" / "reasons.md"
MODULE = ROOT / "sdk" / "src" / "homing" / "_core" / "reasons.py"

INTRODUCTION = """\
# Reasons

<!-- Made by scripts/reasons.py from proto/homing/v1/reason.proto: change that, then `make gen`. -->

Why a call was refused, and why an invocation failed, is told in words for people and by a name for programs. The names
stay; later versions may send others, so a program goes by the status or the state where it does not know one.
"""
ERRORS = """\
## Errors of calls

Every error of the gRPC API has a `google.rpc.ErrorInfo` with the domain `homing.dev` and one of these as its `reason`.
The SDK has it as `error.reason`, and by its status raises [one of its errors](sdk.md#errors): `homing.ErrorReason`.
"""
FAILURES = """\
## Failures

The `reason` of a `Failure`: of an attempt, of an attempt to deliver, and of an invocation that did not succeed. Its
`retryable` says whether another attempt may help. In the SDK: `homing.FailureReason`.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """A value of one of the enums."""

    name: str
    comment: str


def reasons(enum: str) -> Iterator[Reason]:
    """Yield the values of an enum, in the order of the file, without the one that is not set."""
    text = PROTO.read_text(encoding="utf-8")
    body = text.partition(f"enum {enum} {{\n")[2].partition("\n}")[0]
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum).upper() + "_"
    for comment, name in re.findall(rf"((?:  // .*\n)+)  {prefix}(\w+) = \d+;", body):
        if name != "UNSPECIFIED":
            yield Reason(name=name, comment=" ".join(line.strip(" /") for line in comment.splitlines()))


def page() -> str:
    """Return the page for people."""
    errors = ["| reason | status | |", "|---|---|---|"]
    for reason in reasons("ErrorReason"):
        status, _, words = reason.comment.partition(": ")
        errors.append(f"| `{reason.name}` | `{status}` | {words[0].upper()}{words[1:]} |")
    failures = [
        "| reason | |",
        "|---|---|",
        *(f"| `{each.name}` | {each.comment} |" for each in reasons("FailureReason")),
    ]
    parts = (INTRODUCTION, ERRORS, "\n".join(errors) + "\n", FAILURES, "\n".join(failures) + "\n")
    return "\n".join(parts)


def module() -> str:
    """Return the module of the SDK."""
    return (
        '"""The reasons that the API has. Made by scripts/reasons.py from proto/homing/v1/reason.proto."""\n\n'
        "from __future__ import annotations\n\nfrom enum import StrEnum\n\n\n"
        + enum(
            "ErrorReason",
            "Why a call was refused or failed: the ``reason`` of a RequestError. Servers may send others.",
        )
        + "\n\n"
        + enum("FailureReason", "Why an attempt, a delivery or an invocation failed. Servers may send others.")
    )


def enum(name: str, docstring: str) -> str:
    """Return an enum of the SDK."""
    lines = [f"class {name}(StrEnum):", f'    """{docstring}"""', ""]
    for reason in reasons(name):
        lines.append(f'    {reason.name} = "{reason.name}"')
        lines.append(textwrap.indent(textwrap.fill(f'"""{reason.comment}"""', 116), "    "))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the files, or tell which of them are not as they would be made."""
    check = "--check" in sys.argv
    stale = False
    for path, text in ((PAGE, page()), (MODULE, module())):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if check:
            print(f"{path.relative_to(ROOT)} is not what proto/homing/v1/reason.proto says: make gen renews it")
        else:
            path.write_text(text, encoding="utf-8")
    return int(check and stale)


if __name__ == "__main__":
    raise SystemExit(main())

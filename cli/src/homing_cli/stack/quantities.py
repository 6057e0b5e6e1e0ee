"""Quantities as Kubernetes writes them: `128Mi`, `100m`, `1e3`.

See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/. What is less than the unit here is
rounded up, as Kubernetes does.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final

_QUANTITY: Final = re.compile(
    r"\+?(?P<number>[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,2}))?"
)
_SUFFIXES: Final = (
    {name: Fraction(1000) ** power for name, power in zip("num", (-3, -2, -1), strict=True)}
    | {name: Fraction(1000) ** power for power, name in enumerate("kMGTPE", start=1)}
    | {f"{name}i": Fraction(1024) ** power for power, name in enumerate("KMGTPE", start=1)}
)
_MAX: Final = 2**63 - 1


def memory_bytes(text: str) -> int:
    """Return the bytes of a quantity such as ``128Mi``.

    :raises ValueError: It is none, or none that memory may be; says what it must be.
    """
    return _whole(text, Fraction(1), "must be a size in bytes such as 128Mi or 1G")


def cpu_millis(text: str) -> int:
    """Return the thousandths of a core of a quantity such as ``100m`` or ``0.5``.

    :raises ValueError: It is none, or none that processors may be; says what it must be.
    """
    return _whole(text, Fraction(1000), "must be a number of cores such as 0.5 or 100m")


def _whole(text: str, scale: Fraction, otherwise: str) -> int:
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(otherwise)
    number = found["number"]
    value = Fraction(f"0{number}" if number.startswith(".") else number.rstrip("."))
    value *= _SUFFIXES[found["suffix"]] if found["suffix"] else Fraction(10) ** int(found["exponent"] or 0)
    whole = math.ceil(value * scale)
    if not 0 < whole <= _MAX:
        raise ValueError(otherwise)
    return whole

"""Amounts of memory and processor as Kubernetes writes them, and with it OpenFaaS: `128Mi`, `100m`."""

from __future__ import annotations

import re
from typing import Final

_FORM: Final = re.compile(r"(\d{1,15})(\.\d{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", re.ASCII)
_FACTORS: Final = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}


def amount_of(text: str) -> float | None:
    """Return a quantity as a number; None where it is none.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    whole, fraction, unit = found.groups()
    return float(whole + (fraction or "")) * (_FACTORS[unit] if unit else 1.0)

"""Where an instance that answers HTTP says whether it is ready. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

READY_ANNOTATION: Final = "com.openfaas.ready.http.path"
HEALTH_ANNOTATION: Final = "com.openfaas.health.http.path"
"""By these annotations, the first one before the second, a function says where; as it does for OpenFaaS."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthCheck:
    """A path that says whether an instance is ready."""

    path: str
    named: bool = True
    """Whether somebody has named it, so that there is something at it. A watchdog that is only supposed to be there may
    be another program, which knows no such path."""

    def passes(self, status: int) -> bool:
        """Return whether an answer says that the instance is ready, given its status."""
        return 200 <= status < 400 if self.named else status != 503


def annotated_check(annotations: Mapping[str, str]) -> HealthCheck | None:
    """Return the check that a function names by its annotations; None where it names none."""
    for name in (READY_ANNOTATION, HEALTH_ANNOTATION):
        path = annotations.get(name, "").strip()
        if path:
            return HealthCheck(path=path if path.startswith("/") else f"/{path}")
    return None

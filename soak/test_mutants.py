"""Whatever single thing is wrong in what decides who may do what, when and how often, its module's tests notice."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

_log = logging.getLogger(__name__)

TESTS: Final = Path(__file__).parent.parent / "tests"
MODULES: Final[dict[str, list[str]]] = {
    "homing_core.guard": ["unit/core/test_guard.py"],
    "homing_core.retry": ["unit/core/test_retry.py"],
    "homing_server.auth.identity": ["unit/server/test_identity.py"],
    "homing_server.auth.key_format": ["unit/server/test_identity.py"],
    "homing_server.auth.rate_limit": ["unit/server/test_identity.py"],
    "homing_server.rules.tokens": ["unit/server/test_tokens.py"],
}
"""Modules that do nothing but decide, and the tests that are their own. The life cycle has its own check, which is
among the tests."""

EQUIVALENT: Final[dict[str, dict[str, str]]] = {
    "homing_core.guard": {
        ": Network = ipaddress.IPv4Network | ipaddress.IPv6Network → nothing": "only types see it",
        ": ipaddress.IPv4Network | ipaddress.IPv6Network → ipaddress.IPv4Network": "only types see it",
        ": ipaddress.IPv4Network | ipaddress.IPv6Network → ipaddress.IPv6Network": "only types see it",
        ": Address = ipaddress.IPv4Address | ipaddress.IPv6Address → nothing": "only types see it",
        ": ipaddress.IPv4Address | ipaddress.IPv6Address → ipaddress.IPv4Address": "only types see it",
        ": ipaddress.IPv4Address | ipaddress.IPv6Address → ipaddress.IPv6Address": "only types see it",
        "read_target: parts.hostname or '' → parts.hostname": "None is refused as an empty host is",
        "_canonical_ipv6: if address is None → False": "urlsplit refuses it from Python 3.11.4 on",
        "_canonical_ipv6: raise ForbiddenTargetError(f'has {host!r} in brackets, which is no IPv6 address')"
        " → nothing": "urlsplit refuses it from Python 3.11.4 on",
        "check_host: labels[-2] if len(labels) > 1 else '' → labels[-2]": "a host is never empty",
        "check_host: len(labels) > 1 → len(labels) >= 1": "a host is never empty",
        "check_host: '' → ' or so'": "a host is never empty",
    },
    "homing_server.auth.identity": {
        ": End = Callable[[ApiError], None] → nothing": "only types see it",
        ": [ApiError] without ApiError": "only types see it",
        "Identity.check_call: sorted(needed) → list(needed)": "a set of numbers so small is in their order",
        "Identity.narrow: if self.functions → True": "without functions every one is covered, and none is added",
        "identity_of: key.expire_time.ToMicroseconds() if key.HasField('expire_time') else 0"
        " → key.expire_time.ToMicroseconds()": "a time that was not given is 0",
    },
    "homing_server.auth.rate_limit": {
        "TokenBucket.__init__: self._at = 0.0 → nothing": "it is not read before something was taken",
        "TokenBucket.take: missing > _ROUNDING_TOKENS → missing >= _ROUNDING_TOKENS": "the bound is for rounding alone",
    },
    "homing_server.rules.tokens": {
        "encode_token: json.dumps(…) without separators": "tokens are only longer",
        "decode_token: -len(token) % 4 → 4": "padding beyond what is needed is ignored",
        "decode_token: (binascii.Error, ValueError, TypeError, RecursionError) without binascii.Error": (
            "it is a ValueError"
        ),
    },
}
"""By module the mutants that do the same as the code, and why."""

LEAST: Final = 0.98
"""The part of the other mutants that is noticed at least."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("module", MODULES)
def test_mutants_are_noticed(module: str) -> None:
    command = [sys.executable, "-m", "support.mutant_runs", module, *MODULES[module]]
    told = json.loads(subprocess.run(command, cwd=TESTS, check=True, stdout=subprocess.PIPE).stdout)
    equivalent = EQUIVALENT.get(module, {})
    survivors = [name for name in told["alive"] if name not in equivalent]
    _log.info("%s: %d mutants, %d not noticed", module, told["number"], len(survivors))
    for name in survivors:
        _log.warning("%s: not noticed: %s", module, name)
    assert equivalent.keys() <= set(told["alive"]), "these are noticed, or are no more: they need no excuse"
    assert len(survivors) <= (1 - LEAST) * (told["number"] - len(equivalent)), survivors

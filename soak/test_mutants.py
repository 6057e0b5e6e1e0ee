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
    "homing_core.destinations": ["unit/core/test_destinations.py"],
    "homing_core.guard": ["unit/core/test_guard.py"],
    "homing_core.limits": ["unit/core/test_limits.py"],
    "homing_core.retry": ["unit/core/test_retry.py"],
    "homing_core.sealing": ["unit/core/test_sealing.py"],
    "homing_core.signing": ["unit/core/test_signing.py"],
    "homing_server.auth.audit": ["unit/server/test_audit.py"],
    "homing_server.auth.authority": ["integration/server/test_authority.py"],
    "homing_server.auth.identity": ["unit/server/test_identity.py"],
    "homing_server.auth.key_cache": ["integration/server/test_api_keys.py"],
    "homing_server.auth.key_format": ["unit/server/test_identity.py"],
    "homing_server.auth.rate_limit": ["unit/server/test_identity.py"],
    "homing_server.auth.refusals": ["unit/server/test_refusals.py"],
    "homing_server.auth.scopes": ["unit/server/test_scopes.py"],
    "homing_server.auth.visibility": ["integration/server/test_visibility.py"],
    "homing_server.front.api.caller": ["unit/server/test_caller.py"],
    "homing_server.front.api.calls": ["unit/server/test_calls.py"],
    "homing_server.front.http.host_names": ["unit/server/test_host_names.py"],
    "homing_server.payloads.signed_urls": ["unit/server/test_signed_urls.py"],
    "homing_server.rules.bounds": ["unit/server/test_bounds.py"],
    "homing_server.rules.filters": ["unit/server/test_filters.py"],
    "homing_server.rules.paging": ["unit/server/test_paging.py"],
    "homing_server.rules.tokens": ["unit/server/test_tokens.py"],
    "homing_server.rules.update_mask": ["unit/server/test_update_mask.py"],
    "homing_server.rules.validation": ["unit/server/test_validation.py"],
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
    "homing_core.limits": {
        ": 1 * MIB → MIB": "it is the same number",
        ": 1 * MIB → MIB (2)": "it is the same number",
    },
    "homing_core.sealing": {
        "Vault.derive: HKDF(…) without salt": "without it there is none",
        "_derive: HKDF(…) without salt": "without it there is none",
        "key_of_text: (binascii.Error, ValueError) without binascii.Error": "it is a ValueError",
        "key_of_text: b'' → b' or so'": "that is no key of 32 bytes either",
    },
    "homing_core.signing": {
        "read_key: (binascii.Error, ValueError) without binascii.Error": "it is a ValueError",
        "read_key: b'' → b' or so'": "that is no key of 24 bytes either",
    },
    "homing_server.auth.audit": {
        ": Target = Mapping[str, object] → nothing": "only types see it",
        ": (str, object) without str": "only types see it",
        ": (str, object) without object": "only types see it",
    },
    "homing_server.auth.authority": {
        "Authority.check_passing_on: sorted(_ASKS) → list(_ASKS)": "a set of numbers so small is in their order",
    },
    "homing_server.auth.identity": {
        ": End = Callable[[ApiError], None] → nothing": "only types see it",
        ": [ApiError] without ApiError": "only types see it",
        "Identity.check_call: sorted(needed) → list(needed)": "a set of numbers so small is in their order",
        "Identity.narrow: if self.functions → True": "without functions every one is covered, and none is added",
        "identity_of: key.expire_time.ToMicroseconds() if key.HasField('expire_time') else 0"
        " → key.expire_time.ToMicroseconds()": "a time that was not given is 0",
    },
    "homing_server.auth.key_cache": {
        "KeyCache.identify: '' → ' or so'": "that is no key either",
        "KeyCache.identify: self._root_digest and same(self._root_digest, digest) → same(self._root_digest, digest)": (
            "no digest is empty"
        ),
        "KeyCache.identify: id_of(text) or '' → id_of(text)": "no key has None as its id",
        "KeyCache.identify: '' → ' or so' (2)": "no key has that as its id",
    },
    "homing_server.auth.rate_limit": {
        "TokenBucket.__init__: self._at = 0.0 → nothing": "it is not read before something was taken",
        "TokenBucket.take: missing > _ROUNDING_TOKENS → missing >= _ROUNDING_TOKENS": "the bound is for rounding alone",
    },
    "homing_server.front.api.caller": {
        ": 'homing_caller' → 'homing_caller or so'": "it is a name for those who debug it",
    },
    "homing_server.front.api.calls": {
        "Call: __slots__ = ('_ended', '_task') → nothing": "calls only take more memory",
    },
    "homing_server.front.http.host_names": {
        "HostNames.allow: urlsplit(f'//{host}').hostname or '' → urlsplit(f'//{host}').hostname": (
            "no browser asks under an empty name"
        ),
        "HostNames.allow: '' → ' or so'": "no browser asks under an empty name",
    },
    "homing_server.payloads.signed_urls": {
        "SignedUrls.__init__: 32 → 33": "nobody guesses more bytes either",
        "SignedUrls.access: 0 → 1": "a microsecond after the epoch is long ago too",
    },
    "homing_server.rules.bounds": {
        "_violations: if message.HasField(name) → True": "a message that is not there has empty lists",
        "_plan: field.message_type is not None and (not _is_map(field)) and (field.full_name != _BATCH)"
        " → field.message_type is not None and field.full_name != _BATCH": "no entry of a map has a list in it",
        "_plan: if not (counted or inside or inside_each) → False": "it spares work, and finds no list more",
        "_plan: counted or inside or inside_each → counted or inside": "a list that is looked into is counted too",
        "_is_map: field.message_type is not None and field.message_type.GetOptions().map_entry"
        " → field.message_type.GetOptions().map_entry": "it is asked of messages only",
        "_is_map: field.message_type is not None → field.message_type is None": "no entry of a map has a list in it",
    },
    "homing_server.rules.filters": {
        "matcher: if not selection.ByteSize() → False": "it spares work",
        "_within: bounds.HasField('start_time') and moment < _moment(bounds.start_time)"
        " → moment < _moment(bounds.start_time)": "nothing happened before 1970",
    },
    "homing_server.rules.paging": {
        ": 2 → 3": "a page size is a number of 32 bits",
        ": 31 → 32": "a page size is a number of 32 bits",
        ": Place = Mapping[str, Any] → nothing": "only types see it",
        ": (str, Any) without str": "only types see it",
        ": (str, Any) without Any": "only types see it",
    },
    "homing_server.rules.tokens": {
        "encode_token: json.dumps(…) without separators": "tokens are only longer",
        "encode_token: b'=' → b'= or so'": "a token ends as the bracket of its JSON does, with d, 0 or Q",
        "decode_token: -len(token) % 4 → 4": "padding beyond what is needed is ignored",
        "decode_token: (binascii.Error, ValueError, TypeError, RecursionError) without binascii.Error": (
            "it is a ValueError"
        ),
    },
    "homing_server.rules.validation": {
        ": '\\t\\n\\r' → '\\t\\n\\r or so'": "letters and spaces are no control characters",
        "check_spec: if spec.HasField('http') → True": "options that are not there break no rule",
        "check_spec: if spec.HasField('schedule_time') → True": "a time that is not there is long past",
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

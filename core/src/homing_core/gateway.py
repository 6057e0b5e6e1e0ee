"""How URLs name functions, as OpenFaaS's gateway has it: ``/function/NAME[.NAMESPACE][/path]``, and async-function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from homing_core import limits
from homing_core.guard import GATEWAY, ForbiddenTargetError, read_target

NAMESPACE: Final = "openfaas-fn"
"""The namespace that all functions are in: a name may bear it, and no other."""

_KINDS: Final = frozenset({"function", "async-function"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionTarget:
    """The function that a URL invokes, and what of the URL is the function's."""

    function: str
    path: str = ""
    """As it stands in the URL, with its percent signs; empty where the function is all that is named."""
    query: str = ""


def target_of(path: str) -> FunctionTarget | None:
    """Return what a path names; None where that can be no function."""
    root, _, kind_and_rest = path.partition("/")
    kind, _, named = kind_and_rest.partition("/")
    if root or kind not in _KINDS:
        return None
    name, slash, rest = named.partition("/")
    name, dot, namespace = name.partition(".")
    if (dot and namespace != NAMESPACE) or not limits.FUNCTION_NAME.fullmatch(name):
        return None
    return FunctionTarget(function=name, path=slash + rest)


def own_target(url: str) -> FunctionTarget | None:
    """Return what a URL names whose host is `gateway`, the server itself; None where it is another, or no function."""
    try:
        if f"//{GATEWAY}" not in url or read_target(url).host != GATEWAY:
            return None
    except ForbiddenTargetError:
        return None
    parts = urlsplit(url)
    target = target_of(parts.path)
    return target and FunctionTarget(function=target.function, path=target.path, query=parts.query)

"""What a stack file says: its functions, each as a value.

The keys are those of https://docs.openfaas.com/reference/yaml/. One that is none of them is an error, and one that has
no meaning in homing is told.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from homing_cli.stack.document import Document
from homing_cli.stack.errors import StackError, shown
from homing_cli.stack.quantities import cpu_millis, memory_bytes

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""The whole of a function's name, as the server has it."""
NAME_RULE: Final = "must be letters a to z, digits and hyphens, at most 63, with no hyphen at either end"

_NAMESPACE: Final = "openfaas-fn"
_TOP: Final = ("version", "provider", "functions", "configuration")
_PROVIDER: Final = ("name", "gateway", "network")
_FUNCTION: Final = (
    *("lang", "handler", "image", "fprocess", "environment", "environment_file", "secrets", "skip_build"),
    *("constraints", "labels", "annotations", "limits", "requests", "readonly_root_filesystem", "namespace"),
    *("build_options", "build_args", "platforms", "build_secrets", "registry_auth"),
)
_MEANINGLESS: Final = ("constraints", "requests", "platforms", "build_options", "build_secrets", "registry_auth")
_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class StackFunction:
    """A function of a stack file."""

    name: str
    image: str
    lang: str = ""
    """The template that `faas-cli` builds it with; `dockerfile` for a folder with a Dockerfile of its own."""
    handler: str = ""
    """The folder that it is built from; empty where there is none."""
    skip_build: bool = False
    build_args: Mapping[str, str] = field(default_factory=dict)
    fprocess: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[str, ...] = ()
    """Files with more of it, of which a later one goes before an earlier one, and all before `environment`."""
    secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None
    cpu_millis: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A stack file."""

    functions: tuple[StackFunction, ...] = ()
    gateway: str = ""
    """The address of the gateway that it is for."""
    remarks: tuple[str, ...] = ()
    """What it says that has no meaning here, a line each."""


def parse_stack(document: Document) -> Stack:
    """Return what a document says.

    :raises StackError: It is no stack file; names the function and the key.
    """
    remarks: list[str] = []
    top = _Keys(document, "", _TOP, remarks)
    version = top.text("version")
    if version not in {"", "1.0"}:
        raise StackError(f"version: must be 1.0, and is {shown(version)}")
    top.ignore("configuration")
    provider = _Keys(top.value("provider"), "provider", _PROVIDER, remarks)
    if provider.text("name") not in {"", "openfaas", "faas"}:
        raise StackError(f"provider.name: must be openfaas, and is {shown(provider.text('name'))}")
    provider.ignore("network")
    functions = _Keys(top.value("functions"), "functions", None, remarks)
    return Stack(
        functions=tuple(_function(name, functions.value(name), remarks) for name in functions.names),
        gateway=provider.text("gateway"),
        remarks=tuple(remarks),
    )


def parse_environment(document: Document) -> dict[str, str]:
    """Return the variables of an `environment_file`.

    :raises StackError: It is none.
    """
    return _Keys(document, "", ("environment",), []).pairs("environment")


def _function(name: str, value: Any, remarks: list[str]) -> StackFunction:
    path = f"functions.{shown(name)}"
    if not NAME.fullmatch(name):
        raise StackError(f"{path}: the name {NAME_RULE}")
    keys = _Keys(value, path, _FUNCTION, remarks)
    if not keys.text("image"):
        raise StackError(f"{path}.image: must be given")
    if keys.text("namespace") not in {"", _NAMESPACE}:
        raise StackError(
            f"{path}.namespace: must be {_NAMESPACE}, since there is no other, and is {shown(keys.text('namespace'))}"
        )
    if not keys.flag("readonly_root_filesystem", default=True):
        keys.remark("readonly_root_filesystem", "is always true here")
    for key in _MEANINGLESS:
        keys.ignore(key)
    limits = _Keys(keys.value("limits"), f"{path}.limits", None, remarks)
    for key in limits.names:
        if key not in {"memory", "cpu"}:
            limits.ignore(key)
    return StackFunction(
        name=name,
        image=keys.text("image"),
        lang=keys.text("lang").lower(),
        handler=keys.text("handler"),
        skip_build=keys.flag("skip_build", default=False),
        build_args=keys.pairs("build_args"),
        fprocess=keys.text("fprocess"),
        environment=keys.pairs("environment"),
        environment_files=keys.texts("environment_file"),
        secrets=tuple(dict.fromkeys(keys.texts("secrets"))),
        labels=keys.pairs("labels"),
        annotations=keys.pairs("annotations"),
        memory_bytes=limits.read("memory", memory_bytes),
        cpu_millis=limits.read("cpu", cpu_millis),
    )


class _Keys:
    """A mapping of the file, read key by key."""

    def __init__(self, value: Any, path: str, known: tuple[str, ...] | None, remarks: list[str]) -> None:
        """Take a mapping.

        :param known: The keys that it may have; None where any.
        :raises StackError: It is no mapping, or has another key.
        """
        self._path = path
        self._remarks = remarks
        if value is not None and not isinstance(value, dict):
            raise StackError(f"{path}: must be a mapping" if path else "must be a mapping")
        self._values: dict[str, Any] = {}
        for key, each in (value or {}).items():
            if not isinstance(key, str) or not key:
                raise StackError(f"{self.place('')}: a key is empty, or a null that wants quotes")
            if known is not None and key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise StackError(f"{self.place(key)}: there is no such key{f'; is {near[0]} meant?' if near else ''}")
            self._values[key] = each

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def place(self, key: str) -> str:
        return ".".join(part for part in (self._path, shown(key)) if part) or "the file"

    def value(self, key: str) -> Any:
        return self._values.get(key)

    def text(self, key: str) -> str:
        return self._text(self._values.get(key), self.place(key))

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key)
        if value is not None and not isinstance(value, list):
            raise StackError(f"{self.place(key)}: must be a list")
        return tuple(self._text(each, f"{self.place(key)}[{place}]") for place, each in enumerate(value or ()))

    def pairs(self, key: str) -> dict[str, str]:
        below = _Keys(self._values.get(key), self.place(key), None, self._remarks)
        return {name: below.text(name) for name in below.names}

    def flag(self, key: str, *, default: bool) -> bool:
        text = self.text(key).lower()
        if text and text not in _TRUE | _FALSE:
            raise StackError(f"{self.place(key)}: must be true or false")
        return text in _TRUE if text else default

    def read(self, key: str, reader: Callable[[str], _T]) -> _T | None:
        text = self.text(key)
        try:
            return reader(text) if text else None
        except ValueError as error:
            raise StackError(f"{self.place(key)}: {error}, and is {shown(text)}") from None

    def ignore(self, key: str) -> None:
        if self._values.get(key):
            self.remark(key, "has no meaning here")

    def remark(self, key: str, text: str) -> None:
        self._remarks.append(f"{self.place(key)} {text}")

    @staticmethod
    def _text(value: Any, place: str) -> str:
        if value is not None and not isinstance(value, str):
            raise StackError(f"{place}: must be a text")
        return value or ""

"""Programs in other languages that run cases and print what came of them, a line of JSON each."""

from __future__ import annotations

import importlib
import json
import pkgutil
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor

import homing.v1
from support.docker import ROOT

PATIENCE: Final = 180.0
"""Seconds after which a program that says nothing is taken to hang."""

Words = Sequence[str | Path]


def methods() -> tuple[str, ...]:
    """Return the full names of all methods of the API, as its descriptors have them."""
    names = []
    for module in pkgutil.iter_modules(homing.v1.__path__):
        if module.name.endswith("_pb2"):
            file: FileDescriptor = importlib.import_module(f"homing.v1.{module.name}").DESCRIPTOR
            names += [
                f"{service.full_name}/{method.name}"
                for service in file.services_by_name.values()
                for method in service.methods
            ]
    return tuple(sorted(names))


def with_tools(*command: str | Path) -> Words:
    """Return a command that has Go and Node.js on its PATH."""
    return [ROOT / "scripts" / "polyglot", *command]


def run(*command: str | Path, folder: Path = ROOT) -> None:
    """Run a command with Go and Node.js on the PATH; fails with what it said."""
    done = subprocess.run(with_tools(*command), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with status {done.returncode}:\n{done.stdout}{done.stderr}"


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What a program said."""

    cases: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    methods: set[str] = field(default_factory=set)
    """Those that were answered."""
    asks: str | None = None
    """What it waits for."""
    status: int = 0

    def hear(self, line: Mapping[str, Any]) -> None:
        """Take note of a line."""
        match line:
            case {"case": case}:
                self.cases[case] = line
            case {"rpc": method}:
                self.methods.add(method)
            case {"ask": what}:
                self.asks = what


class Program:
    """A program that runs cases."""

    def __init__(self, name: str, command: Words, heard: queue.Queue[tuple[str, Any]]) -> None:
        self.name = name
        self.outcome = Outcome()
        self.process = subprocess.Popen(
            with_tools(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(heard,), daemon=True)
        self._reader.start()

    def say(self, line: str) -> None:
        """Answer to what it asked for."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Note how it ended; one that goes on without having something to say is killed."""
        try:
            self.outcome.status = self.process.wait(timeout=0 if self._reader.is_alive() else 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.outcome.status = self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _read(self, heard: queue.Queue[tuple[str, Any]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            heard.put((self.name, json.loads(line)))
        heard.put((self.name, None))


def conduct(commands: Mapping[str, Words], actions: Mapping[str, Callable[[], object]]) -> dict[str, Outcome]:
    """Run programs to their ends, and return what came of them; what all of them ask for is done once for all."""
    heard: queue.Queue[tuple[str, Any]] = queue.Queue()
    programs = {name: Program(name, command, heard) for name, command in commands.items()}
    running = dict(programs)
    try:
        while running:
            try:
                name, line = heard.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"nothing was heard of {', '.join(running)} for {PATIENCE:g} s") from None
            if line is None:
                del running[name]
            else:
                programs[name].outcome.hear(line)
            wishes = {program.outcome.asks for program in running.values()}
            if running and None not in wishes:
                for wish in wishes:
                    actions[wish or ""]()
                for program in running.values():
                    program.outcome.asks = None
                    program.say("done")
    finally:
        for program in programs.values():
            program.end()
    return {name: program.outcome for name, program in programs.items()}

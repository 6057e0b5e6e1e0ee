"""What is typed in the examples of the documentation: the lines of a block that begin with `$`, taken apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from support.documents import Block

SUBSTITUTION = re.compile(r"\$\([^)]*\)")
ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One program of a pipeline."""

    words: tuple[str, ...]
    """Its name and arguments; what `$(…)` would give is left out."""
    reads: str | None = None
    """The file behind `<`."""

    @property
    def name(self) -> str:
        """What is run."""
        return self.words[0]

    def __str__(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A line that is typed, as the shell would read it; `first && second` are two."""

    block: Block
    line: int
    pipeline: tuple[Program, ...]
    stays: bool
    """Whether it ends with `&`."""

    def __str__(self) -> str:
        return f"{self.block.document.name}:{self.line}: {' | '.join(map(str, self.pipeline))}"


def commands_of(block: Block) -> Iterator[Command]:
    """Yield what is typed in a block, in order."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    for number, line in enumerate(lines, block.line):
        if line.startswith("$ "):
            yield from _commands(block, number, line[2:])


def _commands(block: Block, number: int, text: str) -> Iterator[Command]:
    lexer = shlex.shlex(SUBSTITUTION.sub("", text), posix=True, punctuation_chars="|&<>;")
    lexer.whitespace_split = True
    pipeline: list[Program] = []
    words: list[str] = []
    reads: str | None = None

    def program() -> Program:
        nonlocal words, reads
        # Settings before the name of a program; `export` takes them as arguments.
        while words and ASSIGNMENT.match(words[0]):
            words.pop(0)
        made = Program(words=tuple(words), reads=reads)
        words, reads = [], None
        return made

    for token in lexer:
        match token:
            case "|":
                pipeline.append(program())
            case "<":
                reads = lexer.get_token()
            case ">":
                lexer.get_token()
            case "&&" | ";" | "&":
                yield Command(block=block, line=number, pipeline=(*pipeline, program()), stays=token == "&")
                pipeline = []
            case _:
                words.append(token)
    if words:
        yield Command(block=block, line=number, pipeline=(*pipeline, program()), stays=False)

"""The examples that stand in README.md and the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    document
    for pattern in ("*.md", "docs/*.md", "*/README.md", "clients/*/README.md")
    for document in sorted(ROOT.glob(pattern))
]
"""What people read."""

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A block of a document, between two lines of three backticks."""

    document: Path
    line: int
    """Where its text begins, from 1 on."""
    language: str
    """What stands behind the first backticks; empty where nothing does."""
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    """Return the blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            document=document,
            line=text.count("\n", 0, match.start("text")) + 1,
            language=match["language"],
            text=match["text"],
        )
        for match in FENCE.finditer(text)
    ]

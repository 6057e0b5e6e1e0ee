"""Make the synchronous half of the SDK, `homing/_sync`, from the asynchronous one, `homing/_aio`.

`_aio/*.py` is text in which asynchronous words become synchronous ones, in code, comments and docstrings alike; what
differs in more than words stands in `_aio/seam` and `_sync/seam`, which are written by hand. `--check` writes nothing
and fails where `_sync` is not what would be made.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sdk" / "src" / "homing"

SENTENCES = {
    "server for asyncio. It belongs to the event loop of its first use.": (
        "server. Safe to use from several threads, but not from a forked process."
    ),
    "The items may come from an async iterable; a plain one is iterated over in the event loop and should not block.": (
        "The items are iterated over in the threads that do this, one item at a time."
    ),
    "It is subscribed from the moment that it is awaited, entered or first iterated, whichever comes first.": (
        "It is subscribed when that returns."
    ),
    "What ends from the moment on that the watch is awaited or entered is seen.": (
        "The watch is in place when the call returns: what ends from then on is seen."
    ),
}
"""What is said otherwise of the synchronous half."""

WORDS = {
    r"\n    def __await__\(self\).*\n.*\n": "",
    r"\basync (def|for|with)\b": r"\1",
    r"\bawait ": "",
    r"\b__a(enter|exit|iter|next)__\b": r"__\1__",
    r"\banext\b": "next",
    r"\bStopAsyncIteration\b": "StopIteration",
    r"\bAsyncGenerator\[(.+), None\]": r"Generator[\1, None, None]",
    r"\b(Iterable\[\w+\]) \| Async\1": r"\1",
    r"\bAwaitable\[(\w+)\]": r"\1",
    r"\bAsync(?=[A-Z])(?!Options\b)": "",
    r"AsyncStub\b": "Stub",
    r"\b_aio\b": "_sync",
    r"\bgrpc\.aio\b": "grpc",
    r"\bimport asyncio\b": "import queue\nimport threading",
    r"\basyncio\.Queue\b": "queue.SimpleQueue",
    r"\basyncio\.(Lock|Semaphore)\b": r"threading.\1",
    r"\basynchronous client\b": "synchronous client",
    r"\ban async iterator\b": "an iterator",
    r"\banother task\b": "another thread",
}
"""Patterns, in the order in which they are replaced, and what stands there instead."""

LEFT_OVER = re.compile(r".*\b(?:async|asyncio|await|aio|Async(?!Options\b)[A-Z]\w*)\b.*")
GROUP = re.compile(r"(?<![\w\])])\(await ")


def main() -> int:
    """Make `_sync`, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where something would be written")
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE, help="the folder with _aio and _sync")
    arguments = parser.parse_args()
    target: Path = arguments.package / "_sync"
    made = generate(arguments.package / "_aio")
    there = {path.name: path.read_text(encoding="utf-8") for path in target.glob("*.py")}
    stale = sorted(name for name in made | there if made.get(name) != there.get(name))
    for name in stale:
        if arguments.check:
            print(f"{target / name} is not what is made from _aio: change _aio and run 'make gen'")
        elif name in made:
            (target / name).write_text(made[name], encoding="utf-8")
        else:
            (target / name).unlink()
    return 1 if arguments.check and stale else 0


def generate(source: Path) -> dict[str, str]:
    """Return the synchronous modules by their names.

    :raises SystemExit: Something in the source is not understood, or a rule serves for nothing any more.
    """
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(source.glob("*.py"))}
    unused = set(SENTENCES) | set(WORDS)
    modules = {name: synchronous(text, unused) for name, text in sources.items()}
    complaints = [f"{__file__}: nothing matches {pattern!r} any more" for pattern in sorted(unused)]
    complaints += [
        f"{source / name}: there is no rule for {line[0].strip()!r}"
        for name, text in modules.items()
        for line in LEFT_OVER.finditer(text)
    ]
    if complaints:
        raise SystemExit("\n".join(complaints))
    return formatted({name: header(name) + text for name, text in modules.items()})


def header(name: str) -> str:
    """Return the first line of a module."""
    return f"# Generated from _aio/{name} by scripts/unasync.py; do not edit.\n"


def synchronous(text: str, unused: set[str]) -> str:
    """Return a module without its asynchronous words; take the rules that were of use from `unused`."""
    for sentence, other in SENTENCES.items():
        if sentence in text:
            unused.discard(sentence)
            text = text.replace(sentence, other)
    text = without_groups(text)
    for pattern, word in WORDS.items():
        text, count = re.subn(pattern, word, text)
        if count:
            unused.discard(pattern)
    return text


def without_groups(text: str) -> str:
    """Return a text with `await call()` in place of `(await call())` where a `.` follows."""
    position = 0
    while match := GROUP.search(text, position):
        position = match.end()
        end = closing(text, match.start())
        if text[end + 1] == ".":
            text = text[: match.start()] + text[match.start() + 1 : end] + text[end + 1 :]
    return text


def closing(text: str, opening: int) -> int:
    """Return where the parenthesis ends that opens there."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise SystemExit(f"a parenthesis is not closed: {text[opening : opening + 80]!r}")


def formatted(modules: dict[str, str]) -> dict[str, str]:
    """Return modules as ruff lays them out, with the imports sorted and those left out that are not needed."""
    ruff = [sys.executable, "-m", "ruff"]
    config = f"--config={ROOT / 'pyproject.toml'}"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in modules.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        subprocess.run(
            [*ruff, "check", "-q", config, "--no-cache", "--fix", "--unsafe-fixes", "--select=F401,I,UP028", folder],
            check=True,
        )
        subprocess.run([*ruff, "format", "-q", config, "--no-cache", folder], check=True)
        return {name: (Path(folder) / name).read_text(encoding="utf-8") for name in modules}


if __name__ == "__main__":
    raise SystemExit(main())

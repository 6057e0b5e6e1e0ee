"""The files in which large bodies are kept: none stays open, whoever is cancelled when."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from homing_worker.runtime import spool
from homing_worker.runtime.spool import Spool, Spools


async def test_one_that_is_opened_for_somebody_who_was_cancelled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Spool] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(folder: Path) -> Spool:
        begun.set()
        go_on.wait(10)
        made.append(Spool(folder))
        return made[-1]

    monkeypatch.setattr(spool, "Spool", slow)
    async with Spools(tmp_path) as spools:
        opening = asyncio.ensure_future(spools.open())
        await asyncio.to_thread(begun.wait, 10)
        opening.cancel()
        await asyncio.wait({opening})
        assert opening.cancelled()
        go_on.set()
    [late] = made
    with pytest.raises(ValueError, match="closed"):
        late.rewind()

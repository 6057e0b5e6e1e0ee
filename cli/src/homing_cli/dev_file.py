"""The functions of a file under `homing dev`: deployed, and deployed again whenever the file is saved.

The file is run by processes of their own, never by this one: to list its functions, and as the functions themselves.
These run a copy of it as it was when it was deployed, so an edit that does not run leaves what is deployed as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homing import AsyncClient, HomingError

_LIST_TIMEOUT: Final = 30.0
"""Seconds that a file may take to be run for its list of functions."""
_LOOK_SECONDS: Final = 0.2
"""Between two looks at the sources."""
_LOAD_SECONDS: Final = 1.0
"""A file that takes longer than this to be run is given up once it is saved again."""
_ANNOTATION: Final = "dev.homing.file"
"""Says of a function which file it is from, so that one which is taken out of the file is removed."""


class FileError(Exception):
    """The file cannot be run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """A function as the file declares it."""

    name: str
    concurrency: int


class FunctionFile:
    """Keeps the functions of one file deployed as they are in it."""

    def __init__(
        self, file: Path, client: AsyncClient, *, copies: Path, gateway: str, say: Callable[[str], None]
    ) -> None:
        """Prepare to deploy.

        :param copies: A folder for copies of the file.
        :param gateway: The URL at which functions are called by HTTP.
        :param say: Is told what is deployed, and what is wrong with the file.
        """
        self._file = file.resolve()
        self._client = client
        self._copies = copies
        self._prefix = f"{hashlib.sha256(bytes(self._file)).hexdigest()[:16]}-"
        """Of the names of copies of this file."""
        self._gateway = gateway
        self._say = say

    async def follow(self) -> None:
        """Deploy what the file declares, now and after each change of it or of a module beside it, until cancelled.

        Times and sizes are looked at, again and again: unlike the system's notices of changes that misses nothing,
        works on any file system, and costs next to nothing for the files of a folder.
        """
        seen: Mapping[Path, tuple[int, ...]] | None = None
        while True:
            found = await asyncio.to_thread(self._sources)
            if found != seen and await self._bring_up_to_date(found, first=seen is None):
                seen = found
            await asyncio.sleep(_LOOK_SECONDS)

    def _sources(self) -> Mapping[Path, tuple[int, ...]]:
        """Return the file and the modules beside it, in packages too, with what changes when they do."""
        folder = self._file.parent
        found = {}
        for source in (self._file, *folder.glob("*.py"), *folder.glob("*/*.py")):
            with contextlib.suppress(OSError):  # it is just being replaced
                stat = source.stat()
                found[source] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found

    async def _bring_up_to_date(self, sources: Mapping[Path, tuple[int, ...]], *, first: bool) -> bool:
        """Deploy what the file declares.

        :param sources: The sources as they are.
        :return: False where they were saved again meanwhile, and nothing was done.
        """
        listing = asyncio.ensure_future(self._listed())
        saving = asyncio.ensure_future(self._saved(sources))
        try:
            await asyncio.wait({listing, saving}, return_when=asyncio.FIRST_COMPLETED)
            if not listing.done():
                return False
            copy, declared = listing.result()
        except FileError as error:
            kept = "" if first else "\nwhat was deployed before goes on"
            self._say(f"{self._file.name} cannot be deployed:\n{error}{kept}")
            return True
        finally:
            listing.cancel()
            saving.cancel()
            await asyncio.gather(listing, saving, return_exceptions=True)
        try:
            for function in declared:
                await self._deploy(function, copy, force=not first)
            await self._remove_others({function.name for function in declared})
            await asyncio.to_thread(self._remove_copies, but=copy)
        except HomingError as error:
            self._say(f"{self._file.name} cannot be deployed: {error}")
        return True

    async def _listed(self) -> tuple[Path, Sequence[Declared]]:
        """Return a copy of the file as it is now, and what it declares.

        :raises FileError: It cannot be read or run.
        """
        copy = await asyncio.to_thread(self._copied)
        return copy, await declared_functions(self._file, copy)

    async def _saved(self, sources: Mapping[Path, tuple[int, ...]]) -> None:
        """Return once sources are others than these, after a while in which most files are run."""
        await asyncio.sleep(_LOAD_SECONDS)
        while await asyncio.to_thread(self._sources) == sources:  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(_LOOK_SECONDS)

    def _copied(self) -> Path:
        """Return a copy of the file as it is now.

        :raises FileError: It cannot be read.
        """
        try:
            text = self._file.read_bytes()
            copy = self._copies / f"{self._prefix}{hashlib.sha256(text).hexdigest()[:32]}.py"
            self._copies.mkdir(mode=0o700, exist_ok=True)
            copy.write_bytes(text)
        except OSError as error:
            raise FileError(f"{error.filename}: {error.strerror}") from error
        return copy

    def _remove_copies(self, *, but: Path) -> None:
        """Remove the copies that nothing is started from any more."""
        for copy in self._copies.glob(f"{self._prefix}*"):
            if copy != but:
                copy.unlink(missing_ok=True)

    async def _deploy(self, function: Declared, copy: Path, *, force: bool) -> None:
        program = [*_program(self._file, copy), "--function", function.name]
        # Only what the file says: what else was set of the function stays as it is.
        deployed = await self._client.functions.update(
            function.name,
            http_command=program,
            concurrency=function.concurrency,
            min_instances=1,
            annotations={_ANNOTATION: str(self._file)},
            force=force,
        )
        where = f"{self._gateway}/function/{function.name}"
        self._say(f"{function.name} is deployed, revision {deployed.revision}: {where}")

    async def _remove_others(self, names: set[str]) -> None:
        async for function in self._client.functions.list():
            if function.annotations.get(_ANNOTATION) == str(self._file) and function.name not in names:
                await self._client.functions.delete(function.name)
                self._say(f"{function.name} is removed")


def _program(file: Path, copy: Path) -> list[str]:
    """Return what runs a copy of a file, by the Python that runs this."""
    return [sys.executable, "-m", "homing_function", str(file), "--copy", str(copy)]


async def declared_functions(file: Path, copy: Path) -> Sequence[Declared]:
    """Return the functions that a file declares.

    :param copy: The file as it is now.
    :raises FileError: It cannot be run, or declares none; the message says why, with the line at fault.
    """
    process = await asyncio.create_subprocess_exec(
        *_program(file, copy), "--list",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LIST_TIMEOUT):
            listed, complaint = await process.communicate()
    except TimeoutError:
        raise FileError(f"it was not loaded within {_LIST_TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise FileError(complaint.decode(errors="replace").strip())
    return [Declared(name=each["name"], concurrency=each["concurrency"]) for each in json.loads(listed)]

"""The secrets of a worker: asked for, kept, and laid out as files."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from homing_core.sealing import SealKey, seal
from homing_core.wire.v1 import FunctionSecrets, Sealed
from homing_worker.control.secrets import SecretLink, SecretsUnavailableError
from homing_worker.runtime.secret_files import SecretFiles

PATIENCE = 5.0


class Asked:
    """Counts how often a link asks."""

    def __init__(self, link: SecretLink) -> None:
        self.times = 0
        link.on_wanted(self._ask)

    def _ask(self) -> None:
        self.times += 1


def sealed(
    link: SecretLink, version: int, *, function: str = "f", signing: int = 1, public: bytes = b"", **secrets: bytes
) -> Sealed:
    """Return what a server tells a worker."""
    known = FunctionSecrets(
        secrets=secrets, secrets_version=version, signing_keys=[b"%d" % signing * 32], signing_version=signing
    )
    return Sealed(function=function, box=seal(public or link.seal_key, known.SerializeToString(), function))


async def turns(count: int = 5) -> None:
    """Let the event loop go round a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_known_is_asked_for_once() -> None:
    link = SecretLink()
    asked = Asked(link)
    first = asyncio.create_task(link.secrets("f", ["a"], 3))
    second = asyncio.create_task(link.secrets("f", ["a", "b"], 3))
    await turns()
    assert link.wanted == ["f"]

    link.take(sealed(link, 3, a=b"1", b=b"2", c=b"3"))

    assert await first == {"a": b"1"}
    assert await second == {"a": b"1", "b": b"2"}
    before = asked.times
    assert await link.secrets("f", ["c"], 2) == {"c": b"3"}
    assert await link.signing_keys("f", 1) == (b"1" * 32,)
    assert (asked.times, link.wanted) == (before, [])


async def test_a_function_without_secrets_asks_for_none() -> None:
    link = SecretLink()
    asked = Asked(link)

    assert await link.secrets("f", [], 0) == {}
    assert asked.times == 0


async def test_a_later_version_is_asked_for_anew_and_an_earlier_answer_does_not_do() -> None:
    link = SecretLink()
    link.take(sealed(link, 3, a=b"old"))
    asked = Asked(link)
    waiting = asyncio.create_task(link.secrets("f", ["a"], 4))
    await turns()
    assert asked.times == 1

    link.take(sealed(link, 3, a=b"old"))
    await turns()
    assert not waiting.done()
    link.take(sealed(link, 5, a=b"new"))

    assert await waiting == {"a": b"new"}
    link.take(sealed(link, 4, a=b"older"))
    assert await link.secrets("f", ["a"], 4) == {"a": b"new"}, "it was asked for before, and came later"


async def test_signing_keys_have_a_version_of_their_own() -> None:
    link = SecretLink()
    link.take(sealed(link, 1, signing=2))
    waiting = asyncio.create_task(link.signing_keys("f", 3))
    await turns()
    link.take(sealed(link, 1, signing=3))

    assert await waiting == (b"3" * 32,)


async def test_a_name_that_the_answer_lacks_is_waited_for() -> None:
    """The server may know the function as it was before."""
    link = SecretLink()
    waiting = asyncio.create_task(link.secrets("f", ["a", "b"], 1))
    await turns()
    link.take(sealed(link, 9, a=b"1"))
    await turns()
    assert not waiting.done()
    link.take(sealed(link, 9, a=b"1", b=b"2"))

    assert await waiting == {"a": b"1", "b": b"2"}


async def test_it_gives_up_in_time() -> None:
    link = SecretLink(timeout=0.02)

    with pytest.raises(SecretsUnavailableError, match=r"no server has sent them within 0\.02 s"):
        await link.secrets("f", ["a"], 1)
    assert link.wanted == []


async def test_what_is_not_for_it_is_not_taken() -> None:
    link = SecretLink(timeout=0.02)
    other = sealed(link, 1, a=b"1", function="g")
    link.take(Sealed(function="f", box=other.box))
    link.take(sealed(link, 1, a=b"1", public=SealKey().public))
    link.take(Sealed(function="f", box=seal(link.seal_key, b"\xff", "f")))

    with pytest.raises(SecretsUnavailableError):
        await link.secrets("f", ["a"], 1)


async def test_what_is_gone_is_forgotten() -> None:
    link = SecretLink(timeout=0.02)
    link.take(sealed(link, 1, a=b"1"))
    link.forget("f")
    link.forget("f")

    with pytest.raises(SecretsUnavailableError):
        await link.secrets("f", ["a"], 1)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_files_are_their_owners_alone_and_go(tmp_path: Path, memory: Path) -> None:
    files = SecretFiles(tmp_path / "data", memory=memory)
    folder = files.lay_out({"a": b"1", "tls.key": b"\0\xff"})

    assert folder.is_relative_to(memory)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"1", "tls.key": b"\0\xff"}
    assert modes(folder) == {"a": 0o600, "tls.key": 0o600}
    above = [folder, folder.parent, folder.parent.parent]
    assert [stat.S_IMODE(path.stat().st_mode) for path in above] == [0o700] * 3
    files.remove(folder)
    assert not folder.exists()
    files.remove(folder)
    files.close()
    assert list(memory.iterdir()) == []


def test_files_for_all_are_behind_a_folder_that_is_not(tmp_path: Path, memory: Path) -> None:
    files = SecretFiles(tmp_path / "data", memory=memory)
    folder = files.lay_out({"a": b"1"}, for_all=True)

    assert modes(folder) == {"a": 0o444}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o755, 0o700]
    files.close()


def test_files_of_a_command_with_a_user_of_its_own_are_that_users_alone(tmp_path: Path, memory: Path) -> None:
    files = SecretFiles(tmp_path / "data", memory=memory)
    for_all, folder = files.lay_out({"a": b"1"}, for_all=True), files.lay_out({"a": b"2"}, owner=os.getuid())

    assert (modes(folder), stat.S_IMODE(folder.stat().st_mode)) == ({"a": 0o600}, 0o700)
    # It can be come to, but others' folders cannot be found, and those for users of containers not be entered.
    above = [folder.parent, folder.parent.parent, for_all.parent]
    assert [stat.S_IMODE(path.stat().st_mode) for path in above] == [0o711, 0o711, 0o700]
    files.sweep()
    assert (folder / "a").read_bytes() == b"2"
    files.close()
    assert list(memory.iterdir()) == []

    nowhere = SecretFiles(tmp_path / "data", memory=tmp_path / "nowhere")
    with pytest.raises(PermissionError, match="HOMING_COMMAND_USERS need a place in memory"):
        nowhere.lay_out({"a": b"1"}, owner=os.getuid())


def test_they_are_on_disk_where_there_is_no_place_in_memory(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path / "data", memory=tmp_path / "nowhere")
    folder = files.lay_out({"a": b"1"})

    assert folder.is_relative_to(tmp_path / "data" / "secrets")
    files.close()


def test_what_a_worker_left_that_was_killed_goes_and_what_lives_stays(tmp_path: Path, memory: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from homing_worker.runtime.secret_files import SecretFiles;"
        "files = SecretFiles(Path(sys.argv[1]), memory=Path(sys.argv[2]));"
        "print(files.lay_out({'a': b'1'}), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    data = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "-c", script, data, memory], capture_output=True, text=True, timeout=60, check=False
    )
    left = Path(done.stdout.strip())
    assert (left / "a").read_bytes() == b"1"
    living, elsewhere = SecretFiles(data, memory=memory), SecretFiles(tmp_path / "other", memory=memory)
    kept = [files.lay_out({"a": b"2"}) for files in (living, elsewhere)]

    SecretFiles(data, memory=memory).sweep()

    assert not left.parent.exists()
    assert [(folder / "a").read_bytes() for folder in kept] == [b"2", b"2"]
    for files in (living, elsewhere):
        files.close()
    assert list(memory.iterdir()) == []


def test_the_folder_of_a_killed_worker_goes_with_it(tmp_path: Path, memory: Path) -> None:
    files = SecretFiles(tmp_path, memory=memory)
    (base,) = [files.lay_out({"a": b"1"}).parent.parent]
    files.close()
    (base / "worker-left").mkdir(parents=True)
    base.chmod(0o700)

    SecretFiles(tmp_path, memory=memory).sweep()

    assert list(memory.iterdir()) == []


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path, memory: Path) -> None:
    files = SecretFiles(tmp_path / "data", memory=memory)
    files.lay_out({"a": b"1"})
    (base,) = memory.iterdir()
    files.close()
    base.mkdir()
    base.chmod(0o755)

    with pytest.raises(PermissionError, match="is not a folder of this user alone"):
        files.lay_out({"a": b"1"})
    base.rmdir()
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    base.symlink_to(target)
    with pytest.raises(PermissionError):
        files.lay_out({"a": b"1"})
    assert list(target.iterdir()) == []

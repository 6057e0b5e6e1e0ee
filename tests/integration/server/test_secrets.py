"""Secrets and signing keys in a real store: kept encrypted, told to workers alone, refused with a wrong key."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from homing.v1 import function_pb2
from homing.v1 import secret_service_pb2 as api
from homing.v1.signing_key_service_pb2 import (
    ListSigningKeysRequest,
    RotateSigningKeyRequest,
    RotateSigningKeyResponse,
)
from homing_core import limits
from homing_core.broker.embedded import EmbeddedBroker, Exchange
from homing_core.guard import Guard
from homing_core.sealing import SealKey, new_key, text_of_key
from homing_core.signing import read_key
from homing_core.wire.v1 import FunctionSecrets, FunctionState
from homing_server.admin.deployment import Deployment
from homing_server.admin.secrets import Secrets
from homing_server.admin.signing_keys import SigningKeys
from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.control import ControlChannel
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.vault.vault import SecretKeyError, open_vault
from homing_server.watch.hub import WatchHub
from support.store import opened

VALUE = b"correct horse battery staple"


class Bench:
    """The parts of a server that have to do with secrets."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
        self.database = database
        self.catalog = Catalog(database)
        self.keyring = Keyring(database)
        broker = EmbeddedBroker(Exchange())
        control = ControlChannel(
            "server",
            broker,
            catalog=self.catalog,
            hub=WatchHub(database),
            keyring=self.keyring,
            presence=Presence(),
            registry=WorkerRegistry(database),
            tasks=tasks,
        )
        self.deployment = Deployment(
            database,
            broker,
            self.catalog,
            control,
            urls=Guard(),
            deliveries=Guard(),
            tasks=tasks,
            announce=lambda _: None,
        )
        self.secrets = Secrets(database, self.keyring, self.catalog, control)
        self.signing_keys = SigningKeys(database, self.keyring)
        self._worker = SealKey()

    async def deploy(self, name: str, *secrets: str) -> FunctionState:
        await self.deployment.deploy(function_pb2.Function(name=name, image="f:1", secrets=secrets))
        return self.state(name)

    def state(self, name: str) -> FunctionState:
        return next(state for state in self.catalog.live() if state.function.name == name)

    async def rotate(
        self, function: str = "", key: str = "", request_id: str = "", *, caller: Identity = EVERYBODY
    ) -> RotateSigningKeyResponse:
        request = RotateSigningKeyRequest(function=function, key=key, request_id=request_id)
        return await self.signing_keys.rotate(request, caller=caller)

    async def told(self, function: str) -> FunctionSecrets:
        """Return what a worker is told of a function."""
        (sealed,) = await self.keyring.sealed([function], self._worker.public)
        assert VALUE not in sealed.SerializeToString()
        return FunctionSecrets.FromString(self._worker.open(sealed.box, function))


@asynccontextmanager
async def bench_in(folder: Path) -> AsyncIterator[Bench]:
    async with opened(folder, functions=()) as database, Tasks() as tasks:
        bench = Bench(database, tasks)
        bench.keyring.open(await open_vault(database, given="", path=folder / "secret.key"))
        await bench.signing_keys.open()
        await bench.catalog.load()
        yield bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_in(tmp_path) as made:
        yield made


def in_store(folder: Path, value: bytes) -> bool:
    return any(value in file.read_bytes() for file in folder.glob("homing.db*"))


async def test_a_worker_is_told_what_its_function_names_and_no_more(bench: Bench, tmp_path: Path) -> None:
    await bench.secrets.create("a", VALUE, caller=EVERYBODY)
    await bench.secrets.create("b", b"\0\xff", caller=EVERYBODY)
    await bench.secrets.create("c", b"none of its business", caller=EVERYBODY)
    state = await bench.deploy("f", "a", "b")

    told = await bench.told("f")

    assert dict(told.secrets) == {"a": VALUE, "b": b"\0\xff"}
    assert told.secrets_version >= state.secrets_version > 0
    assert not in_store(tmp_path, VALUE)


async def test_an_update_raises_the_version_of_those_that_name_the_secret(bench: Bench) -> None:
    for name in "ab":
        await bench.secrets.create(name, VALUE, caller=EVERYBODY)
    before = {name: await bench.deploy(name, *secrets) for name, secrets in (("f", "ab"), ("g", "b"), ("h", ""))}

    secret = await bench.secrets.update("a", b"new", caller=EVERYBODY)

    assert secret.version == 2
    assert bench.state("f").secrets_version > before["f"].secrets_version
    assert bench.state("f").function == before["f"].function, "it is no new revision"
    assert [bench.state(name) for name in "gh"] == [before[name] for name in "gh"]
    told = await bench.told("f")
    assert told.secrets["a"] == b"new"
    assert told.secrets_version >= bench.state("f").secrets_version
    elsewhere = Catalog(bench.database)
    await elsewhere.load()
    assert {state.function.name: state for state in elsewhere.live()} == {name: bench.state(name) for name in "fgh"}


async def test_old_news_does_not_bring_back_old_secrets(bench: Bench) -> None:
    await bench.secrets.create("a", VALUE, caller=EVERYBODY)
    old = await bench.deploy("f", "a")
    await bench.secrets.update("a", b"new", caller=EVERYBODY)
    bench.catalog.learn(old)

    assert bench.state("f").secrets_version > old.secrets_version


async def test_a_secret_in_use_stays(bench: Bench) -> None:
    await bench.secrets.create("a", VALUE, caller=EVERYBODY)
    for number in range(10):
        await bench.deploy(f"f{number}", "a")

    with pytest.raises(ApiError, match=r"is seen by f0, f1, .*, f7 and 2 more") as refused:
        await bench.secrets.delete("a", caller=EVERYBODY)
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "SECRET_IN_USE")
    for number in range(10):
        await bench.deployment.delete(f"f{number}")
    await bench.secrets.delete("a", caller=EVERYBODY)
    with pytest.raises(ApiError) as refused:
        await bench.secrets.delete("a", caller=EVERYBODY)
    assert refused.value.reason == "SECRET_NOT_FOUND"


async def test_a_function_names_secrets_that_exist(bench: Bench) -> None:
    await bench.secrets.create("a", VALUE, caller=EVERYBODY)

    with pytest.raises(ApiError, match=r"function\.secrets: there is no secret 'b'") as refused:
        await bench.deploy("f", "a", "b", "c")
    assert refused.value.code == Code.INVALID_ARGUMENT
    assert [violation.field for violation in refused.value.violations] == ["function.secrets"] * 2
    assert not list(bench.catalog.live())


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("", b"x", "name"),
        ("Caps", b"x", "name"),
        ("../up", b"x", "name"),
        ("x" * 64, b"x", "name"),
        ("a", b"", "value"),
        ("a", VALUE + bytes(limits.MAX_SECRET), "value"),
    ],
)
async def test_what_breaks_a_rule_is_refused_and_not_shown(bench: Bench, name: str, value: bytes, field: str) -> None:
    for call in (bench.secrets.create, bench.secrets.update):
        with pytest.raises(ApiError) as refused:
            await call(name, value, caller=EVERYBODY)
        assert [violation.field for violation in refused.value.violations] == [field]
        assert "horse" not in str(refused.value)


async def test_the_largest_values_fit(bench: Bench) -> None:
    names = [f"s{number}" for number in range(limits.MAX_SECRETS)]
    for name in names:
        await bench.secrets.create(name, bytes(limits.MAX_SECRET), caller=EVERYBODY)
    await bench.deploy("f", *names)

    assert sorted((await bench.told("f")).secrets) == sorted(names)


async def test_secrets_are_made_once_and_listed_without_their_values(bench: Bench) -> None:
    for name in ("b", "c", "a"):
        await bench.secrets.create(name, VALUE, caller=EVERYBODY)
    with pytest.raises(ApiError) as refused:
        await bench.secrets.create("a", VALUE, caller=EVERYBODY)
    assert (refused.value.code, refused.value.reason) == (Code.ALREADY_EXISTS, "SECRET_EXISTS")
    with pytest.raises(ApiError) as refused:
        await bench.secrets.update("d", VALUE, caller=EVERYBODY)
    assert refused.value.reason == "SECRET_NOT_FOUND"

    first = await bench.secrets.list(api.ListSecretsRequest(page_size=2), caller=EVERYBODY)
    following = api.ListSecretsRequest(page_size=2, page_token=first.next_page_token)
    second = await bench.secrets.list(following, caller=EVERYBODY)

    assert [secret.name for page in (first, second) for secret in page.secrets] == ["a", "b", "c"]
    assert (second.next_page_token, VALUE in first.SerializeToString()) == ("", False)
    with pytest.raises(ApiError, match="page_token"):
        await bench.secrets.list(api.ListSecretsRequest(page_token="made up"), caller=EVERYBODY)


async def test_every_delivery_is_signed_from_the_first_start_on(bench: Bench) -> None:
    await bench.signing_keys.open()

    (key,) = (await bench.signing_keys.list(ListSigningKeysRequest(), caller=EVERYBODY)).signing_keys
    told = await bench.told("gone")
    assert (key.function, [len(value) for value in told.signing_keys]) == ("", [32])
    with pytest.raises(ApiError, match="rotate first") as refused:
        await bench.signing_keys.revoke(key.id, caller=EVERYBODY)
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "LAST_SIGNING_KEY")


async def test_the_newest_two_keys_are_active(bench: Bench) -> None:
    before = await bench.told("f")
    made = [await bench.rotate() for _ in range(3)]

    told = await bench.told("f")

    listed = (await bench.signing_keys.list(ListSigningKeysRequest(), caller=EVERYBODY)).signing_keys
    assert [key.id for key in listed] == [made[2].signing_key.id, made[1].signing_key.id]
    assert list(told.signing_keys) == [read_key(made[2].key), read_key(made[1].key)]
    assert told.signing_version > before.signing_version
    await bench.signing_keys.revoke(made[2].signing_key.id, caller=EVERYBODY)
    after = await bench.told("f")
    assert list(after.signing_keys) == [read_key(made[1].key)]
    assert after.signing_version > told.signing_version
    with pytest.raises(ApiError) as refused:
        await bench.signing_keys.revoke(made[2].signing_key.id, caller=EVERYBODY)
    assert refused.value.reason == "SIGNING_KEY_NOT_FOUND"


async def test_the_same_rotation_is_one_as_long_as_its_key_is_kept(bench: Bench, tmp_path: Path) -> None:
    await bench.deploy("f")
    first = await bench.rotate(request_id="once")
    again = await bench.rotate(request_id="once")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.key, again.signing_key) == (first.key, first.signing_key)
    assert not in_store(tmp_path, b"once")
    async with bench_in(tmp_path) as other:
        assert (await other.rotate(request_id="once")).key == first.key

    given = "whsec_" + "c2lnbmluZyBrZXkgb2YgMjQgYnl0" * 2
    for function, key in (("f", ""), ("", given)):
        with pytest.raises(ApiError) as refused:
            await bench.rotate(function, key, "once")
        assert (refused.value.code, refused.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    theirs = await bench.rotate("f", given, "once", caller=replace(EVERYBODY, name="ops"))
    assert (theirs.key, theirs.duplicate) == (given, False), "an id is its caller's own"
    assert (await bench.rotate("f", given, "once", caller=replace(EVERYBODY, name="ops"))).duplicate

    # The one before stays kept, the one before that is not.
    await bench.rotate()
    assert (await bench.rotate(request_id="once")).key == first.key
    await bench.rotate()
    anew = await bench.rotate(request_id="once")
    assert not anew.duplicate
    assert anew.key != first.key
    await bench.signing_keys.revoke(anew.signing_key.id, caller=EVERYBODY)
    assert (await bench.rotate(request_id="once")).key not in {first.key, anew.key}


async def test_a_functions_own_keys_take_the_place_of_the_servers(bench: Bench) -> None:
    await bench.deploy("f")
    of_server = (await bench.told("f")).signing_keys
    given = "whsec_" + "c2lnbmluZyBrZXkgb2YgMjQgYnl0" * 2
    own = await bench.rotate("f", given)

    assert own.key == given
    assert list((await bench.told("f")).signing_keys) == [read_key(given)]
    assert (await bench.told("g")).signing_keys == of_server
    kept = await bench.signing_keys.list(ListSigningKeysRequest(function="f"), caller=EVERYBODY)
    assert [key.id for key in kept.signing_keys] == [own.signing_key.id]
    kept = await bench.signing_keys.list(ListSigningKeysRequest(), caller=EVERYBODY)
    assert [key.function for key in kept.signing_keys] == ["", "f"]
    await bench.signing_keys.revoke(own.signing_key.id, caller=EVERYBODY)
    assert (await bench.told("f")).signing_keys == of_server


async def test_signing_keys_are_listed_page_by_page(bench: Bench) -> None:
    for name in ("f", "g"):
        await bench.deploy(name)
        for _ in range(2):
            await bench.rotate(name)
    whole = (await bench.signing_keys.list(ListSigningKeysRequest(), caller=EVERYBODY)).signing_keys
    assert [key.function for key in whole] == ["", "f", "f", "g", "g"]

    request, pages = ListSigningKeysRequest(page_size=2), []
    while True:
        page = await bench.signing_keys.list(request, caller=EVERYBODY)
        pages.append(list(page.signing_keys))
        request.page_token = page.next_page_token
        if not request.page_token:
            break

    assert pages == [list(whole[:2]), list(whole[2:4]), list(whole[4:])]
    request = ListSigningKeysRequest(function="f", page_size=1)
    first = await bench.signing_keys.list(request, caller=EVERYBODY)
    request.page_token = first.next_page_token
    second = await bench.signing_keys.list(request, caller=EVERYBODY)
    assert [*first.signing_keys, *second.signing_keys] == list(whole[1:3])
    assert not second.next_page_token


@pytest.mark.parametrize(
    ("function", "key", "field"),
    [
        ("Caps", "", "function"),
        ("", "correct horse battery staple", "key"),
        ("", "whsec_correct horse", "key"),
        ("", "whsec_aG9yc2U=", "key"),
    ],
)
async def test_what_is_no_signing_key_is_refused_and_not_shown(
    bench: Bench, function: str, key: str, field: str
) -> None:
    with pytest.raises(ApiError) as refused:
        await bench.rotate(function, key)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert not key or key not in str(refused.value)
    with pytest.raises(ApiError, match="there is no function 'f'"):
        await bench.rotate("f")


async def test_the_key_file_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret.key"
    async with opened(tmp_path, functions=()) as database:
        first = await open_vault(database, given="", path=path)
        again = await open_vault(database, given="", path=path)
        by_setting = await open_vault(database, given=path.read_text().strip(), path=tmp_path / "none")

    stored = first.encrypt(VALUE, "a")
    assert again.decrypt(stored, "a") == by_setting.decrypt(stored, "a") == VALUE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


async def test_another_key_is_noticed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    async with opened(tmp_path, functions=()) as database:
        await open_vault(database, given="", path=path)
        other = text_of_key(new_key())

        with pytest.raises(SecretKeyError, match=r"^HOMING_SECRET_KEY is not the key that the secrets") as refused:
            await open_vault(database, given=other, path=path)
        assert other not in str(refused.value)
        path.write_text(other)
        with pytest.raises(SecretKeyError, match=r"^the key in .*secret\.key is not the key"):
            await open_vault(database, given="", path=path)
        path.write_text("no key")
        with pytest.raises(SecretKeyError, match="must be 32 bytes in base64"):
            await open_vault(database, given="", path=path)
        path.unlink()
        with pytest.raises(SecretKeyError, match="a key that is not here: set HOMING_SECRET_KEY, or put its file back"):
            await open_vault(database, given="", path=path)
        assert not path.exists(), "a new key would not do"


async def test_the_store_is_encrypted_anew_with_another_key(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.secrets.create("a", VALUE, caller=EVERYBODY)
        await bench.deploy("f", "a")
        await bench.rotate("f")
        before = await bench.told("f")
    path, new = tmp_path / "secret.key", text_of_key(new_key())
    former = path.read_text()

    async with opened(tmp_path, functions=()) as database, Tasks() as tasks:
        with capture_logs() as logs:
            vault = await open_vault(database, given=new, path=path, former=former)
            # Where it was done before, and where another server did it, nothing is left to do.
            await open_vault(database, given=new, path=path, former=former)
        bench = Bench(database, tasks)
        bench.keyring.open(vault)
        after = await bench.told("f")
        with pytest.raises(SecretKeyError, match="is not the key"):
            await open_vault(database, given=former, path=path)

    assert after == before
    assert dict(after.secrets) == {"a": VALUE}
    assert [line["encrypted_anew"] for line in logs if line["event"] == "secret_key_changed"] == [3]


async def test_a_store_is_not_encrypted_anew_in_part(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        for name in ("a", "b"):
            await bench.secrets.create(name, VALUE, caller=EVERYBODY)
    path, new = tmp_path / "secret.key", text_of_key(new_key())
    former = path.read_text()
    async with opened(tmp_path, functions=()) as database:
        await database.write(
            lambda connection: connection.execute(text("UPDATE secrets SET value = x'00' WHERE name = 'b'"))
        )
        with pytest.raises(SecretKeyError, match="the store cannot be encrypted anew: secret b is encrypted in a way"):
            await open_vault(database, given=new, path=path, former=former)
        vault = await open_vault(database, given=former, path=path)
        kept = await database.read(get_value, "a")

    assert vault.decrypt(kept, "secret a") == VALUE


def get_value(connection: Connection, name: str) -> bytes:
    value: bytes = connection.execute(text("SELECT value FROM secrets WHERE name = :name"), {"name": name}).scalar_one()
    return value


async def test_what_was_changed_in_the_store_is_not_told(tmp_path: Path) -> None:
    """Rows that were exchanged are refused too: each value is bound to its name."""
    async with bench_in(tmp_path) as bench:
        await bench.secrets.create("a", VALUE, caller=EVERYBODY)
        await bench.secrets.create("b", b"other", caller=EVERYBODY)
        await bench.deploy("f", "a")
        with bench.database.writing() as connection:
            connection.exec_driver_sql("UPDATE secrets SET value = (SELECT value FROM secrets WHERE name = 'b')")

        assert await bench.keyring.sealed(["f"], SealKey().public) == []
        assert len(await bench.keyring.sealed(["g"], SealKey().public)) == 1
        assert await bench.keyring.sealed(["g"], b"no key") == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE signing_keys SET function = 'g' WHERE function = 'f'",
        "UPDATE signing_keys SET id = 'other' WHERE function = 'f'",
        "UPDATE signing_keys SET value = (SELECT value FROM signing_keys WHERE function = '') WHERE function = 'f'",
    ],
)
async def test_a_signing_key_is_bound_to_its_id_and_its_function(bench: Bench, change: str) -> None:
    await bench.deploy("f")
    await bench.rotate("f")
    with bench.database.writing() as connection:
        assert connection.exec_driver_sql(change).rowcount == 1
    changed = "g" if "'g'" in change else "f"
    assert await bench.keyring.sealed([changed], SealKey().public) == []


async def test_values_outlive_the_server(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.secrets.create("a", VALUE, caller=EVERYBODY)
        await bench.deploy("f", "a")
        keys = (await bench.told("f")).signing_keys

    async with bench_in(tmp_path) as bench:
        told = await bench.told("f")

    assert (told.secrets["a"], told.signing_keys) == (VALUE, keys)

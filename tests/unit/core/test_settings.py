"""Settings: what is wrong with them is told, and what is no setting at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from homing_core.settings import CommonSettings, check_listen, explain, unknown_settings
from homing_server.settings import ServerSettings
from homing_worker.settings import WorkerSettings

SDK = Path(__file__).resolve().parents[3] / "sdk" / "src" / "homing"
KINDS: list[type[CommonSettings]] = [ServerSettings, WorkerSettings]


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_name_is_told_with_the_nearest_one(kind: type[CommonSettings]) -> None:
    environment = {"HOMING_LOG_LEVL": "debug", "HOMING_LOG_LEVEL": "debug", "PATH": "x", "HOMER_LOG": "x"}

    assert unknown_settings(environment, kind) == ["HOMING_LOG_LEVL is no setting; is HOMING_LOG_LEVEL meant?"]


def test_each_is_told_of_its_own() -> None:
    assert unknown_settings({"HOMING_GRPC_LISTN": "x"}, ServerSettings) == [
        "HOMING_GRPC_LISTN is no setting; is HOMING_GRPC_LISTEN meant?"
    ]
    assert unknown_settings({"HOMING_FROBNICATE": "x"}, ServerSettings) == ["HOMING_FROBNICATE is no setting"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_environment_may_hold_the_settings_of_all(kind: type[CommonSettings]) -> None:
    """A new setting has to be named among those of others in homing_core.settings too."""
    servers_and_workers = {name for each in KINDS for name in each.model_fields}
    clients = {
        name.removeprefix("HOMING_").lower()
        for file in SDK.glob("_core/*.py")
        for name in re.findall(r'"(HOMING_[A-Z_]+)"', file.read_text())
    }
    assert {"target", "api_key"} <= clients

    names = servers_and_workers | clients
    assert unknown_settings({f"HOMING_{name.upper()}": "" for name in names}, kind) == []


def test_services_of_kubernetes_are_no_mistake() -> None:
    links = ["SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT", "PORT_50051_TCP_ADDR", "SERVER_SERVICE_PORT"]

    assert unknown_settings({f"HOMING_{name}": "" for name in links}, ServerSettings) == []


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:65535", "[::1]:80", "0.0.0.0:50051"])
def test_an_address_is_host_and_port(address: str) -> None:
    assert check_listen(address) == address


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("57353", "must be HOST:PORT, as in 127.0.0.1:57353"),
        ("localhost", "must be HOST:PORT, as in 127.0.0.1:9000"),
        (":50051", "must be HOST:PORT"),
        ("::1:50051", "must be HOST:PORT"),
        ("localhost:99999", "must have a port from 0 to 65535, has 99999"),
    ],
)
@pytest.mark.parametrize("setting", ["grpc_listen", "http_listen", "metrics_listen", "progress_listen"])
def test_what_is_none_is_told(setting: str, address: str, message: str) -> None:
    kind = ServerSettings if setting in ServerSettings.model_fields else WorkerSettings
    with pytest.raises(ValidationError) as refused:
        kind.model_validate({setting: address})

    told = explain(refused.value)
    assert told.startswith(f"{setting}: {message}")
    assert "\n" not in told


@pytest.mark.parametrize("url", ["unix:///var/run/docker.sock", "http://docker:2375", "https://docker:2376/"])
def test_the_url_of_an_engine_is_one_of_two_forms(url: str) -> None:
    assert WorkerSettings(docker_url=url).docker_url == url


@pytest.mark.parametrize("url", ["/var/run/docker.sock", "tcp://docker:2375", "docker", "http://", ""])
def test_another_url_of_an_engine_is_told(url: str) -> None:
    with pytest.raises(ValidationError, match="must be unix://PATH or http://HOST:PORT"):
        WorkerSettings(docker_url=url)

"""What the Docker runtime makes of what the engine says."""

from __future__ import annotations

from typing import Any

import pytest

from homing.v1.function_pb2 import Function
from homing_worker.runtime.container_config import health_check_of
from homing_worker.runtime.container_network import gateway_of
from homing_worker.runtime.health_check import HealthCheck


@pytest.mark.parametrize(
    ("configs", "gateway"),
    [
        ([{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}], "172.17.0.1"),
        ([{"Subnet": "10.9.8.0/24", "Gateway": "10.9.8.254"}], "10.9.8.254"),
        # As an engine says that was started for the first time.
        ([{"Subnet": "172.17.0.0/16"}], "172.17.0.1"),
        ([{"Subnet": "fd00:1::/64"}], "fd00:1::1"),
        ([{}], ""),
        ([], ""),
    ],
)
def test_the_address_of_this_host_is_known_although_the_engine_names_none(
    configs: list[dict[str, str]], gateway: str
) -> None:
    assert gateway_of(configs) == gateway


WATCHDOG = HealthCheck(path="/_/health", named=False)


@pytest.mark.parametrize(
    ("config", "annotations", "check"),
    [
        ({"Env": ["PATH=/bin"], "Labels": None}, {}, None),
        ({"Env": None, "Labels": {}}, {}, None),
        ({"Env": ["fprocess=cat"], "Labels": {}}, {}, WATCHDOG),
        ({"Env": ["FPROCESS=cat", "xfprocess=cat"], "Labels": {}}, {}, None),
        ({"Env": [], "Labels": {"dev.homing.health-path": "/ready"}}, {}, HealthCheck(path="/ready")),
        ({"Env": ["fprocess=cat"], "Labels": {"dev.homing.health-path": "/ready"}}, {}, HealthCheck(path="/ready")),
        ({"Env": [], "Labels": {"dev.homing.health-path": "@elsewhere/"}}, {}, None),
        ({"Env": ["fprocess=cat"]}, {"com.openfaas.health.http.path": "/up"}, HealthCheck(path="/up")),
        (
            {"Labels": {"dev.homing.health-path": "/ready"}},
            {"com.openfaas.health.http.path": "/up", "com.openfaas.ready.http.path": "now"},
            HealthCheck(path="/now"),
        ),
        ({"Env": ["fprocess=cat"]}, {"com.openfaas.health.http.path": " "}, WATCHDOG),
    ],
)
def test_where_a_container_says_that_it_is_ready_is_known_or_not_asked_for(
    config: dict[str, Any], annotations: dict[str, str], check: HealthCheck | None
) -> None:
    assert health_check_of(config, Function(annotations=annotations)) == check


@pytest.mark.parametrize(
    ("status", "named", "supposed"),
    [
        (200, True, True),
        (204, True, True),
        (302, True, True),
        (404, False, True),
        (500, False, True),
        (503, False, False),
    ],
)
def test_a_path_that_was_named_must_say_so_and_one_that_is_supposed_must_not_deny_it(
    status: int, *, named: bool, supposed: bool
) -> None:
    assert HealthCheck(path="/").passes(status) is named
    assert WATCHDOG.passes(status) is supposed

"""What the Docker runtime makes of what the engine says."""

from __future__ import annotations

from typing import Any

import pytest

from homing_worker.runtime.container_config import health_path_of
from homing_worker.runtime.container_network import gateway_of


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


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"Env": ["PATH=/bin"], "Labels": None}, ""),
        ({"Env": None, "Labels": {}}, ""),
        ({"Env": ["fprocess=cat"], "Labels": {}}, "/_/health"),
        ({"Env": ["FPROCESS=cat", "xfprocess=cat"], "Labels": {}}, ""),
        ({"Env": [], "Labels": {"dev.homing.health-path": "/ready"}}, "/ready"),
        ({"Env": ["fprocess=cat"], "Labels": {"dev.homing.health-path": "/ready"}}, "/ready"),
        ({"Env": [], "Labels": {"dev.homing.health-path": "@elsewhere/"}}, ""),
    ],
)
def test_where_a_container_says_that_it_is_ready_is_known_or_not_asked_for(config: dict[str, Any], path: str) -> None:
    assert health_path_of(config) == path

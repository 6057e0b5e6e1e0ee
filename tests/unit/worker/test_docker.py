"""What the Docker runtime makes of what the engine says."""

from __future__ import annotations

import pytest

from homing_worker.runtime.docker import gateway_of


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

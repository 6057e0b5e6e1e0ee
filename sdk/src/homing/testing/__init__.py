"""Tests of applications without a server: an in-process one that answers as told.

::

    from homing import Client
    from homing.testing import FakeServer

    with FakeServer() as fake, Client(fake.target) as client:
        fake.function("resize").returns({"width": 10})
        assert client.invoke("resize", {"width": 20}).json() == {"width": 10}
        assert fake.calls("resize")[0].json() == {"width": 20}

With pytest, the fixtures ``homing_fake`` and ``homing_client`` are there by themselves.
"""

from homing.testing._deliveries import FakeDelivery
from homing.testing._function import FakeCall, FakeFunction
from homing.testing._server import FakeServer

__all__ = ["FakeCall", "FakeDelivery", "FakeFunction", "FakeServer"]

"""The tests of the application in orders.py: no server, no container, no network beyond this machine."""

from __future__ import annotations

import pytest
from orders import Orders

from homing import Client, InvocationState, UnavailableError
from homing.testing import FakeCall, FakeServer


@pytest.fixture
def orders(homing_client: Client) -> Orders:
    return Orders(homing_client)


def test_thumbnails_are_100_pixels_wide(homing_fake: FakeServer, orders: Orders) -> None:
    def resize(call: FakeCall) -> object:
        wanted = call.json()
        return {"photo": wanted["photo"], "bytes": wanted["width"] * 7}

    homing_fake.function("resize").answers(resize)

    assert orders.thumbnails(["a.jpg", "b.jpg"]) == {"a.jpg": 700, "b.jpg": 700}
    assert sorted(call.json()["photo"] for call in homing_fake.calls("resize")) == ["a.jpg", "b.jpg"]


def test_an_invoice_is_printed_once(homing_fake: FakeServer, orders: Orders) -> None:
    invoice = homing_fake.function("invoice").hold()  # it stays RUNNING until the test says otherwise

    first, second = orders.print_invoice(7), orders.print_invoice(7)

    assert first == second
    assert not orders.is_printed(first)
    invoice.release()
    assert orders.is_printed(first)
    [call] = homing_fake.calls("invoice")
    assert (call.json(), call.labels) == ({"order": 7}, {"order": "7"})


def test_an_unavailable_server_delays_an_invoice(homing_fake: FakeServer, orders: Orders) -> None:
    homing_fake.function("invoice")
    homing_fake.refuse("InvokeAsync", times=2)  # the SDK asks again, with the same request id

    assert orders.is_printed(orders.print_invoice(7))


def test_a_price_is_asked_for_again_when_the_appraiser_is_busy(homing_fake: FakeServer, orders: Orders) -> None:
    homing_fake.function("appraise").fails(503, times=2).returns("12.50")

    assert orders.price("a.jpg") == 12.5
    [record] = homing_fake.invocations()
    assert [attempt.status_code for attempt in record.attempts] == [503, 503, 200]


def test_without_an_appraisal_there_is_no_price(homing_fake: FakeServer, orders: Orders) -> None:
    homing_fake.function("appraise").fails(400, "not a photo")

    assert orders.price("a.txt") is None
    assert homing_fake.invocations()[0].state is InvocationState.FAILED


def test_a_lost_server_is_told(homing_fake: FakeServer, orders: Orders) -> None:
    homing_fake.refuse("Invoke")  # a call of `invoke` is never repeated by itself

    with pytest.raises(UnavailableError):
        orders.price("a.jpg")

"""A small application: it has photos resized and invoices printed by functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from homing import Client, FunctionError, InvocationState


@dataclass(frozen=True, kw_only=True)
class Resize:
    photo: str
    width: int


@dataclass(frozen=True, kw_only=True)
class Resized:
    photo: str
    bytes: int


class Orders:
    """What the shop does with orders."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._resize = client.function("resize", input=Resize, output=Resized)

    def thumbnails(self, photos: Iterable[str]) -> dict[str, int]:
        """Return the sizes of the thumbnails of photos, which are made several at a time."""
        made = self._resize.map((Resize(photo=photo, width=100) for photo in photos), concurrency=10)
        return {thumbnail.photo: thumbnail.bytes for thumbnail in made}

    def print_invoice(self, order: int) -> str:
        """Have an invoice printed later; return what to ask for it with. Saying it again prints it once."""
        return self._client.invoke_async(
            "invoice", {"order": order}, request_id=f"invoice-{order}", labels={"order": str(order)}
        ).id

    def is_printed(self, invocation_id: str) -> bool:
        """Tell whether an invoice is printed."""
        return self._client.get(invocation_id).state is InvocationState.SUCCEEDED

    def price(self, photo: str) -> float | None:
        """Return the price of a photo; None where the appraiser does not know one."""
        try:
            return float(self._client.invoke("appraise", photo, timeout=5).text)
        except FunctionError:
            return None

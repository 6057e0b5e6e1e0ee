"""Hands tasks to Celery from some callers at a time and prints how many seconds that took."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from celery_app import app, call


def main() -> None:
    """Take the number of tasks and of callers from the command line."""
    tasks, callers = int(sys.argv[1]), int(sys.argv[2])
    payload = "x" * 256

    def publish(count: int) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                call.apply_async((payload,), producer=producer)

    with ThreadPoolExecutor(callers) as pool:
        # Each caller connects first.
        list(pool.map(publish, [1] * callers))
        rest = tasks - callers
        shares = [rest // callers + (number < rest % callers) for number in range(callers)]
        start = time.monotonic()
        list(pool.map(publish, shares))
        print(rest, time.monotonic() - start)


if __name__ == "__main__":
    main()

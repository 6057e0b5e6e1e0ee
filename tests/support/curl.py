"""Does what curl does, as far as the documentation uses it; a machine may not have curl."""

from __future__ import annotations

import argparse
import base64
import re
import urllib.request
from collections.abc import Iterator, Sequence

_PATIENCE_SECONDS = 60.0


def curl(words: Sequence[str], *, server: str) -> bytes:
    """Return the body of the answer.

    :param words: What stands behind `curl`, for a server at `localhost:8080`.
    :param server: Where that is: `host:port`.
    :raises urllib.error.HTTPError: It is an error.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", "--data-binary", dest="data")
    parser.add_argument("--json")
    parser.add_argument("-u", dest="user")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-i", action="store_true")
    asked = parser.parse_args(words)
    headers = dict(header.split(": ", 1) for header in asked.headers)
    body = asked.data if asked.json is None else asked.json
    if asked.json is not None:
        headers |= {"Content-Type": "application/json", "Accept": "application/json"}
    if asked.user:
        headers["Authorization"] = f"Basic {base64.b64encode(asked.user.encode()).decode()}"
    answer = b""
    for url in _urls(asked.url):
        request = urllib.request.Request(
            url.replace("//localhost:8080/", f"//{server}/"),
            data=None if body is None else body.encode(),
            headers=headers,
            method=asked.method,
        )
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as response:
            answer += response.read()
    return answer


def _urls(url: str) -> Iterator[str]:
    """Yield what a URL stands for: with `[1-10]` in it, ten."""
    found = re.search(r"\[(\d+)-(\d+)\]", url)
    if found is None:
        yield url
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield url.replace(found[0], str(number))

"""Does what curl does, as far as the documentation uses it; a machine may not have curl."""

from __future__ import annotations

import argparse
import base64
import urllib.request
from collections.abc import Sequence

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
    asked = parser.parse_args(words)
    headers = dict(header.split(": ", 1) for header in asked.headers)
    body = asked.data if asked.json is None else asked.json
    if asked.json is not None:
        headers |= {"Content-Type": "application/json", "Accept": "application/json"}
    if asked.user:
        headers["Authorization"] = f"Basic {base64.b64encode(asked.user.encode()).decode()}"
    request = urllib.request.Request(
        asked.url.replace("//localhost:8080/", f"//{server}/"),
        data=None if body is None else body.encode(),
        headers=headers,
        method=asked.method,
    )
    with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as response:
        answer: bytes = response.read()
    return answer

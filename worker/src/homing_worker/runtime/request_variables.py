"""The environment variables in which a command finds its request, named as the classic watchdog does."""

from __future__ import annotations

import re
from typing import Final

from homing_worker.runtime.base import Request
from homing_worker.runtime.headers import joined

_NAMED: Final = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
"""Names of headers that become variables. Others, as ``X_Call_Id``, could pass for a header that homing sets."""
_TAKEN: Final = "proxy"
"""``Http_Proxy`` is where HTTP libraries look for a proxy, in any case: who names one there reads what the command
sends (httpoxy). Some look at names that begin so, too."""


def request_variables(request: Request) -> dict[str, str]:
    """Return the variables of a request.

    A header that comes more than once is one variable, its values joined by ``, ``.
    """
    path, _, query = request.target.partition("?")
    size = str(len(request.body))
    return {
        **{
            f"Http_{'_'.join(word.capitalize() for word in name.split('-'))}": value
            for name, value in joined(request.headers).items()
            if _NAMED.fullmatch(name) and not name.startswith(_TAKEN)
        },
        "Http_Method": request.method,
        "Http_Path": path,
        "Http_Query": query,
        "Http_ContentLength": size,
        "Http_Content_Length": size,
    }

"""How many files, and connections, this process may have open."""

from __future__ import annotations

import resource
from typing import Final

_ENOUGH: Final = 65_536


def raise_limit_of_files() -> None:
    """Raise the soft limit as far as the hard one allows: many a system has 1,024, which a thousand callers use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

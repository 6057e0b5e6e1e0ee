"""A path leads nowhere but below the URL of a function."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homing_worker.runtime.url import below

PIECES = st.sampled_from(
    ["/", "//", "..", ".", "a", "%2e", "%2E", "%2f", "%5C", "\\", ";", "%252e", "%252f", "...", "?", "%"]
)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/", "/base"),
        ("/?a=b", "/base?a=b"),
        ("/a", "/base/a"),
        ("//a//b/", "/base//a//b/"),
        ("/a/./b..c/...", "/base/a/./b..c/..."),
        ("/a?b=/../c", "/base/a?b=/../c"),
        ("/%2e%2a", "/base/%2e%2a"),
        ("/..", "/base"),
        ("/../admin", "/base/admin"),
        ("/a/../../admin", "/base/admin"),
        ("/a/b/../c", "/base/a/c"),
        ("/.%2E/admin", "/base/admin"),
        ("/..;x=y/admin", "/base/admin"),
        ("/%252e%252e/admin", "/base/admin"),
    ],
)
def test_a_target_is_below_the_base(target: str, wanted: str) -> None:
    assert below("/base", target) == wanted


@given(st.lists(PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces)))
@example("/..%2f..%2fadmin")
@example("/a/..%5c..%5cadmin")
@example("/..%252f..%252fadmin")
def test_no_server_reads_a_target_as_one_above_the_base(target: str) -> None:
    path = below("/base", target).partition("?")[0]

    while True:
        for read in (path, path.replace("\\", "/"), "/".join(each.partition(";")[0] for each in path.split("/"))):
            assert (posixpath.normpath(read) + "/").startswith("/base/"), (path, read)
        if (decoded := unquote(path)) == path:
            break
        path = decoded

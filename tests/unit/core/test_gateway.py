"""How URLs name functions."""

from __future__ import annotations

import pytest

from homing_core.destinations import function_of, receiver_of
from homing_core.gateway import FunctionTarget, own_target, target_of


@pytest.mark.parametrize(
    ("path", "function", "rest"),
    [
        ("/function/figlet", "figlet", ""),
        ("/function/figlet/", "figlet", "/"),
        ("/async-function/figlet", "figlet", ""),
        ("/function/figlet.openfaas-fn", "figlet", ""),
        ("/function/figlet.openfaas-fn/a/b", "figlet", "/a/b"),
        ("/function/figlet//a", "figlet", "//a"),
        ("/function/figlet/a%2Fb%00", "figlet", "/a%2Fb%00"),
        ("/function/figlet/function/other", "figlet", "/function/other"),
        ("/function/figlet/line\nbreak", "figlet", "/line\nbreak"),
        ("/function/a", "a", ""),
    ],
)
def test_a_path_names_a_function_and_what_is_its_own(path: str, function: str, rest: str) -> None:
    assert target_of(path) == FunctionTarget(function=function, path=rest)


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/function", "/function/", "/function//a", "/functions/figlet", "/x/function/figlet",
        "/function/Figlet", "/function/fig_let", "/function/figlet.other", "/function/figlet.",
        "function/figlet", "/function/.openfaas-fn",
        "/function/figlet.openfaas-fn.openfaas-fn", "/function/%66iglet", "/function/fig let", "/function/" + "a" * 64,
    ],
)  # fmt: skip
def test_what_names_none(path: str) -> None:
    assert target_of(path) is None


@pytest.mark.parametrize(
    ("url", "function", "path", "query"),
    [
        ("http://gateway:8080/function/next", "next", "", ""),
        ("http://gateway/async-function/next/a?b=c&d", "next", "/a", "b=c&d"),
        ("https://gateway/function/next.openfaas-fn", "next", "", ""),
    ],
)
def test_a_url_of_the_server_itself_names_a_function(url: str, function: str, path: str, query: str) -> None:
    assert own_target(url) == FunctionTarget(function=function, path=path, query=query)
    assert (function_of(url), receiver_of(url)) == (function, f"function:{function}")


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway:8080/nothing", "http://gateway.example.org/function/next", "http://example.org/function/next",
        "http://gateway@example.org/function/next", "ftp://gateway/function/next", "http://gateway:8080/function/Next",
        "http://example.org//gateway/function/next", "amqp:/gateway", "http://gateway/function/next#",
    ],
)  # fmt: skip
def test_other_urls_name_none(url: str) -> None:
    assert own_target(url) is None
    assert function_of(url) == ""

"""The example functions in containers answer as their README says."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus

import pytest

from support.docker import LABEL, ROOT, FunctionImages, docker

Answer = tuple[int, str, dict[str, str]]
Call = Callable[..., Answer]


@pytest.fixture
def start(function_images: FunctionImages) -> Iterator[Callable[[str], Call]]:
    """Yield what starts a container of an image, as locked down as a worker would, and returns what calls it."""
    containers: list[str] = []

    def start_one(image: str) -> Call:
        container = docker(
            "run", "--detach", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges",
            "--publish=127.0.0.1::8080", image,
        )  # fmt: skip
        containers.append(container)
        address = docker("port", container, "8080").splitlines()[0]

        def call(body: str = "", path: str = "/", **headers: str) -> Answer:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            request = urllib.request.Request(f"http://{address}{path}", body.encode(), sent)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read().decode(), dict(answer.headers)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode(), dict(error.headers)

        deadline = time.monotonic() + 20
        while True:
            try:
                call(path="/_/health")
            except OSError:
                assert time.monotonic() < deadline, docker("logs", container)
                time.sleep(0.05)
            else:
                return call

    yield start_one
    if containers:
        docker("rm", "--force", *containers)


def test_figlet_draws_its_text(start: Callable[[str], Call], function_images: FunctionImages) -> None:
    status, art, headers = start(function_images.figlet)("Hi", X_Call_Id="1")

    assert status == HTTPStatus.OK
    assert "| |_| | |" in art
    assert float(headers["X-Duration-Seconds"]) > 0


def test_long_task_sleeps_for_a_second_and_says_nothing(
    start: Callable[[str], Call], function_images: FunctionImages
) -> None:
    began = time.monotonic()

    status, body, _ = start(function_images.long_task)("anything")

    assert (status, body) == (HTTPStatus.OK, "")
    assert time.monotonic() - began >= 1


def test_flaky_fails_as_told_by_the_number_of_the_attempt(
    start: Callable[[str], Call], function_images: FunctionImages
) -> None:
    call = start(function_images.flaky)
    order = json.dumps({"fail": 2, "status": 503, "retry_after": "1", "final": True})

    answers = [call(order, X_Homing_Attempt=str(number), X_Call_Id="c1") for number in (1, 2, 3)]

    assert [status for status, _, _ in answers] == [503, 503, 200]
    assert answers[0][2]["Retry-After"] == "1"
    assert answers[0][2]["X-Homing-Retry"] == "no"
    assert json.loads(answers[2][1])["call_id"] == "c1"
    assert call('{"what": 1}')[0] == HTTPStatus.BAD_REQUEST


def test_flaky_kills_its_container(start: Callable[[str], Call], function_images: FunctionImages) -> None:
    call = start(function_images.flaky)
    (container,) = function_images.containers(function_images.flaky)

    with pytest.raises(OSError, match=r"(?i)remote end closed|reset"):
        call('{"die": true}')

    assert docker("wait", container) == "137"


def test_the_plain_image_knows_nothing_of_functions(
    start: Callable[[str], Call], function_images: FunctionImages
) -> None:
    call = start(function_images.plain)

    assert call("x")[:2] == (HTTPStatus.OK, "plain\n")
    assert call(path="/_/health")[0] == HTTPStatus.NOT_FOUND


def test_every_container_carries_the_label_of_its_run(
    start: Callable[[str], Call], function_images: FunctionImages
) -> None:
    start(function_images.plain)

    (container,) = function_images.containers(function_images.plain)

    assert docker("inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', container) == function_images.run


@pytest.mark.parametrize(("attempt", "status"), [("1", 1), ("2", 0)])
def test_flaky_as_a_command_fails_by_its_exit_status(attempt: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "flaky" / "flaky.py"],
        input=b'{"fail": 1}',
        env={"Http_X_Homing_Attempt": attempt, "Http_X_Call_Id": "c2"},
        stdout=subprocess.PIPE,
        check=False,
    )

    assert done.returncode == status
    assert json.loads(done.stdout)["call_id"] == "c2"

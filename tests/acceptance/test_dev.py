"""`homing dev`: everything in one process."""

from __future__ import annotations

from pathlib import Path

from homing import Client
from support.processes import Dev


def test_dev_serves_all_kinds_of_calls(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.start()
    try:
        with Client(dev.target) as client:
            client.functions.deploy(name="shout", command=["tr", "a-z", "A-Z"])
            assert client.invoke("shout", "now").text == "NOW"
            with client.watch_results(function="shout") as results:
                call = client.invoke_async("shout", "later")
                assert call.result(timeout=60).text == "LATER"
                assert next(event for event in results if event.invocation.id == call.id).result.text == "LATER"
    finally:
        assert dev.terminate() == 0


def test_a_data_folder_is_of_one_dev_only(tmp_path: Path) -> None:
    first = Dev(tmp_path)
    first.start()
    try:
        second = Dev(tmp_path)
        second.launch()
        assert second.wait() == 5
        assert any("another homing dev uses" in str(line.get("text")) for line in second.lines)
    finally:
        first.terminate()


def test_bad_settings_are_told_in_one_line(tmp_path: Path) -> None:
    dev = Dev(tmp_path, HOMING_RUNTIME="kubernetes")
    dev.launch()
    assert dev.wait() == 2
    assert [line["text"] for line in dev.lines] == [
        "homing: runtime: must be a comma-separated list of docker, process"
    ]

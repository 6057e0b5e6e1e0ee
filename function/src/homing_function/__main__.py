"""Serve a function of a file: ``python -m homing_function app.py --function hello``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from homing_function import logs
from homing_function.errors import LoadError
from homing_function.loading import chosen, load


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m homing_function",
        description="Serve a function of a file by HTTP, on $PORT (8080) of $HOST (0.0.0.0).",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a file with functions, such as app.py")
    parser.add_argument(
        "--function",
        metavar="NAME",
        default=os.environ.get("HOMING_FUNCTION", ""),
        help="which of them, where there are several; or HOMING_FUNCTION",
    )
    parser.add_argument(
        "--grace", metavar="SECONDS", type=float, default=30.0, help="how long calls may finish after SIGTERM; 30"
    )
    parser.add_argument(
        "--copy", metavar="FILE", type=Path, help="what is run in place of the file: a copy of what it once was"
    )
    parser.add_argument("--list", action="store_true", help="print the functions as JSON, and serve none")
    asked = parser.parse_args()
    try:
        # What the file prints as it is loaded does not belong to the list.
        with redirect_stdout(sys.stderr):
            functions = load(asked.file, copy=asked.copy)
        if asked.list:
            listed = [{"name": each.name, "concurrency": each.concurrency} for each in functions.values()]
            sys.stdout.write(json.dumps(listed) + "\n")
            return
        function = chosen(functions, asked.function)
    except LoadError as error:
        sys.exit(str(error))
    # A list is made without what serves, which takes longer to import than all else.
    from homing_function.server import listen, serve  # noqa: PLC0415

    logs.configure(with_call_ids=function.concurrency > 1)
    host, port = os.environ.get("HOST", "0.0.0.0"), os.environ.get("PORT", "8080")  # noqa: S104 as a container does
    try:
        listening = listen(host, int(port))
    except (OSError, ValueError) as error:
        sys.exit(f"port {port} of {host} cannot be served: {error}")
    serve(function, listening, grace=asked.grace)


if __name__ == "__main__":
    main()

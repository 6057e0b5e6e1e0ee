"""The command new: a function to begin with."""

from __future__ import annotations

import keyword
import shlex
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import typer

import homing
from homing_cli import output
from homing_cli.options import Json, wants_json
from homing_cli.stack.entry import with_function
from homing_cli.stack.errors import StackError, shown
from homing_cli.stack.files import DEFAULT_NAMES, default_file, read_text
from homing_cli.stack.schema import NAME, NAME_RULE

_SUFFIX: Final = ".template"
"""What the name of each file of a template ends with: they are no code of this package."""


_HANDLER: Final = "__handler__"
_VERSION: Final = "__version__"
"""What stands in templates for the name of the function in Python, and for the version of homing."""


class Lang(Enum):
    """What there are templates for."""

    PYTHON = "python"
    DOCKERFILE = "dockerfile"


def new(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the function, and of its folder.")],
    lang: Annotated[
        Lang, typer.Option("--lang", help="python: a function in Python. dockerfile: any program, run once a call.")
    ],
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix", metavar="PREFIX", help="What the name of the image begins with: a registry's, or yours."
        ),
    ] = "",
    yaml: Annotated[
        Path | None, typer.Option("--yaml", "-f", metavar="FILE", help="The stack file to make; stack.yaml.")
    ] = None,
    append: Annotated[
        Path | None, typer.Option("--append", "-a", metavar="FILE", help="The stack file to add the function to.")
    ] = None,
    json: Json = False,
) -> None:
    """Make the folder of a new function, and its entry in a stack file. Nothing is overwritten.

    \b
    Examples:
      homing new hello --lang python
      homing new long-task --lang dockerfile --prefix me --append stack.yaml
      homing up
    """  # noqa: D301 - click wants the character
    if not NAME.fullmatch(name):
        raise typer.BadParameter(f"{shown(name)!r} {NAME_RULE}", param_hint="NAME")
    if yaml is not None and append is not None:
        raise typer.BadParameter("--yaml makes a file, and --append adds to one", param_hint="--append")
    folder = Path(name)
    stack_file, text = _stack_file(yaml, append)
    image = f"{prefix.rstrip('/')}/{name}:latest" if prefix else f"{name}:latest"
    # A folder with a Dockerfile is what `faas-cli` calls this, whatever is in it: so that builds it too.
    values = {"lang": Lang.DOCKERFILE.value, "handler": f"./{name}", "image": image}
    try:
        text = with_function(text, name, values)
    except StackError as error:
        raise StackError(f"{stack_file}: {error}") from None
    try:
        folder.mkdir()
        try:
            stack_file.write_text(text, encoding="utf-8")
        except OSError:
            folder.rmdir()
            raise
        files = [folder / path for path in _write(lang, name, folder)]
    except FileExistsError:
        raise StackError(f"{folder} is there already") from None
    except OSError as error:
        raise StackError(f"{error.filename}: cannot be written: {error.strerror}") from None
    if wants_json(ctx, json=json):
        output.print_json(
            {"name": name, "image": image, "stack": str(stack_file), "files": [str(each) for each in files]}
        )
        return
    for file in files:
        output.print_line(f"{file} is made")
    named = "" if str(stack_file) in DEFAULT_NAMES else f" -f {shlex.quote(str(stack_file))}"
    output.print_line(f"{name} is in {stack_file}; homing up{named} builds and deploys it")


def _stack_file(yaml: Path | None, append: Path | None) -> tuple[Path, str]:
    """Return the stack file that is meant, and its text; a new one has none.

    :raises StackError: It is there and should not be, or cannot be read.
    """
    if append is not None:
        return append, read_text(append)
    found = default_file() if yaml is None else yaml if yaml.exists() else None
    if found is not None:
        raise StackError(f"{found} is there already; --append {found} adds to it")
    return yaml or Path(DEFAULT_NAMES[0]), ""


def _write(lang: Lang, name: str, folder: Path) -> list[str]:
    """Write the files of a template into a folder, and return their names."""
    template = resources.files("homing_cli") / "templates" / lang.value
    handler = name.replace("-", "_")
    if not handler.isidentifier() or keyword.iskeyword(handler):
        handler = f"_{handler}"  # which homing_function takes away again
    written = []
    for file in sorted(template.iterdir(), key=lambda each: each.name):
        written.append(file.name.removesuffix(_SUFFIX))
        text = file.read_text(encoding="utf-8").replace(_HANDLER, handler).replace(_VERSION, homing.__version__)
        (folder / written[-1]).write_text(text, encoding="utf-8")
    return written

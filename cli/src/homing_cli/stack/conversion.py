"""From a function of a stack file to one of homing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from homing import FunctionOptions, Limits
from homing_cli.stack.schema import StackFunction


def deploy_options(function: StackFunction, environments: Sequence[Mapping[str, str]] = ()) -> FunctionOptions:
    """Return the function as ``functions.deploy`` takes it.

    `fprocess` becomes a variable of its environment, unless that has one; labels and annotations are passed on, and
    what those of OpenFaaS mean is the server's to say.

    :param environments: What is in its environment files, one after the other.
    """
    environment = dict(function.environment)
    for each in environments:
        environment |= each
    if function.fprocess:
        environment.setdefault("fprocess", function.fprocess)
    options = FunctionOptions(
        image=function.image,
        env=environment,
        labels=function.labels,
        annotations=function.annotations,
        secrets=function.secrets,
    )
    if function.memory_bytes or function.cpu_millis:
        options["limits"] = Limits(memory_bytes=function.memory_bytes or 0, cpu_millis=function.cpu_millis or 0)
    return options

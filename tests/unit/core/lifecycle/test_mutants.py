"""Whatever single thing is wrong in the life cycle, its examples notice."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from homing_core.lifecycle import Custody, DeliveryState, Effect, Refusal, State
from support.mutants import Package, Suite

HERE: Final = Path(__file__).parent
LIFECYCLE: Final = Package(
    "homing_core.lifecycle",
    ["step", "states", "custody", "attempts", "invocation", "delivery", "__init__"],
    enums={each.__name__: list(each.__members__) for each in (Custody, DeliveryState, Effect, Refusal, State)},
)
ALSO: Final = ["support.reporter", "support.lives"]
EXAMPLES: Final = Suite(*(HERE / f"test_{name}.py" for name in ("invocation", "delivery", "custody")))

EQUIVALENT: Final[dict[str, str]] = {
    "custody.Changes: False → True": "only types see it",
    "attempts.merge: if not fresh → False": "it spares work, and what it leaves out changes nothing",
    "attempts._number: 2 → 3 (2)": "what is longer is greater than the token that it begins with",
}
"""Mutants that do the same as the code, and why."""

# What is run is no part of what is measured, and being traced would take twice as long.
pytestmark = pytest.mark.no_cover


def test_the_examples_pass_without_a_mutant() -> None:
    with LIFECYCLE.standing_in(None, also=ALSO):
        assert EXAMPLES.fails() is None


@pytest.mark.parametrize("module", ["step", "states", "custody", "attempts", "invocation", "delivery"])
def test_every_mutant_is_noticed(module: str) -> None:
    survivors = set()
    for mutant in LIFECYCLE.mutants(module):
        try:
            with LIFECYCLE.standing_in(mutant, also=ALSO):
                failed = EXAMPLES.fails()
        except Exception:  # noqa: BLE001 a package that cannot be imported is noticed
            continue
        if failed is None:
            survivors.add(mutant.name)
    equivalent = {name for name in EQUIVALENT if name.startswith((f"{module}.", f"{module}:"))}
    assert survivors - equivalent == set(), "no example notices these"
    assert equivalent - survivors == set(), "these are noticed, or are no more: they need no excuse"

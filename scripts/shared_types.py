"""Make `homing_function/types.py` from the SDK's: both ends of a call convert by the same rules, without the other.

`--check` writes nothing and fails where it is not what would be made.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "sdk" / "src" / "homing" / "_core" / "types.py"
TARGET = ROOT / "function" / "src" / "homing_function" / "types.py"

WORDS = {
    "from homing.errors import": "from homing_function.errors import",
    "so that the SDK needs no further package": "so that no further package is needed",
}


def main() -> None:
    """Make it, or see whether it is so."""
    made = SOURCE.read_text(encoding="utf-8")
    for there, here in WORDS.items():
        if made.count(there) != 1:
            sys.exit(f"{SOURCE.relative_to(ROOT)} does not say {there!r} once")
        made = made.replace(there, here)
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(made, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != made:
        sys.exit(f"{TARGET.relative_to(ROOT)} is not what scripts/shared_types.py makes")


if __name__ == "__main__":
    main()

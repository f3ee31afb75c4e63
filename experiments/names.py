"""Names that are spelt nearly as what was mistyped, and the names of the configs that there are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

CONF = Path(__file__).parent / "conf"
SHIPPED = Path(__file__).parent / "measure" / "memory" / "configs"  # of models, of which there are no weights
MOST = 3  # names that are told
WHOLE, PART = 0.8, 0.65  # how alike, of 1, two names, or the last parts of two names, must be to be near


def options(group: str) -> list[str]:
    """The configs of a group, `glue/sst2` for those in folders; those that begin with _ are parts of others."""
    found = (path.relative_to(CONF / group).with_suffix("") for path in (CONF / group).rglob("*.yaml"))
    return sorted(name.as_posix() for name in found if not name.name.startswith("_"))


def shipped() -> dict[str, str]:
    """The model configs that ship here: name -> file."""
    return {place.stem: str(place) for place in sorted(SHIPPED.glob("*.json"))}


def near(name: str, known: Iterable[str]) -> list[str]:
    """Those of the known names that are spelt nearly as `name`, or whose last part, after `/` or `:`, is spelt nearly
    as its last part; the nearest first."""
    names = {_plain(item): item for item in known}
    found = difflib.get_close_matches(_plain(name), names, MOST, WHOLE)
    if not found:
        ends = {_end(plain): plain for plain in reversed(names)}
        found = [ends[end] for end in difflib.get_close_matches(_end(_plain(name)), ends, MOST, PART)]
    return [names[plain] for plain in found]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").rstrip("/")


def _end(name: str) -> str:
    return re.split("[/:.]", name)[-1]


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean a or b?`, or where no known name is near, what there is."""
    found = near(name, known)
    return f"; did you mean {' or '.join(found)}?" if found else f"; there are: {', '.join(known)}"

"""Tables in markdown."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_BAR, _BREAKS = re.compile(r"(?<!\\)\|"), re.compile(r"[\r\n\v\f\x85\u2028\u2029]+")


def markdown(frame: pd.DataFrame) -> str:
    """A markdown table of the cells as they are, each on one line; cells that have no value are a dash."""
    shown = frame.fillna("–").map(_one_cell).rename(columns=_one_cell)
    return str(shown.to_markdown(index=False, disable_numparse=True))


def _one_cell(cell: Any) -> Any:
    # A bar would end the cell, a line break the row.
    return _BREAKS.sub(" ", _BAR.sub(r"\\|", cell)) if isinstance(cell, str) else cell

"""The data dictionary: what the CSV files of results hold, from their schemas.

python -m analysis.dictionary     writes docs/data.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.kit.columns import RUNS, SHARED
from analysis.studies.spectrum import schemas as spectrum
from experiments.csv_schema import Column, Schema
from experiments.history import HISTORY
from experiments.markdown import markdown
from experiments.measure import schemas
from experiments.measure.memory import schemas as memory

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
MEASURED = (
    schemas.FORGETTING, schemas.TRUNCATION, schemas.QUANTIZED_BASE, schemas.QUANTIZED_WEIGHTS, schemas.TRIALS,
    schemas.CHECKS, schemas.STEPS, schemas.FLOPS, *spectrum.ALL,
)  # fmt: skip
MEMORY = (
    memory.MEASURED, memory.OPTIONS, memory.SETUPS, memory.PLANS, memory.PUBLISHED, memory.PAPER_FIGURES, memory.FITS,
    memory.PLAN,
)  # fmt: skip
TYPES = {str: "text", int: "whole number", float: "number", bool: "True or False"}
INTRODUCTION = """\
# The data

What the CSV files of `results/` hold. This page is made by `python -m analysis.dictionary` from the schemas by which
the files are written and read: [experiments/history.py](../experiments/history.py),
[experiments/measure/schemas.py](../experiments/measure/schemas.py),
[experiments/measure/memory/schemas.py](../experiments/measure/memory/schemas.py),
[analysis/studies/spectrum/schemas.py](../analysis/studies/spectrum/schemas.py) and
[analysis/kit/columns.py](../analysis/kit/columns.py).

All files are UTF-8 with a header and commas. No two rows have the same values in the columns of the key. A number that
is not there is `nan` in what is measured, and empty in what is derived. The folder of a study is
`results/<preset>/<study>`."""
DERIVED = """\
What a study derives has columns of its own, which the text of its `table.md` explains. The identity of a row (`model`,
`task`, `method`, `label`, `settings`, `r`, `lr`, `seed`, …) is that of `runs.csv`. These are shared by many; a name
before one of them says of what it is (`validation_interval`), or against what (`full_difference`: minus full
fine-tuning)."""


def page() -> str:
    """The page as markdown."""
    parts = [INTRODUCTION, "## A run", section(HISTORY), "## The runs of a study", section(RUNS), "## Measured"]
    parts += [*map(section, MEASURED), "## Memory, planned and measured", *map(section, MEMORY)]
    return "\n\n".join([*parts, "## Derived", DERIVED, table(SHARED)]) + "\n"


def section(schema: Schema) -> str:
    """A schema: its file, what a row is, key, command and columns."""
    lines = [
        f"### {'/'.join(filter(None, (schema.study if ' ' not in schema.study else '', schema.file)))}",
        f"A row is {schema.row}. Key: {', '.join(f'`{name}`' for name in schema.key)}. Made by `{schema.command}`"
        + (f", in {schema.study}." if " " in schema.study else "."),
        table(schema.columns),
    ]
    return "\n\n".join(lines)


def table(columns: Sequence[Column]) -> str:
    """A row a column: name, type, unit, what it says."""
    rows = [(f"`{one.name}`", TYPES[one.type], one.unit, one.what) for one in columns]
    return markdown(pd.DataFrame(rows, columns=["column", "type", "unit", "what"]))


def main() -> int:
    """Command line entry: writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

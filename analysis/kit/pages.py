"""table.md, the page of a study, of blocks: a text, or a function of the study's data that gives one.

A block is a paragraph, a list, a table, or several of these; one that gives nothing is left out. Blocks stand a line
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import measured, table_md, tables
from analysis.kit.data import Data

Block = str | Callable[[Data], str | Sequence[str]]
TASK = ["model", "task", "metric"]
MACHINE = (
    "processor", "device", "precision", "threads", "OMP_WAIT_POLICY", "torch", "transformers", "started", "finished",
)  # fmt: skip


def write(
    path: Path, blocks: Sequence[Block], data: Data, answers: Callable[[pd.DataFrame], Sequence[str]] | None
) -> Path:
    """Write table.md: its heading, which is the first block, the answers, how many test rows there are, the rest."""
    page = render(blocks, data) + "\n"
    if data.study.runs:
        table_md.write(path, page, data.runs, answers(data.runs) if answers else ())
    else:
        path.write_text(page, encoding="utf-8")
    return path


def render(blocks: Sequence[Block], data: Data) -> str:
    """The blocks as markdown."""
    return "\n\n".join(filter(None, (_one(block, data) for block in blocks)))


def _one(block: Block, data: Data) -> str:
    found = block if isinstance(block, str) else block(data)
    return found if isinstance(found, str) else "\n".join(found)


def text(template: str, **fields: Any) -> Block:
    """A text with fields, {name}: values, or functions of the data that give them."""

    def block(data: Data) -> str:
        return template.format(**{name: value(data) if callable(value) else value for name, value in fields.items()})

    return block


def lines(*blocks: Block) -> Block:
    """Blocks that stand without a line between them: sentences of one paragraph, items of one list."""
    return lambda data: "\n".join(filter(None, (_one(block, data) for block in blocks)))


def table(rows: Callable[[Data], pd.DataFrame]) -> Block:
    """A table of texts; none where there is no row."""

    def block(data: Data) -> str:
        found = rows(data)
        return tables.markdown(found) if len(found) else ""

    return block


def under(heading: str, *blocks: Block) -> Block:
    """Blocks under a heading, or a line of text, which has the fields of its section; nothing where they give
    nothing."""

    def block(data: Data) -> str:
        found = render(blocks, data)
        return f"{heading.format(**data.place)}\n\n{found}" if found else ""

    return block


def sections(
    heading: str,
    *blocks: Block,
    by: Sequence[str] = TASK,
    of: str = "table.csv",
    where: Mapping[str, Any] | None = None,
) -> Block:
    """The blocks for each group of `by` in the table `of`, of the data of that group alone, under a heading with fields
    of `by`: `## {task} ({model})`. where: rows of `of` that have these values alone are looked at."""

    def block(data: Data) -> str:
        rows = data[of]
        for name, value in (where or {}).items():
            rows = rows[rows[name] == value]
        places = [dict(zip(by, key, strict=True)) for key, _ in rows.groupby(list(by), sort=False)]
        return "\n\n".join(render([heading.format(**place), *blocks], data.at(place)) for place in places)

    return block


def metrics(data: Data) -> str:
    """The metrics that the study's means are of."""
    return ", ".join(data.scores["metric"].unique())


def head_rate(data: Data) -> str:
    """A sentence on the learning rate of the head."""
    return tables.head_rate(data.runs)


def machine(*more: str) -> Block:
    """A list of what was measured on, of machine.json: MACHINE and more."""

    def block(data: Data) -> list[str]:
        found = measured.machine(data.folder)
        return [f"- {name}: {found.get(name)}" for name in (*MACHINE, *more)]

    return block


def failures(data: Data) -> list[str]:
    """A list item for each run that failed."""
    return tables.failure_lines(tables.read_sweep(data.folder).failed, data.failed)


failed_runs = under("## Failed runs", failures)

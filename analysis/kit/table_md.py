"""table.md, the page of a study: what stands above its tables, and reading that again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.method_names import title

if TYPE_CHECKING:  # answers are read where nothing is derived
    import pandas as pd


APART = """\
They are in no mean, comparison or figure; tables count them: `(6; 2 collapsed)`, of 8 runs the mean is of 6."""


def test_rows(runs: pd.DataFrame) -> str:
    """A sentence on the rows of the test split, task by task; nothing where no run says how many it had."""
    known = runs.dropna(subset="test_rows")
    found = []
    for task, rows in known.groupby("task", sort=False):
        counts = rows.groupby("model", sort=False)["test_rows"].unique().map(sorted)
        same = len({tuple(count) for count in counts}) == 1
        shown = {model: " or ".join(f"{n:,.0f}" for n in count) for model, count in counts.items()}
        each = ", ".join(f"{count} ({model})" for model, count in shown.items())
        found.append(f"{task} {next(iter(shown.values())) if same else each}")
    return f"Test rows: {'; '.join(found)}." if found else ""


def protocol(runs: pd.DataFrame) -> str:
    """A sentence on the protocol of the runs, or on those of several, which must not be compared; nothing of none."""
    known = [f"{found:g}" for found in sorted(runs["protocol"].dropna().unique())]
    if len(known) > 1:
        return f"Runs of protocols {' and '.join(known)} (docs/evidence.md), which differ in more than their settings."
    if known == ["1"]:
        return "Protocol 1, which `PRESET=desk1` makes; `PRESET=desk` trains by protocol 2 now (docs/evidence.md)."
    return f"Protocol {known[0]} (docs/evidence.md)." if known else ""


def collapses(runs: pd.DataFrame) -> str:
    """What runs have collapsed, those of a tuning aside, and how tables show it; nothing where no run is known to have
    or not."""
    own = runs[runs["role"].str.contains("study")].drop_duplicates("run_id").dropna(subset="collapsed")
    if own.empty:
        return ""
    lost = own[own["collapsed"].astype(bool)]
    where = lost.groupby(["task", "label", "settings"], sort=False).size().reset_index(name="runs")
    named = [
        f"{row['runs']} of {title(row['label'], row['settings'])} on {row['task']}" for row in where.to_dict("records")
    ]
    rule = "validation accuracy within 2 points of the commonest class"
    text = f"Collapsed ({rule}): {len(lost)} of {len(own)} runs"
    return f"{text}: {', '.join(named)}. {APART}" if named else f"{text}."


def write(path: Path, text: str, runs: pd.DataFrame, answers: Sequence[str] = ()) -> None:
    """Write table.md: its title, the answers of the study as a quote, the rows of the test splits, and the rest.

    runs: of `load_runs`; text begins with the title, a heading of one line.
    """
    title, _, rest = text.partition("\n")
    quote = "\n>\n".join(f"> {answer}" for answer in answers)
    facts = " ".join(filter(None, (protocol(runs), test_rows(runs), collapses(runs))))
    head = [part for part in (title, quote, facts) if part]
    path.write_text("\n\n".join([*head, rest.lstrip("\n")]), encoding="utf-8")


def read_answers(path: Path) -> list[str]:
    """The answers at the top of a table.md; none where its study gives none."""
    lines = path.read_text(encoding="utf-8").splitlines()[2:]
    quote = itertools.takewhile(lambda line: line.startswith(">"), lines)
    return [answer for line in quote if (answer := line.removeprefix(">").strip())]

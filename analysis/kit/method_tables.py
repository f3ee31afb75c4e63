"""The tables of a comparison of methods as markdown: what was found in words, quality, and what the tuning took."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.kit import metrics, naming
from analysis.kit.cells import summary
from analysis.kit.compare import METHOD, REFERENCES, References, full_and_lora, minus_texts, reference, with_differences
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.sentences import listed, told
from analysis.kit.tuning import CELL, TOLERANCES

ABOUT = {
    "trainable_params": "max", "lr": "first", "main": "first", "train_seconds": "mean", "tokens_per_second": "mean",
    "peak_memory_bytes": "mean",
}  # fmt: skip
TUNING = """\
Only the learning rate is tuned, for every method and task on its own, on validation data with the first seed; the test
data choose nothing. Every method starts with a grid of as many rates, which grows where the best lies at its edge. The
good region is the factor from the lowest to the highest rate around the best whose validation score stays within 1 or
2 points of it, interpolated over log lr; a rate that did not train ends it at its neighbour, and ≥ says that it reaches
the last rate tried. It is from one seed: a point may be noise."""
UNTUNED = "No learning rate was tuned in this study: every method ran at the rate given here."


def tuned(data: Data) -> str:
    """A block: how the rates of a study were chosen."""
    return UNTUNED if data.rates.empty else TUNING


def pending(data: Data) -> str:
    """A block: the methods that were tuned, but have no finished run."""
    keys = ["model", "task", *METHOD]  # a rate may be chosen by another metric than the one that is reported
    left = data.rates.merge(data["table.csv"][keys].drop_duplicates(), on=keys, how="left", indicator=True)
    left = left[left["_merge"] == "left_only"].drop_duplicates(keys)
    names = [f"{naming.title(row.label, row.settings)} on {row.task}" for row in left.itertuples()]
    return f"Tuned, but without a finished run that is compared: {', '.join(names)}." if names else ""


def tabulate(
    scores: pd.DataFrame,
    more: Sequence[str] = (),
    references: References = full_and_lora,
    about: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """A row for each of CELL and `more`: what `cells.summary` has, ABOUT and `about`, columns and what is taken of a
    cell's runs, and for each of `references` the fields of `kit.compare.with_differences`.

    Comparisons, and Holm's correction of their p, are among the methods with one model, task, metric and `more`.
    """
    keys = [*CELL, *more]
    table = summary(scores, keys).merge(scores.groupby(keys).agg({**(about or {}), **ABOUT}), on=keys)
    return with_differences(table, scores, [*TASK, *more], references)


def findings(cells: pd.DataFrame) -> list[str]:
    """What the rows of a task say, counted from their numbers, as markdown list items."""
    cells = _with_names(cells)
    lines = [f"- Seeds a method: {_spread(cells['n'])}."]
    lines += tuning_findings(cells)
    for name in REFERENCES:
        base = reference(cells, name)
        if base is None:
            lines.append(f"- No run of {name}: nothing is compared with it.")
            continue
        found = told(cells, f"{name}_", metrics.lower_is_better(cells))
        if not found.tests:
            lines.append(f"- Against {naming.title(*base)}: no test, which takes two seeds that both have.")
            continue
        better, worse, neither = map(_names, found)
        lines.append(
            f"- Against {naming.title(*base)}, {found.tests} tests: better {better}; worse {worse}; "
            f"not told apart {neither}."
        )
    return lines


def tuning_findings(cells: pd.DataFrame) -> list[str]:
    """What the tuning of a task's methods came to, as markdown list items; none where nothing was tuned."""
    if "tried" not in cells or cells["tried"].isna().all():
        return []
    tuned = _with_names(cells)[cells["tried"].notna()]
    edge, alone = (tuned[tuned[flag].astype(bool)] for flag in ("at_edge", "isolated"))
    by_width = tuned.sort_values(["decades_2", "bounded_2"], ascending=[True, False])
    widths = {
        text: ", ".join(
            f"{row['name']} {_region(row['decades_2'], row['bounded_2'])}" for row in rows.to_dict("records")
        )
        for text, rows in (
            ("narrowest", by_width.iloc[:1]),
            ("widest", by_width.iloc[-1:]),
            ("LoRA", tuned[tuned["label"] == "lora"]),
        )
        if not rows.empty
    }
    return [
        f"- Rates tried a method: {_spread(tuned['tried'])}; {tuned['tried'].sum():.0f} tuning runs in all, "
        f"{tuned['failed'].sum():.0f} of which did not train.",
        f"- Best rate still at the edge of those tried, so that a better one may lie outside: {_names(edge)}.",
        f"- No other rate tried within 2 points of the best, so that a better one may lie between: {_names(alone)}.",
        f"- Rates good to 2 points: {'; '.join(f'{text}: {width}' for text, width in widths.items())}.",
    ]


def _with_names(cells: pd.DataFrame) -> pd.DataFrame:
    twice = cells["label"].duplicated(keep=False)
    return cells.assign(name=cells["label"].where(~twice, cells["label"] + " (" + cells["settings"] + ")"))


def _spread(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _names(cells: pd.DataFrame) -> str:
    return listed(cells["name"])


def names(cells: pd.DataFrame, sizes: bool = True) -> dict[str, Any]:
    """The first columns of a table, as text: method, settings and, with sizes, parameters."""
    columns = {"method": cells["label"], "settings": cells["settings"].where(cells["settings"] != "")}
    return columns | ({"parameters": cells["trainable_params"].map("{:,}".format)} if sizes else {})


def minus_columns(cells: pd.DataFrame) -> dict[str, list[str | None]]:
    """A column of `minus` for each of REFERENCES that is among the cells; its head says which of several it is."""
    several = cells["label"].value_counts()
    return {
        f"minus {naming.title(name, settings if several[name] > 1 else '')}": minus_texts(cells, name)
        for name, (_, settings) in full_and_lora(cells).items()
    }


def effort(cells: pd.DataFrame) -> pd.DataFrame:
    """The second table of a task, as text: how the learning rate was tuned, and what a run costs."""
    columns = names(cells, sizes=False) | {"lr": cells["lr"].map("{:g}".format)}
    if "tried" in cells:
        columns["rates tried"] = [_tried(row) for row in cells.to_dict("records")]
        for points in TOLERANCES:
            fields = zip(cells[f"decades_{points}"], cells[f"bounded_{points}"], strict=True)
            columns[f"good to {points} point{'s' if points > 1 else ''}"] = [_region(*field) for field in fields]
    return pd.DataFrame(
        columns
        | {
            "training (s)": cells["train_seconds"].map("{:.0f}".format),
            "tokens/s": cells["tokens_per_second"].map("{:,.0f}".format),
            "peak memory (GB)": (cells["peak_memory_bytes"] / 1e9).map("{:.2f}".format),
        }
    )


def _tried(row: Mapping[Any, Any]) -> str | None:
    if pd.isna(row["tried"]):
        return None
    text = f"{row['tried']:.0f}, {row['lowest_lr']:g} to {row['highest_lr']:g}"
    notes = [f"{row['beyond_grid']:.0f} beyond the grid"] if row["beyond_grid"] else []
    notes += [f"{row['failed']:.0f} did not train"] if row["failed"] else []
    notes += ["best at the edge"] if row["at_edge"] else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def _region(decades: float, bounded: bool) -> str | None:
    return None if pd.isna(decades) else f"{'' if bounded else '≥ '}× {10**decades:.2g}"

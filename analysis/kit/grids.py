"""The learning rates of a study that tunes one for a whole line, at one of its points, or one for each rank: the grid,
and what was chosen.

A rate for every method is `kit.tuning`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from analysis.kit import metrics, tables, tuning
from analysis.kit.data import Data

AT_EACH = (
    "Chosen on validation data from a grid, at each rank; where one is named alone, for all ranks, at it and one seed."
)


def grid(line: Sequence[str]) -> Callable[[Data], pd.DataFrame | None]:
    """A table: mean validation `value` of the tuning runs, by what a rate is chosen by, for each of `line` and lr; and
    for each r, where a line was tuned at several. None: nothing was tuned.

    chosen: this is the rate that the study's runs of that line were trained with.
    """

    def table(data: Data) -> pd.DataFrame | None:
        tried = tables.in_role(data.runs, "tuning")
        tried = tried[tried["watched"] & (tried["split"] == "validation")]
        if tried.empty:
            return None
        keys = [*line, "r"] if (tried.groupby(list(line))["r"].nunique() > 1).any() else [*line]
        found = tables.summarise(tried, [*keys, "metric", "lr"])
        found = found.rename(columns={"mean": "value"}).drop(columns="interval")
        used = data.final[[*keys, "lr"]].drop_duplicates().assign(chosen=True)
        found = found.merge(used, on=[*keys, "lr"], how="left")
        return found.assign(chosen=found["chosen"].notna())

    return table


def choices(line: Sequence[str], chosen: str, of: str = "learning_rates.csv") -> Callable[[Data], list[str]]:
    """A block: how rates were chosen, `chosen` or AT_EACH, and of each line of the table `of` a list item on its rates
    and the choice among them."""

    def block(data: Data) -> list[str]:
        rates = data.frame(of)
        if rates is None:
            return []
        keys = [name for name in (*line, "r") if name in rates]
        found = [_choice(rows, keys) for _, rows in rates.groupby(keys, sort=False)]
        return [AT_EACH if "r" in rates else chosen, "", *found]

    return block


def _choice(rows: pd.DataFrame, line: Sequence[str]) -> str:
    rates = rows.sort_values("lr").to_dict("records")
    chosen = [rate["lr"] for rate in rates if rate["chosen"]]
    first, unit = rates[0], metrics.of(rates[0]["metric"])
    shown = {
        rate["lr"]: f"{unit.scale * rate['value']:.{unit.digits}f}".replace("nan", "did not train") for rate in rates
    }
    values = ", ".join(f"{lr:g}: {text}" for lr, text in shown.items())
    name = ", ".join(f"r = {first[key]}" if key == "r" else str(first[key]) for key in line if key != "model")
    scale = " in percent" if unit.scale == 100 else ""
    text = f"- {name} (validation {first['metric']}{scale} by rate: {values}): "
    if not chosen:
        return text + "the ablation has no run at these rates yet."
    text += f"**{', '.join(f'{lr:g}' for lr in chosen)}** is used."
    worse = pd.Series([rate["value"] for rate in rates]) * (1 if unit.lower else -1)
    best = [rate for rate, equal in zip(rates, worse <= worse.min() + tuning.ROUNDING, strict=True) if equal]
    others = " and ".join(f"{rate['lr']:g}" for rate in best if not rate["chosen"])
    if others and len(best) > others.count(" and ") + 1:
        text += f" {others} scored the same: of equals the one nearest to the middle of the grid is taken."
    elif others:
        text += f" {others} is better for this task alone."
    if {rates[0]["lr"], rates[-1]["lr"]} & set(chosen):
        text += " It is at the edge of the grid: a rate outside may be better."
    return text

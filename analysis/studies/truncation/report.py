"""table.md of the truncation study."""

import pandas as pd

from analysis.kit import tables
from analysis.studies.spectrum.tables import place_name
from analysis.studies.truncation.tables import KEPT, needed, needed_table
from analysis.weights.update_runs import PLACE

READING = f"""\
Each weight's update, that of full fine-tuning or LoRA's delta_w, is replaced by the k largest terms of its SVD, and the
model is evaluated on test data; nothing is trained again. What is kept is the share of the way from no update of these
weights (k = 0: all else, the head too, as it was trained) to the whole one. The smallest measured k from which on at
least {100 * KEPT:.0f}% is kept is the update's intrinsic rank, as far as this task can tell. Where a run writes text,
its loss is what is looked at."""


def report(effects: pd.DataFrame, quality: pd.DataFrame, failed: list[str]) -> str:
    """effects: of `studies.truncation.tables.effects`; quality: of `weights.update_runs.quality`."""
    found = needed(effects)
    lines = ["# The intrinsic rank of the update", "", READING, "", "## What the runs say", "", *_findings(found)]
    lines += ["", "## How many directions are needed", "", tables.markdown(needed_table(found))]
    lines += ["", "## Runs", "", tables.markdown(quality)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def _findings(found: pd.DataFrame) -> list[str]:
    lines = []
    for key, cells in found.groupby(PLACE, sort=False):
        texts = []
        for method, of in cells.groupby("method", sort=False):
            ks = of["k"].dropna()
            text = f"k = {ks.median():.0f} (seeds: {', '.join(f'{k:.0f}' for k in ks)})" if len(ks) else "no effect"
            text += f" and no effect in {len(of) - len(ks)} of {len(of)} seeds" if 0 < len(ks) < len(of) else ""
            texts.append(f"{method} {text}")
        metric = cells["metric"].iloc[0]
        lines.append(
            f"- {100 * KEPT:.0f}% of what the update does to test {metric} on {place_name(key)} is kept from: "
            f"{'; '.join(texts)}."
        )
    return lines

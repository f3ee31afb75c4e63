"""How much of the effect of full fine-tuning's update, and of LoRA's, is in its top k directions."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import cells, naming, pages, update_marks, updates
from analysis.kit.data import Data
from analysis.kit.study import Study, arranged
from analysis.kit.tables import in_role
from analysis.kit.updates import PLACE, place_name
from experiments.measure.schemas import TRUNCATION

CUT = ("full", "lora")
KEPT = 0.95
READING = f"""\
Each weight's update, that of full fine-tuning or LoRA's delta_w, is replaced by the k largest terms of its SVD, and the
model is evaluated on test data; nothing is trained again. What is kept is the share of the way from no update of these
weights (k = 0: all else, the head too, as it was trained) to the whole one. The smallest measured k from which on at
least {100 * KEPT:.0f}% is kept is the update's intrinsic rank, as far as this task can tell. Where a run writes text,
its loss is what is looked at."""


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The study's own runs."""
    return naming.arranged(in_role(arranged(study_dir, runs_dir), "study"))


def effects(data: Data) -> pd.DataFrame:
    """PLACE, method, seed, run_id, metric, k, value on test data, energy (the share of the squared norm that is kept)
    and effect, the share of the way from k = 0 to the whole update; whole: nothing is cut at this k.

    The metric is the task's main one, or the loss where no text was written.
    """
    runs = updates.named(data.runs[data.runs["label"].isin(CUT)], updates.short_names(data.runs))
    main = runs[runs["main"]].drop_duplicates("run_id").set_index("run_id")
    found = []
    for run_id, own in data.read(TRUNCATION, main.index).groupby("run_id", sort=False):
        run, scores = main.loc[str(run_id)], own.set_index("k")
        test = scores[scores["split"] == "test"]
        metric = run["metric"] if (test["metric"] == run["metric"]).any() else "loss"
        value = test.loc[test["metric"] == metric, "value"].sort_index()
        way = value.iloc[-1] - value.iloc[0]
        rows = value.reset_index().assign(
            whole=lambda rows: rows["k"] == rows["k"].max(),
            **{name: run[name] for name in (*PLACE, "method", "seed")}, run_id=run_id, metric=metric,
            energy=scores.loc[scores["metric"] == "energy", "value"].reindex(value.index).to_numpy(),
            effect=((value - value.iloc[0]) / way).to_numpy() if way else float("nan"),
        )  # fmt: skip
        found.append(rows)
    return pd.concat(found, ignore_index=True)


def needed(data: Data) -> pd.DataFrame:
    """For each of PLACE, method, metric and seed the smallest measured k from which on at least KEPT of the effect is
    kept, the value without the update and with the whole of it. NaN where the whole update is not better than none."""

    def smallest(own: pd.DataFrame) -> dict[str, Any]:
        own = own.sort_values("k")
        none, whole = own["value"].iloc[[0, -1]]
        better = whole < none if own["metric"].iloc[0] == "loss" else whole > none
        enough = own.loc[own["k"] > own.loc[own["effect"] < KEPT, "k"].max(), "k"]
        k = enough.iloc[0] if better else float("nan")
        return {"none": none, "whole": whole, "k": k, "largest": own["k"].iloc[-1]}

    return cells.each(data["table.csv"], [*PLACE, "method", "metric", "seed"], smallest)


def needed_table(data: Data) -> pd.DataFrame:
    """For reading: a row a place and method, seeds side by side."""

    def texts(own: pd.DataFrame) -> dict[str, str]:
        write = "{:.3f}".format if own["metric"].iloc[0] == "loss" else lambda value: f"{100 * value:.1f}"
        ks = ["no effect" if pd.isna(k) else f"{k:.0f}" for k in own.sort_values("seed")["k"]]
        ends = {"without the update": write(own["none"].mean()), "whole": write(own["whole"].mean())}
        return ends | {f"k for {100 * KEPT:.0f}% (each seed)": ", ".join(ks), "of": f"{own['largest'].iloc[0]:.0f}"}

    return cells.each(data.once(needed), [*PLACE, "method", "metric"], texts)


def findings(data: Data) -> list[str]:
    """From which k on the effect is kept, a list item a place."""
    lines = []
    for (*key, metric), own in data.once(needed).groupby([*PLACE, "metric"], sort=False):
        texts = []
        for method, of in own.groupby("method", sort=False):
            ks = of["k"].dropna()
            text = f"k = {ks.median():.0f} (seeds: {', '.join(f'{k:.0f}' for k in ks)})" if len(ks) else "no effect"
            text += f" and no effect in {len(of) - len(ks)} of {len(of)} seeds" if 0 < len(ks) < len(of) else ""
            texts.append(f"{method} {text}")
        lines.append(
            f"- {100 * KEPT:.0f}% of what the update does to test {metric} on {place_name(key)} is kept from: "
            f"{'; '.join(texts)}."
        )
    return lines


def drawn(data: Data) -> pd.DataFrame:
    """A panel for the score on test data, and one for the share of the squared norm, over k."""
    rows = data["table.csv"]
    steps = sorted(rows.loc[~rows["whole"], "k"].unique())
    # The whole update of full fine-tuning has as many directions as W: it is drawn one step after the last.
    at = {k: steps.index(k) if k in steps else len(steps) for k in rows["k"]}
    ticks = dict(enumerate([*map(str, steps), "all"]))
    rows = rows.assign(x=rows["k"].map(at), tick=rows["k"].map(at).map(ticks))
    loss = rows["metric"] == "loss"
    rows["row"] = "test " + rows["metric"].where(loss, rows["metric"] + " (%)")
    score = rows.assign(panel="with k directions of the update", value=rows["value"].where(loss, 100 * rows["value"]))
    return pd.concat([score, rows.assign(panel="squared norm kept (%)", value=100 * rows["energy"])])


STUDY = Study(
    runs=load,
    cell=updates.CELL,
    reads=(TRUNCATION.file,),
    tables={"table.csv": effects},
    page=[
        "# The intrinsic rank of the update",
        READING,
        pages.under("## What the runs say", findings),
        pages.under("## How many directions are needed", pages.table(needed_table)),
        updates.runs_table,
        pages.failed_runs,
    ],
    figures={
        "truncation.png": update_marks.Curves(
            drawn,
            "k: directions of the update that are kept",
            "means over seeds; all else as it was trained, so that k = 0 has the trained head",
            over="mean",
        )
    },
)  # fmt: skip

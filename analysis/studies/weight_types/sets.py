"""Sets of weight types under a budget of LoRA parameters: what each spends, and paired tests between them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.measures import is_written, per_run
from analysis.kit import cells, tables
from analysis.maths import statistics
from lora.config import WEIGHT_TYPES, InputError

PLACE = ["model", "task", "metric"]
CELL = [*PLACE, "budget", "weight_types"]
REFERENCE = "q+v"  # the best in the paper
SINGLE, SEVERAL = ("q", "k", "v", "o"), "q+k+v+o"
MEAN_OF_SINGLE = "mean of q, k, v, o"
NEAR = 0.25  # ranks are whole numbers: sets that miss a budget by no more than this share belong to it


def order(weight_types: str) -> tuple[bool, int, tuple[int, ...]]:
    """Sort key of a set: attention alone comes first, few types before many, types in the order of WEIGHT_TYPES."""
    names = weight_types.split("+")
    types = tuple(WEIGHT_TYPES.index(name.rpartition(".")[2]) for name in names)  # less the tower: decoder.q
    return not is_attention(weight_types), len(names), types


def is_attention(weight_types: str) -> bool:
    """True for a set of attention weights alone, as all of the paper's are."""
    return set(weight_types.split("+")) <= set(SINGLE)


def with_parameters(runs: pd.DataFrame, runs_dir: Path, study_dir: Path) -> pd.DataFrame:
    """runs with `lora_params`: the parameters of A and B, and DoRA's m, that a run trained, without the task's head.

    Raises InputError if a run is not of LoRA on weight types with one rank, or is damaged.
    """
    rows = runs.drop_duplicates("run_id")[["run_id", "weight_types", "r"]]
    for run_id, weight_types, r in rows.itertuples(index=False, name=None):
        if not weight_types or not isinstance(r, int | float) or not r > 0:
            raise InputError(
                f"run {run_id} of {study_dir / 'sweep.jsonl'} is not of LoRA on weight types with one rank; delete the "
                f"file, `{tables.make_command(study_dir)}` lists runs that are"
            )
    heads = {"lora_params": lambda run: int(run.metrics["head_params"])}
    runs = tables.with_details(runs, study_dir, runs_dir, heads).astype({"r": int})
    return runs.assign(lora_params=runs["trainable_params"] - runs["lora_params"])


def with_budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """runs with `budget`, the number of LoRA parameters that the run stands for among those of its model and task, and
    `deviation`, by which share its own number misses it.

    A number that most sets have is a budget, and numbers within NEAR of it belong to it; then the same for the rest.
    """
    parts = []
    for _, place in runs.groupby(["model", "task"], sort=False):
        sets = Counter(place[["weight_types", "lora_params"]].drop_duplicates()["lora_params"])
        found: dict[int, int] = {}  # number of parameters -> budget
        for count, _ in sorted(sets.items(), key=lambda item: (-item[1], item[0])):
            found[count] = next((budget for budget in found.values() if abs(count / budget - 1) <= NEAR), count)
        parts.append(place.assign(budget=place["lora_params"].map(found)))
    table = pd.concat(parts).loc[runs.index]
    return table.assign(deviation=table["lora_params"] / table["budget"] - 1)


def scored(final: pd.DataFrame) -> pd.DataFrame:
    """The test scores of each task's main metric, after, where text is written, the test loss, by which its sets are
    compared."""
    test = final[final["split"] == "test"]
    written = per_run(final).groupby(["model", "task"]).filter(is_written)["run_id"]
    loss = (test["metric"] == "loss") & test["run_id"].isin(written)
    return pd.concat([test[loss], test[test["main"]]])


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of `scored`, or of their table, those of the metric by which a task's sets are compared."""
    return rows[rows["metric"] == rows.groupby(["model", "task"])["metric"].transform("first")]


def tabulate(test: pd.DataFrame) -> pd.DataFrame:
    """A row for each of CELL: what `kit.cells.summary` has, r, lora_params, deviation, alpha and lr.

    Sorted by model, task, metric (the loss first) and budget, and in each the sets by `order`.
    """
    about = dict.fromkeys(("r", "lora_params", "deviation", "alpha", "lr"), "first")
    table = cells.summary(test, CELL).merge(test.groupby(CELL).agg(about), on=CELL)
    places = {name: place for place, name in enumerate(sets_of(table))}
    table = table.assign(score=table["metric"] != "loss", place=table["weight_types"].map(places))
    order = ["model", "task", "score", "budget", "place"]
    return table.sort_values(order, ignore_index=True).drop(columns=["score", "place"])


def differences(test: pd.DataFrame) -> pd.DataFrame:
    """Paired comparisons by seed within each model, task and budget, of the metric that `compared` takes: PLACE,
    budget, weight_types, reference, and the fields of `maths.statistics.against`.

    Every set minus REFERENCE, with p_holm corrected for the sets of that budget; and SEVERAL minus the mean of SINGLE,
    one comparison a budget, corrected for the budgets of that model and task. What is not there is not compared.
    """
    rows: list[dict[Any, Any]] = []
    for key, runs in compared(test).groupby([*PLACE, "budget"]):
        shared: dict[str, Any] = dict(zip([*PLACE, "budget"], key, strict=True))
        sets = set(runs["weight_types"])
        if REFERENCE in sets:
            found = statistics.against(runs, ["weight_types"], [REFERENCE])
            rows += found.assign(reference=REFERENCE, **shared).to_dict("records")
        if {*SINGLE, SEVERAL} <= sets:
            scores = runs.pivot(index="seed", columns="weight_types", values="value")
            single = scores[list(SINGLE)].mean(axis=1, skipna=False)
            contrast = statistics.paired(scores[SEVERAL], single)._asdict()
            rows.append(shared | {"reference": MEAN_OF_SINGLE, "weight_types": SEVERAL} | contrast | {"p_holm": np.nan})
    columns = [*CELL, "reference", *statistics.Paired._fields, "p_holm"]
    table = pd.DataFrame(rows, columns=columns)
    contrasts = table["reference"] == MEAN_OF_SINGLE
    corrected = table[contrasts].groupby(PLACE, sort=False)["p"].transform(statistics.holm)
    return table.assign(p_holm=table["p_holm"].where(~contrasts, corrected))


def sets_of(rows: pd.DataFrame) -> list[str]:
    """The sets of weight types in a frame, by `order`."""
    return sorted(rows["weight_types"].unique(), key=order)

"""Quality at each number of bits: means, paired differences to unquantised weights and of LoftQ to a plain start."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.kit import tables
from analysis.kit.compare import METHOD
from analysis.kit.method_tables import TASK
from analysis.kit.tuning import CELL
from analysis.maths import statistics
from analysis.studies.qlora import runs as qlora_runs
from analysis.studies.qlora.runs import KEYS, MEMORY, NONE

ABOUT = {
    "quantization": "first", "start": "first", "r": "first", "trainable_params": "max", "lr": "first",
    "main": "first", "train_seconds": "mean", "tokens_per_second": "mean", "peak_memory_bytes": "mean", MEMORY: "mean",
}  # fmt: skip
PLAIN = "lora"  # the label of what LoftQ is compared with
FIELDS = statistics.Paired._fields


def bases(measured: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """A row for each of KEYS: bits a weight and bytes of the quantised layers, bytes of the model, error, the mean of
    the weights' relative errors (0 without quantisation), and a column loss_<text> or hidden_error_<text> each.

    Both are of `studies.qlora.runs.read`.
    """
    names = measured["measure"] + "_" + measured["on"]
    wide = measured.assign(name=names).pivot_table("value", KEYS, "name", sort=False).reset_index()
    wide = wide.rename(columns={"bits_layers": "bits", "bytes_layers": "layer_bytes", "bytes_model": "model_bytes"})
    errors = weights.groupby(KEYS)["error"].mean().reset_index()
    wide = wide.merge(errors, on=KEYS, how="left")
    wide["error"] = wide["error"].where(wide["quantization"] != NONE, 0.0)
    order = wide.assign(place=wide["quantization"].map(qlora_runs.place))
    return order.sort_values(["model", "place", "start"], ignore_index=True).drop(columns="place")


def tabulate(scores: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """A row for each of CELL, from many bits to few: mean, interval, n, ABOUT, the columns of `bases`, and two paired
    comparisons with the fields of `maths.statistics.Paired` and p_holm, corrected for those of their kind with one
    model, task and metric.

    none_…: minus LoRA on weights that are not quantised. plain_…: LoftQ minus the plain start with the same rank and
    quantisation, with plain_closed, the share of the plain start's loss of quality that LoftQ makes good, where the 95%
    interval of that loss, not corrected, leaves out zero.
    """
    table = tables.summarise(scores, CELL).merge(scores.groupby(CELL).agg(ABOUT).reset_index(), on=CELL)
    for name, compare in (("none", _against_none), ("plain", _against_plain)):
        parts = [
            pd.DataFrame([key] * len(found), columns=TASK).join(found)
            for key, runs in scores.groupby(TASK, sort=False)
            for found in [compare(runs)]
        ]
        found = pd.concat(parts).set_index(CELL).add_prefix(f"{name}_").reset_index()
        table = table.merge(found, on=CELL, how="left")
    table = table.merge(base, on=KEYS, how="left")
    table["plain_closed"] = [_closed(row, table) for row in table.to_dict("records")]
    places = table["quantization"].map(qlora_runs.place)
    order = table.assign(place=places, loftq=table["label"] != PLAIN)
    by = ["model", "task", "main", "place", "r", "loftq"]
    return order.sort_values(by, ascending=[True, True, False, True, True, True], ignore_index=True).drop(
        columns=["place", "loftq"]
    )


def _against_none(runs: pd.DataFrame) -> pd.DataFrame:
    exact = runs[runs["quantization"] == NONE]
    if exact.empty:
        return pd.DataFrame(columns=[*METHOD, *FIELDS, "p_holm"])
    reference = exact.sort_values("r", kind="stable")[METHOD].iloc[0]
    return statistics.against(runs, METHOD, list(reference))


def _against_plain(runs: pd.DataFrame) -> pd.DataFrame:
    groups = {name: group.set_index("seed")["value"] for name, group in runs.groupby(METHOD, sort=False)}
    rows = [
        (label, settings, *statistics.paired(group, groups[PLAIN, settings]))
        for (label, settings), group in groups.items()
        if label != PLAIN and (PLAIN, settings) in groups
    ]
    found = pd.DataFrame(rows, columns=[*METHOD, *FIELDS])
    return found.assign(p_holm=statistics.holm(found["p"].astype(float)))


def _closed(row: Mapping[Any, Any], table: pd.DataFrame) -> float:
    here = table[(table[TASK] == [row[name] for name in TASK]).all(axis=1)]
    plain = here[(here["label"] == PLAIN) & (here["settings"] == row["settings"])]
    if row["label"] == PLAIN or plain.empty:
        return float("nan")
    mean, loss, interval = plain[["mean", "none_difference", "none_interval"]].astype(float).iloc[0]
    worse = loss > 0 if row["metric"] == "loss" else loss < 0
    return float((mean - row["mean"]) / loss) if worse and abs(loss) > interval else float("nan")


def errors_by_type(weights: pd.DataFrame) -> pd.DataFrame:
    """Mean relative error over the weights of each type: a row for each of KEYS, a column a type, in order."""
    order = list(dict.fromkeys(weights["weight_type"]))
    wide = weights.pivot_table("error", KEYS, "weight_type", sort=False)[order].reset_index()
    places = wide["quantization"].map(qlora_runs.place)
    return wide.assign(place=places).sort_values(["model", "place", "start"], ignore_index=True).drop(columns="place")

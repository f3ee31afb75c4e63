"""Studies of what runs have changed, delta_w: their runs, what they are called, and means over layers and seeds.

Nothing here reads weights: what was measured on adapters is kept in files of the studies (`kit.measured.Rows`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.kit import cells, measured, naming, pages, tables
from analysis.kit.data import Data
from analysis.maths import statistics
from lora.config import InputError

if TYPE_CHECKING:  # which load torch
    from analysis.weights.update_runs import Trained

ABOUT = ["model", "task", "run_id", "label", "settings", "r", "seed"]  # what a row of results says of its run
PLACE = ["model", "task"]
CELL = [*PLACE, "label", "settings"]
PRECISION = "precision"
PAIR = ("q", "v")  # the weight types whose ranks the paper compares
FEW = 8  # directions by which an update is compared with another, or all where there are fewer
SIDES = ("right", "left")  # of singular vectors
ENDS = {"right": "input", "left": "output"}
TOP = 10  # singular vectors of W + delta_w that are looked at for intruders
EPSILONS = (0.4, 0.5, 0.6)
EPSILON = 0.5  # of the intruders that tests are about; the others are in the table


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The study's own runs, arranged; r is a number or NaN. Raises InputError if there is none, and if a method has a
    seed twice."""
    runs = tables.in_role(tables.load_runs(study_dir, runs_dir), "study").reset_index(drop=True)
    if runs.empty:
        raise InputError(f"{study_dir} has no finished run of its own; `{tables.make_command(study_dir)}` trains them")
    runs = naming.arranged(runs.assign(r=pd.to_numeric(runs["r"], errors="coerce").astype(float)))
    tables.check_seeds(runs.drop_duplicates("run_id"), CELL, study_dir)
    return runs


def each(data: Data) -> pd.DataFrame:
    """ABOUT, a row a run, with PRECISION."""
    return data.final.drop_duplicates("run_id")[[*ABOUT, PRECISION]].reset_index(drop=True)


def trained(data: Data, run_ids: Collection[str]) -> list[Trained]:
    """The updates of these runs, by the model that they started from. Raises InputError if one is not there."""
    from analysis.weights import update_runs  # with torch, which tables and figures do without

    return update_runs.trained(each(data), run_ids, data.folder, data.runs_dir, data.base)


def rows(data: Data, name: str, keys: Sequence[str] = ("run_id",), wanted: Any = None) -> measured.Rows:
    """The stored rows of the file `name`, of all runs unless others, or pairs, are wanted."""
    return measured.Rows(data.folder / name, keys, measured.ids(each(data)["run_id"]) if wanted is None else wanted)


def short_names(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(label, settings) -> a name for axes and tables: `r=8`, `r=8, 6 types` where LoRA adapts other weight types than
    most, `full`. In the order in which methods are shown."""
    each = runs.drop_duplicates(["label", "settings"])
    lora, others = each[each["label"] == "lora"], each[each["label"] != "lora"]
    usual = lora["weight_types"].mode().iloc[0] if len(lora) else ""
    sizes = lora["weight_types"].fillna("").str.count(r"\+") + 1
    lora = lora.assign(types=sizes, more=lora["weight_types"] != usual).sort_values(["more", "types", "r"])
    names = {}
    for run in lora.to_dict("records"):
        text = run["settings"].replace(f", {run['weight_types']}", "")
        names[run["label"], run["settings"]] = f"{text}, {run['types']} types" if run["more"] else text
    return names | {key: naming.title(*key) for key in naming.keys(others)}


def named(rows: pd.DataFrame, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """rows with `method`, the short name, in order of methods within each place."""
    found = rows.assign(method=[names[key] for key in naming.keys(rows)])
    places = found.groupby(PLACE, sort=False).ngroup()
    order = found["method"].map({name: place for place, name in enumerate(names.values())})
    return found.iloc[sorted(range(len(found)), key=lambda i: (places.iloc[i], order.iloc[i]))].reset_index(drop=True)


def described(rows: pd.DataFrame, data: Data, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Measured rows with what their run is before the other columns, and `method` as of `named` at the end. Where a row
    is the mean of several runs, of one method, seed is that of the first."""
    numbers = rows.drop(columns=[name for name in (*ABOUT, "method") if name in rows and name != "run_id"])
    first = [run_ids.partition(measured.JOIN)[0] for run_ids in numbers["run_id"]]
    about = each(data).set_index("run_id").loc[first].reset_index()[ABOUT].assign(run_id=numbers["run_id"])
    return named(about.join(numbers.drop(columns="run_id")), names)


def by_seed(rows: pd.DataFrame, column: str, by: Sequence[str]) -> pd.DataFrame:
    """The mean of a column over layers, a row for each of `by` and seed, as `value`."""
    return rows.groupby([*by, "seed"], sort=False)[column].mean().rename("value").reset_index()


def means(rows: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """A row for each of keys: seeds, layers, and of each column the mean over layers and seeds, with <column>_interval,
    half of the 95% interval over seeds (NaN for one)."""
    groups = rows.groupby(list(keys), sort=False)
    table = groups.agg(seeds=("seed", "nunique"), layers=("layer", "nunique")).reset_index()
    for name in columns:
        found = tables.summarise(by_seed(rows, name, keys), keys).drop(columns="n")
        table = table.merge(found.rename(columns={"mean": name, "interval": f"{name}_interval"}), on=list(keys))
    return table


def mean_texts(table: pd.DataFrame, column: str, scale: float = 1, digits: int = 1) -> list[str]:
    """The texts of a column of `means`."""
    parts = zip(table[column], table[f"{column}_interval"], table["seeds"], strict=True)
    return [statistics.mean_text(mean, half, n, scale, digits) for mean, half, n in parts]


def against_full(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Every method less full fine-tuning at a place, of means over layers, paired by seed: PLACE and the fields of
    `statistics.against`. No row where there is no full fine-tuning."""
    found = []
    for key, own in rows.groupby(PLACE, sort=False):
        if "full" in set(own["method"]):
            tests = statistics.against(by_seed(own, column, ["method"]), ["method"], ["full"])
            found.append(tests.assign(model=str(key[0]), task=str(key[1])))
    columns = [*PLACE, "method", *statistics.Paired._fields, "p_holm"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def place_name(key: Sequence[Hashable]) -> str:
    """`task (model)` of a place's model and task."""
    return f"{key[1]} ({key[0]})"


def usual_types(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of PAIR, or all if there is none."""
    return rows[rows["weight_type"].isin(PAIR)] if rows["weight_type"].isin(PAIR).any() else rows


def precision(data: Data) -> str:
    """A sentence on which W the runs were trained on."""
    names = set(each(data)[PRECISION])
    if names == {"float32"}:
        return "W is the pretrained weight in fp32, as the runs loaded it."
    rounded = f"rounded to {' or '.join(sorted(names))}, the precision in which the runs loaded it"
    return f"W is the pretrained weight {rounded}."


def _quality(data: Data) -> pd.DataFrame:
    found = cells.summary(data.scores, [*PLACE, "metric", "label", "settings", "lr"])
    return pd.DataFrame(
        {
            "model": found["model"], "task": found["task"],
            "method": [naming.title(*key) for key in naming.keys(found)],
            "lr": found["lr"].map("{:g}".format),
            "test score in percent (seeds)": found["metric"] + " " + cells.mean_texts(found),
        }
    )  # fmt: skip


runs_table = pages.under("## Runs", pages.table(_quality))

"""Methods that hold less memory than full fine-tuning with AdamW: quality, memory, time, and the rank of the update."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import (
    cells,
    method_tables,
    naming,
    pages,
    study,
    tables,
    tuning,
    update_marks,
    updates,
)  # fmt: skip
from analysis.kit.compare import METHOD, minus_texts
from analysis.kit.data import Data
from analysis.kit.sentences import listed, told
from analysis.kit.study import Study
from analysis.kit.updates import ENDS, FEW, PLACE, SIDES
from analysis.maths.statistics import difference_text
from analysis.studies.memory_methods import draw, measures
from analysis.studies.memory_methods.draw import GB, MEMORY
from analysis.studies.memory_methods.measures import MEASURES

PHI = [f"phi_{side}" for side in SIDES]
CHANCE = [*(f"random_{name}" for name in MEASURES), *(f"chance_{side}" for side in SIDES)]
SHOWN = {name: (f"{head}, %", 100) if name == "top_share" else (head, 1) for name, head in MEASURES.items()}
READING = f"""\
Scores are those of the test split, in percent, and its loss, lower is better: mean ± half-width of the 95% Student-t
interval (number of seeds). Differences to full fine-tuning with AdamW are paired by seed, ± half-width of their own
interval; p is of the paired t-test, by Holm's method corrected for all methods compared on that task, and `*` marks
p < 0.05. Memory is what training took: the peak up to the end of the first epoch's steps, above what the process held
before the model was loaded (allocated memory on a GPU, resident memory on a CPU): weights, gradients, moments,
activations and what a loaded library needs. Resident memory depends on what the same process has trained before, by a
factor of two between seeds: `make memory` measures each method in a process of its own, as torch's allocator has it.
The peak of the whole run, in the second table of a task, has evaluation, and of a language model generation, in it,
which can need more than training. Times are those of the runs as they were made, not a benchmark.

delta_w is the trained weight less the one it started from, LoRA's (alpha / r) B A. Stable rank:
||delta_w||_F^2 / ||delta_w||_2^2. Effective rank: exp of the entropy of the singular values as shares. Share of the top
{FEW}: of the squared norm, in the {FEW} largest singular values. All are means over the layers that the method has
trained, ± 95% interval over seeds; a random matrix is Gaussian, of the same shape. LoRA's rank bounds its own: with
r = {FEW} its share is 100% whatever it learns; GaLore's update has at most r directions for each time that they were
chosen, which with a small r is less than the matrix has. phi(k, k): the share of the top k directions, of inputs and of
outputs, that lies in the top k of LoRA with another seed (where there is but one, with that), k being {FEW} or LoRA's
rank, and in brackets its mean for random directions."""


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs, each with its `name`, and with what training took, in bytes: NaN for runs that are older than that."""
    runs = study.arranged(study_dir, runs_dir)
    runs["r"] = runs["r"].where(runs["r"].map(lambda r: isinstance(r, int | float)))
    taken = tables.with_details(runs, study_dir, runs_dir, {MEMORY: lambda run: run.metrics.get(MEMORY)})
    known = names(tables.in_role(runs, "study"))
    return taken.astype({MEMORY: float}).assign(name=[known.get(key, "") for key in naming.keys(taken)])


def names(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(label, settings) -> a name for axes and tables, in order: the label alone where a place has it once, with r
    where that tells them apart, else with the settings."""
    found: dict[tuple[str, str], str] = {}
    for (*_, label), same in runs.drop_duplicates([*PLACE, *METHOD]).groupby([*PLACE, "label"], sort=False):
        ranked = same["r"].notna().all() and same["r"].is_unique
        for run in same.sort_values("r", kind="stable").to_dict("records"):
            text = f"r={run['r']:g}" if ranked else run["settings"]
            found[str(label), run["settings"]] = naming.title(label, text if len(same) > 1 else "")
    return dict(sorted(found.items(), key=lambda item: naming.order(item[0][0])))


def table(data: Data) -> pd.DataFrame:
    """The rows of `kit.method_tables.tabulate` with name, the mean MEMORY of the runs that have it, and what the tuning
    of the learning rate came to."""
    found = method_tables.tabulate(data.scores)
    about = data.scores.groupby(tuning.CELL).agg({"name": "first", MEMORY: "mean"})
    found = found.merge(about, on=tuning.CELL)
    if data.rates.empty:
        return found
    keys = [name for name in tuning.CELL if name != "metric"]  # a generated text is tuned by its loss
    return found.merge(tuning.outcomes(data.rates).drop(columns="metric"), on=keys, how="left")


def ranks(data: Data) -> pd.DataFrame:
    """The rows of ranks.csv, complete, with what their runs are."""
    partners = measures.partners(updates.each(data))
    stored = updates.rows(data, "ranks.csv")
    stored.drop(measures.stale(stored.frame, partners))
    chosen = [run_id for (run_id,) in stored.missing]
    if chosen:
        with_lora = {*chosen, *(lora for run_id in chosen for lora in partners[run_id])}
        stored.add(measures.measure(updates.trained(data, with_lora), partners, chosen))
    found = updates.described(stored.frame, data, names(data.final))
    stored.write(found)  # methods may be called otherwise beside others
    return found


def summary(data: Data) -> pd.DataFrame:
    """A row a place, weight type and method: relative_norm, ||delta_w|| / ||W||, MEASURES and PHI, of
    `kit.updates.means`, and CHANCE."""
    rows, keys = data["ranks.csv"], [*PLACE, "weight_type", "method"]
    rows = rows.assign(relative_norm=rows["norm_delta_w"] / rows["norm_w"])
    found = updates.means(rows, keys, ["relative_norm", *MEASURES, *PHI])
    return found.merge(rows.groupby(keys, sort=False)[CHANCE].mean().reset_index(), on=keys)


def memory_lines(data: Data) -> list[str]:
    """What training took by method, least first, as a markdown list item."""
    rows = mains(data)
    taken = rows.dropna(subset=MEMORY).sort_values(MEMORY)
    if taken.empty:
        return ["- Memory of training: not measured, as the runs are older than its measurement."]
    full = taken.loc[taken["label"] == "full", MEMORY]
    texts = []
    for name, size in zip(taken["name"], taken[MEMORY], strict=True):
        of_full = f" ({100 * size / full.iloc[0]:.0f}% of full)" if len(full) and name != "full" else ""
        texts.append(f"{name} {size / GB:.2f} GB{of_full}")
    lacking = rows.loc[rows[MEMORY].isna(), "name"]
    older = f" Not measured, as the runs are older than this: {listed(lacking)}." if len(lacking) else ""
    return [f"- Memory of training, least first: {', '.join(texts)}.{older}"]


def rank_lines(data: Data) -> list[str]:
    """Whose effective rank is told apart from that of full fine-tuning, at the sites that all methods have trained, as
    a markdown list item."""
    rows = data["ranks.csv"]
    sites = pd.Series(list(zip(rows["layer"], rows["weight_type"], strict=True)), rows.index, dtype=object)
    shared = set.intersection(*(set(own) for _, own in sites.groupby(rows["method"])))
    rows = rows[sites.isin(shared)]
    tests = updates.against_full(rows, "effective_rank")
    if tests.empty:
        return []
    where = f"{len(shared)} matrices that all methods train ({'+'.join(dict.fromkeys(rows['weight_type']))})"
    if tests["p_holm"].isna().all():
        return [f"- Effective rank of the update, at the {where}: no test, which takes two seeds that both have."]
    above, below, _ = told(tests)
    rest = tests.drop([*above.index, *below.index])
    parts = [
        f"{name} {listed(_difference(row) for row in found.to_dict('records'))}"
        for name, found in (("below full", below), ("above full", above), ("not told apart", rest))
    ]
    return [f"- Effective rank of the update, at the {where}: {'; '.join(parts)}."]


def _difference(row: Mapping[Any, Any]) -> str:
    return f"{row['method']} ({difference_text(row['difference'], row['interval'], row['p_holm'], 1)})"


def mains(data: Data) -> pd.DataFrame:
    """The rows of a task's main metric."""
    return data["table.csv"].query("main")


def quality(data: Data) -> pd.DataFrame:
    """A row a method, as text: its metric and loss, their differences to full fine-tuning, what training took."""
    rows = mains(data)
    columns = method_tables.names(rows)
    for metric in (rows["metric"].iloc[0], "loss"):
        found = data["table.csv"].query("metric == @metric")
        columns[f"test {metric}"] = cells.looked_up(found, cells.mean_texts(found), rows, METHOD)
        columns[f"{metric} minus full"] = cells.looked_up(found, minus_texts(found, "full"), rows, METHOD)
    columns["memory of training (GB)"] = [None if pd.isna(size) else f"{size / GB:.2f}" for size in rows[MEMORY]]
    return pd.DataFrame(columns | {"training (s)": rows["train_seconds"].map("{:.0f}".format)})


def layout(data: Data) -> pd.DataFrame:
    """A row a weight type and method, as text, and for each weight type a random matrix."""
    found = data.once(summary)
    shown = pd.DataFrame({"weights": found["weight_type"], "method": found["method"]})
    shown["layers"] = found["layers"].astype(str)
    shown["norm, % of W's"] = (100 * found["relative_norm"]).map("{:.3g}".format)
    for name, (head, scale) in SHOWN.items():
        shown[head] = updates.mean_texts(found, name, scale)
    for side in SIDES:
        pairs = zip(found[f"phi_{side}"], found[f"chance_{side}"], strict=True)
        shown[f"phi(k, k) with LoRA, {ENDS[side]}s"] = [None if pd.isna(m) else f"{m:.3f} ({c:.3f})" for m, c in pairs]
    parts = []
    for weight_type, own in found.groupby("weight_type", sort=False):
        random = {head: f"{scale * own[f'random_{name}'].iloc[0]:.1f}" for name, (head, scale) in SHOWN.items()}
        parts += [shown.loc[own.index], pd.DataFrame([{"weights": weight_type, "method": "random matrix"} | random])]
    return pd.concat(parts).dropna(axis=1, how="all")


STUDY = Study(
    runs=load,
    scores=lambda final: final[(final["split"] == "test") & (final["main"] | (final["metric"] == "loss"))],
    cell=tuning.CELL,
    one_rate=True,
    base=True,
    measures={"ranks.csv": ranks},
    tables={"table.csv": table, "learning_rates.csv": tuning.tried},
    page=[
        "# Less memory than full fine-tuning: quality, memory, time, and the rank of the update",
        READING,
        pages.lines(method_tables.tuned, pages.head_rate),
        pages.sections(
            "## {task} ({model})",
            pages.lines(lambda data: method_tables.findings(mains(data)), memory_lines, rank_lines),
            pages.table(quality),
            pages.table(lambda data: method_tables.effort(mains(data))),
            pages.under("### The update, {task} ({model})", pages.table(layout)),
            by=PLACE,
        ),
        pages.failed_runs,
    ],
    figures={
        "memory.png": draw.memory,
        "ranks.png": update_marks.Methods(
            draw.ranks, note=f"{update_marks.SEEDS}; lines: random matrices, or directions; k: {FEW} or LoRA's rank"
        ),
    },
)

"""table.md of the study of memory methods: quality beside memory and time, and the ranks of the update."""

import pandas as pd

from analysis.kit import method_tables, tables
from analysis.kit.cells import looked_up, mean_texts
from analysis.kit.compare import METHOD, minus_texts
from analysis.kit.method_tables import TUNING, effort, findings
from analysis.kit.pages import TASK
from analysis.maths import statistics
from analysis.studies.memory_methods import ranks as memory_methods_ranks
from analysis.studies.memory_methods.ranks import MEASURES
from analysis.studies.spectrum.measures import FEW, SIDES
from analysis.studies.spectrum.tables import ENDS, place_name

GB = 1e9
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
UNTUNED = "No learning rate was tuned in this study: every method ran at the rate given here."


def report(table: pd.DataFrame, ranks: pd.DataFrame, rates: pd.DataFrame, head: str, failed: list[str]) -> str:
    """table: of `studies.memory_methods.study.tabulate`; ranks: of `studies.memory_methods.ranks.measure`, with
    `method`; `head`: a sentence on the head's learning rate."""
    found, tests = memory_methods_ranks.summary(ranks), memory_methods_ranks.tests(ranks)
    lines = ["# Less memory than full fine-tuning: quality, memory, time, and the rank of the update", "", READING, ""]
    lines += [UNTUNED if rates.empty else TUNING, head]
    for (model, task), cells in table.groupby(TASK[:2], sort=False):
        main, here = cells[cells["main"]], (found["model"] == model) & (found["task"] == task)
        lines += ["", f"## {task} ({model}, test {main['metric'].iloc[0]})", "", *findings(main), *memory_lines(main)]
        lines += rank_lines(tests[(tests["model"] == model) & (tests["task"] == task)])
        lines += ["", tables.markdown(quality(cells)), "", tables.markdown(effort(main))]
        lines += ["", f"### The update, {place_name((model, task))}", "", tables.markdown(layout(found[here]))]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def memory_lines(cells: pd.DataFrame) -> list[str]:
    """What training took by method, least first, as a markdown list item."""
    measured = cells[cells["training_memory_bytes"].notna()].sort_values("training_memory_bytes")
    if measured.empty:
        return ["- Memory of training: not measured, as the runs are older than its measurement."]
    full = measured.loc[measured["label"] == "full", "training_memory_bytes"]
    texts = []
    for name, taken in measured[["name", "training_memory_bytes"]].itertuples(index=False):
        of_full = f" ({100 * taken / full.iloc[0]:.0f}% of full)" if len(full) and name != "full" else ""
        texts.append(f"{name} {taken / GB:.2f} GB{of_full}")
    lacking = cells.loc[cells["training_memory_bytes"].isna(), "name"]
    older = f" Not measured, as the runs are older than this: {', '.join(lacking)}." if len(lacking) else ""
    return [f"- Memory of training, least first: {', '.join(texts)}.{older}"]


def rank_lines(tests: pd.DataFrame) -> list[str]:
    """Whose effective rank is told apart from that of full fine-tuning, as markdown list items."""
    if tests.empty:
        return []
    where = f"{tests['sites'].iloc[0]} matrices that all methods train ({tests['weight_types'].iloc[0]})"
    if tests["p_holm"].isna().all():
        return [f"- Effective rank of the update, at the {where}: no test, which takes two seeds that both have."]
    clear = tests["p_holm"] < 0.05
    sides = {
        "below full": clear & (tests["difference"] < 0),
        "above full": clear & (tests["difference"] > 0),
        "not told apart": ~clear,
    }
    parts = []
    for name, chosen in sides.items():
        rows = tests.loc[chosen, ["method", "difference", "interval", "p_holm"]].itertuples(index=False, name=None)
        texts = [f"{method} ({statistics.difference_text(less, wide, p, 1)})" for method, less, wide, p in rows]
        parts.append(f"{name} {', '.join(texts) or 'none'}")
    return [f"- Effective rank of the update, at the {where}: {'; '.join(parts)}."]


def quality(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a method, as text: its metric and loss, their differences to full fine-tuning, what training took."""
    rows = cells[cells["main"]]
    columns = method_tables.names(rows)
    for metric in (rows["metric"].iloc[0], "loss"):
        found = cells[cells["metric"] == metric]
        columns[f"test {metric}"] = looked_up(found, mean_texts(found), rows, METHOD)
        columns[f"{metric} minus full"] = looked_up(found, minus_texts(found, "full"), rows, METHOD)
    taken = (rows["training_memory_bytes"] / GB).map(lambda value: None if pd.isna(value) else f"{value:.2f}")
    return pd.DataFrame(
        columns | {"memory of training (GB)": taken, "training (s)": rows["train_seconds"].map("{:.0f}".format)}
    )


def layout(found: pd.DataFrame) -> pd.DataFrame:
    """A row a weight type and method, as text, and for each weight type a random matrix."""
    rows = []
    for weight_type, cells in found.groupby("weight_type", sort=False):
        for cell in cells.to_dict("records"):
            row = {"weights": weight_type, "method": cell["method"], "layers": f"{cell['layers']}"}
            row["norm, % of W's"] = f"{100 * cell['relative_norm']:.3g}"
            for name, (head, scale) in SHOWN.items():
                row[head] = statistics.mean_text(cell[name], cell[f"{name}_interval"], cell["seeds"], scale)
            for side in SIDES:
                if pd.notna(cell[f"phi_{side}"]):
                    text = f"{cell[f'phi_{side}']:.3f} ({cell[f'chance_{side}']:.3f})"
                    row[f"phi(k, k) with LoRA, {ENDS[side]}s"] = text
            rows.append(row)
        random = {head: f"{scale * cells[f'random_{name}'].iloc[0]:.1f}" for name, (head, scale) in SHOWN.items()}
        rows.append({"weights": weight_type, "method": "random matrix"} | random)
    return pd.DataFrame(rows)

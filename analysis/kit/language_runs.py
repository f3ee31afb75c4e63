"""What studies of language models read of stored runs beside the tidy table: sizes of data, demonstrations, floors."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy.special import stdtrit

from analysis.kit import naming, tables
from analysis.kit.method_tables import TASK
from experiments.records.source import Run, Runs

# A field of a Hydra override and its value, up to the next field: method.weight_types=q+v
_OVERRIDE = re.compile(r"(\S+?)=(.*?)(?=\s+[\w./]+=|$)")


class Tested(NamedTuple):
    """The test split of a task: inputs, their number, and majority, the share of the commonest reference: what an
    answer that is always the same reaches where the task is classification."""

    inputs: int
    majority: float


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The frame of `kit.tables.load_runs`, arranged, with DETAILS.

    train_examples: how many a run was given, all_examples: there were no more, epochs, and shots: demonstrations in the
    prompt (0 where a task knows none). Raises InputError as `load_runs`.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    return tables.with_details(runs, study_dir, runs_dir, _DETAILS)


def _has_all(run: Run) -> bool:
    asked = run.config["task"].get("train_examples")
    return asked is None or asked > int(run.metrics["train_examples"])


_DETAILS: dict[str, Callable[[Run], Any]] = {
    "train_examples": lambda run: int(run.metrics["train_examples"]),
    "all_examples": _has_all,
    "epochs": lambda run: int(run.config["training"]["epochs"]),
    "shots": lambda run: run.config["task"].get("shots") or 0,
}
DETAILS = list(_DETAILS)


def final_scores(runs: pd.DataFrame) -> pd.DataFrame:
    """Test scores of the study's own runs, a row a run and metric. The loss is left out: it is no share."""
    final = tables.in_role(runs, "study")
    return final[(final["split"] == "test") & (final["metric"] != "loss")]


def with_setting(runs: pd.DataFrame, added: pd.Series) -> pd.DataFrame:
    """runs with `added` (a text a row, `n=100`) after the settings: methods that differ in it alone become two."""
    pairs = zip(runs["settings"], added, strict=True)
    return runs.assign(settings=[", ".join(filter(None, pair)) for pair in pairs])


def line_names(table: pd.DataFrame) -> pd.Series:
    """A method's name in a figure: its label, and its settings where the label has several."""
    several = table.groupby("label")["settings"].transform("nunique") > 1
    names = zip(table["label"], table["settings"].where(several, ""), strict=True)
    return pd.Series([naming.title(*name) for name in names], table.index)


def tested(scores: pd.DataFrame, runs_dir: Path, study_dir: Path) -> dict[tuple[str, str], Tested]:
    """By model and task what the runs were tested on. Raises InputError if a run has no readable predictions."""
    stored, found = Runs(study_dir, runs_dir), {}
    for (model, task), runs in scores.groupby(["model", "task"], sort=False):
        predictions = stored[runs["run_id"].iloc[0]].predictions
        found[str(model), str(task)] = Tested(predictions.inputs, predictions.majority)
    return found


def choices(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Model and task of those whose score is the share of right choices, so that always giving one has a score."""
    chosen = table[table["metric"] == "accuracy"][["model", "task"]].drop_duplicates()
    return list(chosen.itertuples(index=False, name=None))


def caution(n: pd.Series, data: Sequence[Tested]) -> str:
    """What `n` seeds a method and so many test inputs can say, and what they cannot, as a paragraph."""
    least, most = int(n.min()), int(n.max())
    said = [f"Seeds a method: {least if least == most else f'{least} to {most}'}."]
    if least == 1:
        said.append("Where there is one, nothing tells its difference to another from chance.")
    for seeds in range(max(least, 2), min(most, 4) + 1):
        reach = stdtrit(seeds - 1, 0.975)
        said.append(f"With {seeds}, a 95% interval reaches {reach:.1f} standard errors to each side (with many, 2.0).")
    if least <= 2 <= most:
        said.append(
            "With 2, an interval is narrow where two scores, and p is small where two differences, happen to be alike, "
            "be they large or not."
        )
    if most > 1:
        said.append(
            "A difference that is not told apart may be there all the same, and means that are a few points apart may "
            "come in another order with other seeds."
        )
    sizes = sorted({part.inputs for part in data})
    errors = " or ".join(f"{50 / size**0.5:.1f}" for size in sizes)
    said.append(
        f"All runs of a task are tested on the same {' or '.join(map(str, sizes))} inputs: as an estimate for other "
        f"inputs, a score has a further standard error of up to {errors} points, which no interval here holds."
    )
    return textwrap.fill(" ".join(said), 119)


def report(
    heading: str,
    table: pd.DataFrame,
    data: Mapping[tuple[str, str], Tested],
    failed: list[str],
    section: Callable[[pd.DataFrame], list[str]],
    beside: str = "",
) -> str:
    """table.md of a study of one metric a task: heading, what so many seeds can tell, the lines of `section` for the
    rows of each task, and the failed runs. beside: what a task's own heading ends with; data: of `tested`."""
    lines = [heading, "", caution(table["n"], list(data.values()))]
    for (model, task, metric), cells in table.groupby(TASK, sort=False):
        lines += ["", f"## {task} ({model}, test {metric}){beside}", ""]
        if (model, task) in choices(cells):
            lines += [f"- Always the commonest answer: {100 * data[str(model), str(task)].majority:.1f}."]
        lines += section(cells)
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def failures(study_dir: Path, failed: pd.DataFrame) -> list[str]:
    """Markdown list items for the runs that failed: those that fail alike are one item, which names method, tasks and
    seeds. failed is of `kit.tables.load_failed`, for runs that failed while they trained."""
    alike: dict[tuple[str, str], list[dict[str, str]]] = {}
    others = []
    for run_id, error in tables.read_sweep(study_dir).failed:
        fields = dict(_OVERRIDE.findall(run_id))  # a run that could not begin is listed by its overrides
        if "method" in fields:
            settings = [f"{key[7:]}={value}" for key, value in fields.items() if key.startswith("method.")]
            alike.setdefault((naming.title(fields["method"], ", ".join(settings)), error), []).append(fields)
        else:
            others.append((run_id, error))
    lines = []
    for (name, error), runs in alike.items():
        tasks, seeds = (", ".join(dict.fromkeys(run[key] for run in runs if key in run)) for key in ("task", "seed"))
        where = f" on {tasks}" if tasks else ""
        where += f" (seed{'s' if ',' in seeds else ''} {seeds})" if seeds else ""
        lines.append(f"- **{name}**{where} is not in the results: {' '.join(error.split())}.")
    return lines + tables.failure_lines(others, failed)

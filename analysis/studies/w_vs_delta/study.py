"""Are the directions of delta_w among the top directions of W: the paper's Figure 8."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.kit import measured, table_md, tables
from analysis.studies.w_vs_delta import measures as w_vs_delta
from analysis.studies.w_vs_delta.figures import draw_curves, draw_maps
from analysis.studies.w_vs_delta.tables import by_rank, shown, verdict
from analysis.weights import update_runs
from analysis.weights.comparison import Place
from analysis.weights.update_runs import PLACE
from experiments.progress import report as say

BASE = True  # reads the pretrained weights
SHAPE = ["dim", "r", "many"]
MEASURED = ("phi.csv", "curves.csv", "chance.csv", "maps*.csv")
DIGITS = 4  # of what figures alone need
READING = """\
phi(W, delta_w, i, j) is the share of delta_w's top-j directions that lies in the top-i of W (or the reverse, if i < j),
from 0 to 1; between random directions it is max(i, j) / dimension. delta_w's directions are its right singular vectors
(inputs) or its left ones (outputs); fig8 is made from A, as in the paper, fig8_B from B. At j = r these span the same
space as delta_w's. i = top 10% is the range of the paper's figure. Above and below chance: outside the interval that
holds 95% of draws of random directions, as 1 in 40 is by chance on either side. Means are over layers and seeds, `(a to
b)` is from the smallest layer to the largest. fig8 is the mean over seeds, its random directions are one draw.
{precision}"""


def build(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Measures what is lacking in phi.csv (some i and j of every run and site), and with it curves.csv, chance.csv and
    maps….csv. Writes runs.csv, table.csv, table.md, and the figures from them: fig8… for each place, in four versions,
    and curves.png. Returns their paths.

    base: as of `weights.update_runs.trained`. Raises InputError as that and `load` there, if an update is zero or not
    of LoRA, and if runs of one rank and seed differ in other settings.
    """
    runs = update_runs.load(study_dir, runs_dir)
    each = update_runs.of_each(runs)
    tables.check_seeds(each, ["model", "task", "r"], study_dir)
    stored = measure(runs, each, study_dir, runs_dir, base)
    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    rows = stored.entries.frame.merge(stored.chance.frame, how="left")
    table = by_rank(rows)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.4f")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    text = report(rows, table, update_runs.quality(runs), update_runs.precision_note(runs), failed)
    table_md.write(outputs["table.md"], text, runs)
    return [*outputs.values(), *stored.paths, *figures(stored, each, study_dir)]


class Stored(NamedTuple):
    """The files of `studies.w_vs_delta.measures.Measures`: that of maps by place."""

    entries: measured.Rows
    curves: measured.Rows
    chance: measured.Rows
    maps: dict[Place, measured.Rows]

    @property
    def paths(self) -> list[Path]:
        """Those that are there."""
        files = [self.entries, self.curves, self.chance, *self.maps.values()]
        return [file.path for file in files if file.path.is_file()]


def measure(runs: pd.DataFrame, each: pd.DataFrame, study_dir: Path, runs_dir: Path, base: str | None) -> Stored:
    """The measured files, complete but for what figures alone need of runs whose adapters are gone."""
    places = [Place(*map(str, key)) for key in each[PLACE].drop_duplicates().itertuples(index=False)]
    of = {place: each.loc[(each[PLACE] == list(place)).all(axis=1), "run_id"] for place in places}
    stored = Stored(
        measured.Rows(study_dir / "phi.csv", ["run_id"], measured.ids(each["run_id"])),
        measured.Rows(study_dir / "curves.csv", ["run_id"], measured.ids(each["run_id"])),
        measured.Rows(study_dir / "chance.csv", SHAPE),
        {
            place: measured.Rows(study_dir / f"maps{place.suffix(places)}.csv", ["run_id"], measured.ids(of[place]))
            for place in places
        },
    )
    drawn = [run_id for file in (stored.curves, *stored.maps.values()) for (run_id,) in file.missing]
    chosen = {run_id for (run_id,) in stored.entries.missing}
    chosen |= {run_id for run_id in drawn if (runs_dir / run_id / "adapter").is_dir()}
    if chosen:
        found = w_vs_delta.measure(update_runs.trained(runs, chosen, study_dir, runs_dir, base))
        stored.entries.add(found.entries)
        stored.curves.add(found.curves, DIGITS)
        for file in stored.maps.values():
            file.add(found.maps, DIGITS)
    for shape in stored.entries.frame[SHAPE].drop_duplicates().itertuples(index=False):
        if not (stored.chance.frame[SHAPE] == list(shape)).all(axis=1).any():
            stored.chance.add(w_vs_delta.chance(*map(int, shape)))
    return stored


def figures(stored: Stored, each: pd.DataFrame, study_dir: Path) -> list[Path]:
    """The figures, drawn from what is stored. One that needs what was not kept of runs whose adapters are gone stays as
    it was drawn from them."""
    paths, kept = [], list[Path]()
    places = list(stored.maps)
    for place, maps in stored.maps.items():
        if maps.missing:
            kept += sorted(study_dir.glob(f"fig8*{place.suffix(places)}.png"))
        else:
            paths += draw_maps(maps.frame, place, place.suffix(places), study_dir)
    path = study_dir / "curves.png"
    if stored.curves.missing:
        kept += [path] * path.is_file()
    else:
        paths.append(draw_curves(stored.curves.frame, stored.chance.frame, path))
    if kept:
        say(f"{study_dir}: kept as drawn, for what they show was not stored: {', '.join(path.name for path in kept)}")
    return [*paths, *kept]


def report(rows: pd.DataFrame, table: pd.DataFrame, quality: pd.DataFrame, precision: str, failed: list[str]) -> str:
    """table.md: verdicts, the numbers by place, and the runs."""
    lines = ["# Directions of W and of delta_w (the paper's Figure 8)", "", READING.format(precision=precision)]
    lines += ["", "## What the runs say", "", *verdict(rows)]
    for (model, task), cells in table.groupby(["model", "task"], sort=False):
        lines += ["", f"## {task} ({model}): j = r", "", tables.markdown(shown(cells))]
    lines += ["", "## Runs", "", tables.markdown(quality)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"

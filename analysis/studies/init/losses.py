"""What is measured on runs from each start: training losses, of their histories, and entries of A and B, of adapters.

Both are kept in files beside the study's tables, from which the tables are made where histories or adapters are gone.
"""

from pathlib import Path

import pandas as pd

from analysis.kit.data import Data
from analysis.kit.measured import Rows, ids
from experiments.records.source import Run, Runs
from experiments.records.sweep import make_command
from lora import io
from lora.config import InputError

CELL = ["model", "task", "metric", "init", "lr"]
SMOOTHING = 10  # curves are means over 1/10 of the steps
LAST = 10  # the final training loss is that of the last 1/10 of the steps
LOSSES, CURVES, ENTRIES = "losses.csv", "loss_curves.csv", "saddle.csv"


def ends(data: Data) -> pd.DataFrame:
    """Of each start the ends of the training loss, means over seeds: CELL, first_loss, final_loss, and runs: their ids,
    joined by +. Written into the study's folder, as `curves`.

    Measured on the histories if every run has one; otherwise as they were written, if that was of the same runs. Raises
    InputError if it was not, or a history is damaged.
    """
    return data.once(_losses)[0]


def curves(data: Data) -> pd.DataFrame:
    """Of each start the curve of the training loss, smoothed: CELL, step, mean, low, high over seeds."""
    return data.once(_losses)[1]


def own(data: Data) -> pd.DataFrame:
    """The main rows of the study's own runs, one a run."""
    return data.final[data.final["main"]].drop_duplicates("run_id")


def _losses(data: Data) -> tuple[pd.DataFrame, pd.DataFrame]:
    runs, stored = own(data), Runs(data.folder, data.runs_dir)
    paths = data.folder / LOSSES, data.folder / CURVES
    members = runs.groupby(CELL, sort=False)["run_id"].agg(lambda ids: "+".join(sorted(ids))).rename("runs")
    found = [stored[run_id] for run_id in runs["run_id"]]
    lacking = [run for run in found if not run.has_history]
    if lacking:
        return _written(members.reset_index(), *paths, lacking)
    steps = _steps(runs, found, data.folder)
    each = steps.groupby([*CELL, "seed"], sort=False)["loss"]
    both = pd.DataFrame({"first_loss": each.first(), "final_loss": each.agg(_end)})
    table = both.groupby(CELL, sort=False).mean().reset_index().merge(members.reset_index(), on=CELL)
    lines = _curves(steps)
    table.to_csv(paths[0], index=False)
    lines.to_csv(paths[1], index=False, float_format="%.5g")
    return table, lines


def _written(members: pd.DataFrame, table: Path, curves: Path, lacking: list[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    advice = f"`{make_command(table.parent)}` trains them again once they are deleted"
    try:
        ends, lines = pd.read_csv(table), pd.read_csv(curves)
        known = members.merge(ends, on=[*CELL, "runs"]).merge(lines[CELL].drop_duplicates(), on=CELL)
        ends, lines = known[[*CELL, "first_loss", "final_loss", "runs"]], lines[[*CELL, "step", "mean", "low", "high"]]
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"run {lacking[0].run_id} (of {len(lacking)}) has no history here, and {table} or {curves.name}, where its "
            f"losses were kept, is missing or damaged ({reason}); {advice}"
        ) from error
    if len(known) < len(members):
        raise InputError(
            f"run {lacking[0].run_id} (of {len(lacking)}) has no history here, and {table} is not of the same runs; "
            f"{advice}"
        )
    return ends, lines.merge(members[CELL], on=CELL)


def _steps(runs: pd.DataFrame, found: list[Run], study_dir: Path) -> pd.DataFrame:
    """Training losses of all runs: CELL, seed, step (from 1), loss."""
    frames = []
    for about, run in zip(runs[[*CELL, "seed"]].to_dict("records"), found, strict=True):
        history = run.history()
        try:
            rows = pd.DataFrame(history)
            rows = rows[rows["split"] == "train"][["step", "loss"]].astype({"step": int, "loss": float})
            if rows.empty:
                raise ValueError("it has no training step")
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{run.place / 'history.csv'} is missing or damaged ({' '.join(str(error).split())}); delete its "
                f"folder, `{make_command(study_dir)}` trains the run again"
            ) from error
        frames.append(rows.assign(**{str(name): value for name, value in about.items()}))
    return pd.concat(frames, ignore_index=True)


def _end(loss: pd.Series) -> float:
    return float(loss.iloc[-max(1, len(loss) // LAST) :].mean())


def _curves(steps: pd.DataFrame) -> pd.DataFrame:
    groups = steps.groupby([*CELL, "seed"], sort=False)["loss"]
    smooth = groups.transform(lambda loss: loss.rolling(max(1, len(loss) // SMOOTHING), 1, center=True).mean())
    curves = steps.assign(loss=smooth).groupby([*CELL, "step"], sort=False)["loss"]
    return curves.agg(mean="mean", low="min", high="max").reset_index()


def entries(data: Data) -> pd.DataFrame | None:
    """The largest absolute entry of all A and B of each run of both_zero: 0 if it never left A = B = 0. None without
    such a run.

    Written into the study's folder; of a run without an adapter it is as it was written. Raises InputError if it was
    not, or an adapter is damaged.
    """
    zero = own(data).query("init == 'both_zero'")
    if zero.empty:
        return None
    stored, rows = Runs(data.folder, data.runs_dir), Rows(data.folder / ENTRIES, ["run_id"], ids(zero["run_id"]))
    here = [run_id for run_id in zero["run_id"] if stored.store.has_adapter(run_id)]
    rows.drop(here)
    missing = [run_id for (run_id,) in rows.missing]
    largest = [_largest(stored.store.folder(run_id) / "adapter") for run_id in missing]
    if missing:
        rows.add(pd.DataFrame({"run_id": missing, "largest_entry": largest}), 17)
    return rows.frame


def _largest(adapter_dir: Path) -> float:
    adapter = io.read(adapter_dir)
    return max(matrix.abs().max().item() for target in adapter.targets for matrix in adapter.matrices(target))

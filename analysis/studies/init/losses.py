"""What is measured on runs from each start: training losses, of their histories, and entries of A and B, of adapters.

Both are kept in files beside the study's tables, from which the tables are made where histories or adapters are gone.
"""

from pathlib import Path

import pandas as pd

from experiments.records.source import Run, Runs
from experiments.records.sweep import make_command
from lora import io
from lora.config import InputError

CELL = ["model", "task", "metric", "init", "lr"]
SMOOTHING = 10  # curves are means over 1/10 of the steps
LAST = 10  # the final training loss is that of the last 1/10 of the steps
LOSSES, CURVES, ENTRIES = "losses.csv", "loss_curves.csv", "saddle.csv"


def losses(runs: pd.DataFrame, stored: Runs, study_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of each start the training loss: its ends (CELL, first_loss, final_loss, and runs: their ids, joined by +), means
    over seeds, and its curve (CELL, step, mean, low, high over seeds), smoothed. Both are written into study_dir.

    runs: a row a run, CELL, run_id and seed. Measured on the histories if every run has one; otherwise as they were
    written, if that was of the same runs. Raises InputError if it was not, or a history is damaged.
    """
    paths = study_dir / LOSSES, study_dir / CURVES
    members = (
        runs.groupby(CELL, sort=False)["run_id"].agg(lambda ids: "+".join(sorted(ids))).rename("runs").reset_index()
    )
    found = [stored[run_id] for run_id in runs["run_id"]]
    if not all(run.has_history for run in found):
        return _written(members, *paths, [run for run in found if not run.has_history])
    steps = _steps(runs, found, study_dir)
    each = steps.groupby([*CELL, "seed"], sort=False)["loss"]
    ends = pd.DataFrame({"first_loss": each.first(), "final_loss": each.agg(_end)})
    table = ends.groupby(CELL, sort=False).mean().reset_index().merge(members, on=CELL)
    curves = _curves(steps)
    table.to_csv(paths[0], index=False)
    curves.to_csv(paths[1], index=False, float_format="%.5g")
    return table, curves


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


def largest_entries(runs: pd.DataFrame, stored: Runs, study_dir: Path) -> pd.Series:
    """The largest absolute entry of all A and B of each run, in the order of `runs`: 0 if it never left A = B = 0.

    Written into study_dir; of a run without an adapter it is as it was written. Raises InputError if it was not, or an
    adapter is damaged.
    """
    path = study_dir / ENTRIES
    try:
        known = dict(pd.read_csv(path)[["run_id", "largest_entry"]].itertuples(index=False, name=None))
    except FileNotFoundError:
        known = {}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}); delete it") from error
    found = []
    for run_id in runs["run_id"]:
        if stored.store.has_adapter(run_id) or run_id not in known:
            found.append(_largest(stored.store.folder(run_id) / "adapter"))
        else:
            found.append(float(known[run_id]))
    table = runs[["run_id"]].assign(largest_entry=pd.Series(found, runs.index, dtype=float))
    if found:
        table.to_csv(path, index=False)
    return table["largest_entry"]


def _largest(adapter_dir: Path) -> float:
    adapter = io.read(adapter_dir)
    return max(matrix.abs().max().item() for target in adapter.targets for matrix in adapter.matrices(target))

"""The tables of the study folders as claims read them: columns checked, numbers where numbers must be."""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from analysis.claims import kept
from analysis.kit import tables
from analysis.kit.updates import EPSILONS, SIDES
from lora.config import InputError

_RUN = ("run_id", "model", "task", "method", "weight_types", "split", "metric", "role")
_RUN_NUMBERS = (
    "r", "alpha", "lr", "seed", "trainable_params", "value", "tokens_per_second", "peak_memory_bytes",
)  # fmt: skip
_INTRUDERS = tuple(
    f"{name}_{side}_{epsilon}" for name in ("intruders", "random") for side in SIDES for epsilon in EPSILONS
)
# file, as a pattern below results/<preset> -> columns of text, columns of numbers
COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "weight_types/runs.csv": (_RUN, (*_RUN_NUMBERS, "budget")),
    "qlora/runs.csv": ((*_RUN, "quantization"), _RUN_NUMBERS),
    "table8/runs.csv": (_RUN, (*_RUN_NUMBERS, "train_examples", "shots")),
    "rank_data/runs.csv": (_RUN, (*_RUN_NUMBERS, "train_examples")),
    "table16/runs.csv": (_RUN, (*_RUN_NUMBERS, "train_examples", "shots")),
    "*/runs.csv": (_RUN, _RUN_NUMBERS),
    "alpha/table.csv": (("model", "task", "kind"), ("r", "alpha", "lr")),
    "init/table.csv": (("model", "task", "init"), ("n", "largest_entry")),
    "latency/trials.csv": (
        ("model", "contender"),
        ("batch", "length", "bottleneck", "round", "seconds"),
    ),
    "amplification/amplification.csv": (
        ("model", "task", "run_id", "layer", "weight_type"),
        ("seed", "r", "norm_delta_w", "projection_delta_w", "projection_w", "projection_random"),
    ),
    "w_vs_delta/phi.csv": (
        ("model", "task", "run_id", "layer", "weight_type", "side", "top"),
        ("seed", "r", "j", "phi"),
    ),
    "spectrum/ranks.csv": (
        ("model", "task", "run_id", "label", "method", "layer", "weight_type"),
        ("seed", "r", "effective_rank", *_INTRUDERS),
    ),
    "spectrum/overlap.csv": (
        ("run_id", "layer", "side"),
        ("k", "phi", "chance_mean"),
    ),
    "truncation/truncation.csv": (
        ("model", "task", "run_id", "method", "split", "metric"),
        ("seed", "k", "value"),
    ),
    "forgetting/forgetting.csv": (
        ("model", "task", "run_id", "label", "text"),
        ("seed", "loss_before", "loss_after"),
    ),
    "memory/measured.csv": (
        ("model", "method", "checkpointing", "quantization", "state_precision"),
        ("batch", "length", "measured_peak"),
    ),
    "memory/plans.csv": (("model", "title", "checkpointing"), ("batch", "length", "total_params", "peak")),
    "memory/options.csv": (("model", "option"), ("round", "seconds")),
    "advice-study/regret.csv": (("model", "task", "contender", "run_id"), ("seed", "regret")),
    "subspace/phi_gaussian.csv": ((), ("dim", "r_a", "r_b", "i", "j", "mean")),
    "subspace/phi_*.csv": (
        ("run_id", "other_run_id", "model", "task", "weight_type", "layer", "side"),
        ("dim", "i", "j1"),
    ),
}
# A rank or an alpha may be a mapping from weight types, which is no number.
_PERHAPS = ("r", "alpha")


def read(folder: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The files that are there of `names`, study/file.csv below `folder` = results/<preset>, by their names.

    A name may be a pattern: its files are one frame. Runs get the columns label and settings, where a study that is of
    LoRA alone has none, and those of `claims.kept`. Raises InputError if a file is damaged or lacks a column.
    """
    frames = {}
    for name in names:
        parts = [_read(path, name) for path in sorted(folder.glob(name))]
        if parts:
            frames[name] = pd.concat(parts, ignore_index=True)
    return frames


def _read(path: Path, name: str) -> pd.DataFrame:
    texts, numbers = next(columns for pattern, columns in COLUMNS.items() if fnmatch(name, pattern))
    advice = f"delete it, `{tables.make_command(path.parent)}` writes it anew"
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys([*texts, "model", "label", "settings"], str))
        missing = [column for column in (*texts, *numbers) if column not in frame]
        if missing:
            raise InputError(f"{path} has no column {', '.join(missing)}, which claims are judged by; {advice}")
        for column in numbers:
            frame[column] = pd.to_numeric(frame[column], errors="coerce" if column in _PERHAPS else "raise")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}); {advice}") from error
    if texts[: len(_RUN)] != _RUN:
        return frame
    found = kept.read(path.parent, path.parents[2] / "runs", frame["run_id"].unique())
    return _named(frame.merge(found, on="run_id", how="left"))


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """runs with label and settings, and no settings that are not there."""
    if "label" not in runs:
        runs = runs.assign(label=runs["method"], settings=runs["r"].map("r={:g}, ".format) + runs["weight_types"])
    return runs.assign(settings=runs["settings"].fillna(""), weight_types=runs["weight_types"].fillna(""))

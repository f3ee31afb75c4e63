"""What the files that the spectrum study measures have in them."""

from __future__ import annotations

from analysis.kit.updates import EPSILONS, SIDES, TOP
from experiments.csv_schema import Column, Schema

ENERGIES = (50, 90, 99)  # percent of the squared norm
OF = {"intruders": "W + delta_w", "random": "W + an update of the same singular values in random directions"}
_SITE = (Column("layer", int, "number of a layer, from 0"), Column("weight_type", str, "q, k, v, o, up, gate or down"))
_PAIR = (
    Column("run_id", str, "the run, as in results/runs"),
    Column("other_run_id", str, "the run that it is compared with"),
    *_SITE,
    Column("side", str, "of singular vectors: right (inputs) or left (outputs)"),
    Column("k", int, "directions of each that are compared, the top ones"),
)


def _schema(name: str, row: str, key: tuple[str, ...], *columns: Column) -> Schema:
    return Schema("spectrum", f"{name}.csv", row, key, "make spectrum", columns)


RANKS = _schema(
    "ranks", "the update of a run at a weight", ("run_id", "layer", "weight_type"),
    Column("model", str, "model.name"),
    Column("task", str, "task.name"),
    Column("run_id", str, "the run, as in results/runs"),
    Column("label", str, "the method's name, variants of LoRA told apart"),
    Column("settings", str, "the method's other settings in short"),
    Column("r", str, "method.r; empty of full fine-tuning"),
    Column("seed", int, "seed of the run"),
    *_SITE,
    Column("norm_w", float, "Frobenius norm of W"),
    Column("norm_delta_w", float, "Frobenius norm of delta_w"),
    Column("stable_rank", float, "squared Frobenius norm by squared spectral norm of delta_w"),
    Column("effective_rank", float, "exp of the entropy of delta_w's singular values as shares"),
    *(Column(f"rank_{share}", int, f"directions that have {share}% of delta_w's squared norm") for share in ENERGIES),
    *(
        Column(f"{name}_{side}_{epsilon}", int, f"of {TOP} top {side} singular vectors of {what}, those whose |cosine| "
               f"with each of W's is below {epsilon}")
        for name, what in OF.items() for side in SIDES for epsilon in EPSILONS
    ),
    Column("method", str, "short name, which tells it from the others of the study"),
)  # fmt: skip
SPECTRA = _schema(
    "spectra", "a singular value", ("run_id", "layer", "weight_type", "index"),
    Column("run_id", str, "the run, or the runs, joined by +, that the value is the mean of"),
    *_SITE,
    Column("index", int, "of the singular value, from 1: two an octave, and the last"),
    Column("value", float, "as a share of the largest"),
)  # fmt: skip
ANGLES = _schema(
    "angles", "two seeds' directions at a weight", ("run_id", "other_run_id", "layer", "weight_type", "side"),
    *_PAIR,
    Column("smallest", float, "the smallest principal angle", "degrees"),
    Column("shared", float, "mean squared cosine of all principal angles, which is phi(k, k)"),
    *(
        Column(f"chance_{name}{end}", float, f"{name} between random subspaces: {what}", unit)
        for name, unit in (("smallest", "degrees"), ("shared", ""))
        for end, what in (("", "mean"), ("_low", "below it 2.5% of draws"), ("_high", "above it 2.5% of draws"))
    ),
)  # fmt: skip
OVERLAP = _schema(
    "overlap", "a run's directions and full fine-tuning's at a weight",
    ("run_id", "other_run_id", "layer", "weight_type", "side", "k"),
    *_PAIR,
    Column("phi", float, "similarity of the two subspaces, 0 to 1 (paper, equation 4)"),
    Column("chance_mean", float, "phi of random subspaces: mean"),
    Column("chance_low", float, "phi of random subspaces: below it 2.5% of draws"),
    Column("chance_high", float, "phi of random subspaces: above it 2.5% of draws"),
)  # fmt: skip
ALL = (RANKS, SPECTRA, ANGLES, OVERLAP)

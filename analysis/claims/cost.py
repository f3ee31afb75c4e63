"""Claims about what LoRA costs: the time of a forward pass, and gradients and time of training.

Replicates of a time are rounds, in each of which every contender is measured at every size of the input.
"""

import math

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames, Judge
from analysis.claims.measures import by_task, exact, ids, method, replicates, runs_of
from analysis.claims.scales import PERCENT, POINTS, TIMES

LATENCY = ("latency/trials.csv",)
CELL = ["batch", "length"]
ADAPTERS = ["adapter_h", "adapter_l"]
MARGIN = 0.02
MEASURED = (
    "Slow-downs are to the second copy, in the same round and at the same batch size and length, of adapters the mean "
    "over bottlenecks; for each round the mean over sizes."
)
SPEED = "tokens_per_second"


def _models(frames: Frames) -> dict[str, pd.DataFrame]:
    """By model the slow-downs relative to the control, a second copy of the base model: a row a round and cell, a
    column a contender. Rounds that a cell lacks do not count."""
    if LATENCY[0] not in frames:
        return {}
    found = {}
    for model, rows in frames[LATENCY[0]].groupby("model", sort=False):
        seconds = rows.pivot_table("seconds", ["round", *CELL], "contender")
        if "control" in seconds:
            slower = seconds.div(seconds["control"], axis=0) - 1
            found[str(model)] = slower.reindex(columns=["lora_merged", *ADAPTERS])
    return found


def _slower(*contenders: str) -> Judge:
    def judge(frames: Frames) -> list[Case]:
        cases = []
        for model, cells in _models(frames).items():
            by_round = cells[list(contenders)].mean(axis=1).unstack("round").dropna(axis=1).mean()
            cases += replicates("latency", model, model, by_round, "rounds")
        return cases

    return judge


def _falling(over: str, within: str) -> Judge:
    """By round the slope of the adapters' slow-down over log2 of one size of the input, at equal sizes of the other."""

    def judge(frames: Frames) -> list[Case]:
        cases = []
        for model, cells in _models(frames).items():
            slower = cells[ADAPTERS].mean(axis=1).unstack("round").dropna(axis=1)
            x = pd.Series(np.log2(slower.index.get_level_values(over)), slower.index)
            centred = x - x.groupby(level=within).transform("mean")
            if len(slower.columns) and (centred**2).sum() > 0:
                slopes = slower.mul(centred, axis=0).sum() / (centred**2).sum()
                cases += replicates("latency", model, model, slopes, "rounds")
        return cases

    return judge


def _throughput(frames: Frames) -> list[Case]:
    cases = []
    for study, where, rows in by_task(frames):
        ours, theirs = (method(rows, label) for label in ("lora", "full"))
        shares = (ours.set_index("seed")[SPEED] / theirs.set_index("seed")[SPEED]).map(math.log)
        cases += replicates(study, where, str(rows["task"].iloc[0]), shares, runs=ids(ours, theirs))
    return cases


def counted(d: int, r: int) -> tuple[int, int]:
    """Trained parameters of a (d, d) projection: with LoRA of rank r, A (r, d) and B (d, r), and in full."""
    return 2 * d * r, d * d


def _gradient_bytes(_: Frames) -> list[Case]:
    ours, theirs = counted(4096, 16)
    return [exact("", "one projection, d = 4096, r = 16", "one projection", 1 - ours / theirs, "computation")]


CLAIMS = [
    Claim(
        "merged_is_free", "Merged LoRA adds no latency: it is within 2 points of a second copy of the base model.",
        "paper, Sections 1 and 4.1", f"Slow-down of merged LoRA. {MEASURED}", LATENCY, _slower("lora_merged"),
        margin=MARGIN, low=-MARGIN, high=MARGIN,
    ),
    Claim(
        "adapters_slow_down", "Adapters add latency: more than 2 points.", "paper, Section 3, Table 1",
        f"Slow-down of adapters, the mean of Adapter_H and Adapter_L. {MEASURED}", LATENCY, _slower(*ADAPTERS),
        margin=MARGIN, low=MARGIN,
    ),
    Claim(
        "small_batches", "Adapters add most latency at small batches.", "paper, Section 3, Table 1, Figure 5",
        f"Slope of the adapters' slow-down over log2 of the batch size, at equal lengths. {MEASURED}", LATENCY,
        _falling("batch", "length"), margin=MARGIN / 2, high=0, scale=POINTS._replace(unit=" points a doubling"),
    ),
    Claim(
        "short_inputs", "Adapters add most latency at short inputs.", "paper, Section 3, Table 1, Figure 5",
        f"Slope of the adapters' slow-down over log2 of the length, at equal batch sizes. {MEASURED}", LATENCY,
        _falling("length", "batch"), margin=MARGIN / 2, high=0, scale=POINTS._replace(unit=" points a doubling"),
    ),
    Claim(
        "gradient_bytes", "LoRA has 99.2% fewer gradient bytes than full fine-tuning at d = 4096, r = 16.",
        "guides to LoRA", "1 minus LoRA's share of the trained parameters of one projection.", (), _gradient_bytes,
        margin=0, low=0.9915, high=0.9925, scale=PERCENT._replace(digits=2),
    ),
    Claim(
        "quarter_faster", "Training with LoRA is at least a quarter faster than full fine-tuning.",
        "paper, Section 4.2 (GPT-3: 25%)",
        "LoRA's tokens a second over full fine-tuning's. Geometric mean of the ratios by seed, from the runs "
        "as they were made, which is no benchmark.",
        runs_of("compare_methods", "table3", "table4", "table13", "memory_methods"), _throughput, margin=1.1, low=1.25,
        scale=TIMES,
    ),
]  # fmt: skip

"""Claims about what LoRA costs: the time of a forward pass, and gradients and time of training."""

import math

import numpy as np
import pandas as pd
from torch import nn

from analysis.claims.engine import PERCENT, TIMES, Case, Claim, Frames, Judge
from analysis.claims.measures import by_task, difference, ids, method, ratio, runs_of, slope
from lora import budget
from lora.config import LoRAConfig

LATENCY = ("latency/table.csv",)
CELL = ["batch", "length"]
ADAPTERS = ["adapter_h", "adapter_l"]
MEASURED = (
    "A cell is a batch size and a length; its slow-down is the median over rounds, for adapters the mean over "
    "bottlenecks. The interval is over cells."
)
SPEED = "tokens_per_second"


def _models(frames: Frames) -> dict[str, pd.DataFrame]:
    """By model the slow-downs: a row a cell, a column a contender."""
    if LATENCY[0] not in frames:
        return {}
    table = frames[LATENCY[0]]
    ours = table[table["source"] == "ours"]
    return {
        str(model): rows.pivot_table("slowdown_median", CELL, "contender").reindex(
            columns=["control", "lora_merged", *ADAPTERS]
        )
        for model, rows in ours.groupby("model", sort=False)
    }


def _slower(*contenders: str) -> Judge:
    def judge(frames: Frames) -> list[Case]:
        cases = []
        for model, cells in _models(frames).items():
            for name in contenders:
                place = f"{model} {name}" if len(contenders) > 1 else model
                cases += difference("latency", place, cells[name], cells["control"], (), "cells")
        return cases

    return judge


def _falling(over: str, within: str) -> Judge:
    """The slope of the adapters' slow-down over log2 of one size of the input, at equal sizes of the other."""

    def judge(frames: Frames) -> list[Case]:
        cases = []
        for model, cells in _models(frames).items():
            slowdown = cells[ADAPTERS].mean(axis=1).dropna().rename("slowdown").reset_index()
            size = np.log2(slowdown[over])
            if (slowdown.groupby(within)[over].nunique() > 1).any():
                cases.append(slope("latency", model, size, slowdown["slowdown"], slowdown[within], "cells"))
        return cases

    return judge


def _throughput(frames: Frames) -> list[Case]:
    cases = []
    for study, where, rows in by_task(frames):
        ours, theirs = (method(rows, label) for label in ("lora", "full"))
        shares = (ours.set_index("seed")[SPEED] / theirs.set_index("seed")[SPEED]).dropna()
        if len(shares):
            cases.append(ratio(study, where, shares.map(math.log), "seeds", ids(ours, theirs)))
    return cases


def counted(d: int, r: int) -> tuple[int, int]:
    """Trained parameters of a (d, d) projection: with LoRA of rank r, and in full. Nothing of that size is made."""
    model = nn.ModuleDict({"q": nn.Linear(d, d, bias=False, device="meta")})
    lora = budget.parameters(model, LoRAConfig(r=r, weight_types=(), modules=("q",)))
    return lora, sum(parameter.numel() for parameter in model.parameters())


def _gradient_bytes(_: Frames) -> list[Case]:
    ours, theirs = counted(4096, 16)
    saved = 1 - ours / theirs
    return [Case("", "one projection, d = 4096, r = 16", saved, saved, saved, 1, "computation", exact=True)]


CLAIMS = [
    Claim(
        key="merged_is_free",
        statement="Merged LoRA adds no latency: it is within 2 points of a second copy of the base model.",
        source="paper, Sections 1 and 4.1",
        statistic=f"Slow-down of merged LoRA minus that of a second copy of the base model. {MEASURED}",
        files=LATENCY,
        judge=_slower("lora_merged"),
        low=-0.02,
        high=0.02,
    ),
    Claim(
        key="adapters_slow_down",
        statement="Adapters add latency: more than 2 points.",
        source="paper, Section 3, Table 1",
        statistic=f"Slow-down of an adapter minus that of a second copy of the base model. {MEASURED}",
        files=LATENCY,
        judge=_slower(*ADAPTERS),
        low=0.02,
    ),
    Claim(
        key="small_batches",
        statement="Adapters add most latency at small batches.",
        source="paper, Section 3, Table 1, Figure 5",
        statistic=f"Slope of the adapters' slow-down over log2 of the batch size, at equal lengths. {MEASURED}",
        files=LATENCY,
        judge=_falling("batch", "length"),
        high=0,
    ),
    Claim(
        key="short_inputs",
        statement="Adapters add most latency at short inputs.",
        source="paper, Section 3, Table 1, Figure 5",
        statistic=f"Slope of the adapters' slow-down over log2 of the length, at equal batch sizes. {MEASURED}",
        files=LATENCY,
        judge=_falling("length", "batch"),
        high=0,
    ),
    Claim(
        key="gradient_bytes",
        statement="LoRA has 99.2% fewer gradient bytes than full fine-tuning at d = 4096, r = 16.",
        source="guides to LoRA",
        statistic="1 minus LoRA's share of the trained parameters of one projection, counted in a module of that size.",
        files=(),
        judge=_gradient_bytes,
        low=0.9915,
        high=0.9925,
        scale=PERCENT._replace(digits=2),
    ),
    Claim(
        key="quarter_faster",
        statement="Training with LoRA is at least a quarter faster than full fine-tuning.",
        source="paper, Section 4.2 (GPT-3: 25%)",
        statistic="LoRA's tokens a second over full fine-tuning's. Geometric mean of the ratios by seed, from the runs "
        "as they were made, which is no benchmark.",
        files=runs_of("compare_methods", "table3", "table4", "table13"),
        judge=_throughput,
        low=1.25,
        scale=TIMES,
    ),
]

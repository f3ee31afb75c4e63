"""Claims about memory: what a training step takes, fewer bits of the frozen weights, and full fine-tuning in less."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import pandas as pd

from analysis.claims.engine import PERCENT, TIMES, Case, Claim, Frames
from analysis.claims.measures import Choose, Pair, compared, mean, method, ratio, runs_of
from analysis.claims.methods import BOTH, POINT, minus

MEASURED, PLANS, OPTIONS = "memory/measured.csv", "memory/plans.csv", "memory/options.csv"
SIZE = ["batch", "length", "checkpointing"]


def _third(frames: Frames) -> list[Case]:
    """LoRA's share of full fine-tuning's peak: measured, over sizes of the input, and planned, with AMP."""
    cases = []
    if MEASURED in frames:
        steps = frames[MEASURED]
        steps = steps[steps["quantization"].isna() & steps["state_precision"].isna()]
        logs = np.log(steps["measured_peak"]).groupby([steps[name] for name in ["model", "method", *SIZE]]).mean()
        shares = (logs.unstack("method").reindex(columns=["lora", "full"]) @ [1, -1]).dropna()
        cases += [
            ratio("memory", f"{model}, measured", own, "sizes") for model, own in shares.groupby("model", sort=False)
        ]
    if PLANS in frames:
        plans = frames[PLANS].pivot_table("peak", ["model", *SIZE], "title", sort=False)
        for key, own in plans.reindex(columns=["LoRA", "full, AMP"]).dropna().iterrows():
            model, batch, length, again = cast(tuple[str, int, int, str], key)
            share = own["LoRA"] / own["full, AMP"]
            where = (
                f"{model}, planned, {batch} × {length}, activations {'computed again' if again == 'True' else 'kept'}"
            )
            cases.append(Case("memory", where, share, share, share, 1, "plan", exact=True))
    return cases


def _slowed(frames: Frames) -> list[Case]:
    if OPTIONS not in frames:
        return []
    cases = []
    for model, own in frames[OPTIONS].groupby("model", sort=False):
        seconds = own.pivot(index="round", columns="option", values="seconds")
        cases.append(mean("memory", str(model), seconds["checkpointing"] / seconds["none"] - 1, "rounds"))
    return cases


def _in_bits(kind: str) -> Choose:
    def choose(rows: pd.DataFrame) -> Iterator[Pair]:
        few, exact = (rows[rows["quantization"] == bits] for bits in (kind, "none"))
        yield Pair(method(few, "lora"), method(exact, "lora"))

    return choose


def _loftq(rows: pd.DataFrame) -> Iterator[Pair]:
    for r, own in rows[rows["quantization"] == "int2"].groupby("r"):
        yield Pair(method(own, "loftq"), method(own, "lora"), f"r = {r:g}")


CLAIMS = [
    Claim(
        key="third_of_memory",
        statement="Training with LoRA takes a third of the memory of full fine-tuning, or less.",
        source="paper, Section 4.2 (GPT-3: 350 GB instead of 1.2 TB)",
        statistic="LoRA's peak of a training step over full fine-tuning's: as torch's allocator has it, the geometric "
        "mean over ranks and weight types, then over sizes of the input with activations kept and computed again; and "
        "as planned for a GPU, LoRA on frozen 16-bit weights against AMP with fp32 copies.",
        files=(MEASURED, PLANS),
        judge=_third,
        high=1 / 3,
        scale=TIMES,
    ),
    Claim(
        key="checkpointing_a_third",
        statement="Computing activations again takes a third more time: a fifth to a half.",
        source="guides, after Chen et al. (arXiv 1604.06174): one more forward pass",
        statistic="Seconds of a step of full fine-tuning with activations computed again over those of one that keeps "
        "them, less 1, in the same round.",
        files=(OPTIONS,),
        judge=_slowed,
        low=0.2,
        high=0.5,
        scale=PERCENT,
    ),
    Claim(
        key="four_bits_suffice",
        statement="LoRA on 4-bit weights loses nothing: it is at most a point below 16 bits.",
        source="QLoRA (arXiv 2305.14314)",
        statistic=f"LoRA on NF4 weights minus LoRA on weights that are not quantised. {BOTH}",
        files=runs_of("qlora"),
        judge=compared(_in_bits("nf4")),
        low=-POINT,
    ),
    Claim(
        key="two_bits_lose",
        statement="LoRA on 2-bit weights is worse than on 16 bits.",
        source="LoftQ (arXiv 2310.08659)",
        statistic=f"LoRA on 2-bit weights minus LoRA on weights that are not quantised. {BOTH}",
        files=runs_of("qlora"),
        judge=compared(_in_bits("int2")),
        high=0,
    ),
    Claim(
        key="loftq_better",
        statement="On 2-bit weights LoftQ's start is better than the usual one.",
        source="LoftQ (arXiv 2310.08659)",
        statistic="LoftQ's start minus the usual one, at the same rank; test scores, paired by seed.",
        files=runs_of("qlora"),
        judge=compared(_loftq),
        low=0,
    ),
    *(
        Claim(
            key=f"{label}_as_full",
            statement=f"{name} matches full fine-tuning with AdamW: it is at most a point below.",
            source=f"{name} (arXiv {number})",
            statistic=f"{name} minus full fine-tuning with AdamW. {BOTH}",
            files=runs_of("memory_methods"),
            judge=compared(minus(label, "full")),
            low=-POINT,
        )
        for label, name, number in (("galore", "GaLore", "2403.03507"), ("badam", "BAdam", "2404.02827"))
    ),
]

"""Claims about memory: what a training step takes, fewer bits of the frozen weights, and full fine-tuning in less."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames, Judge
from analysis.claims.measures import exact, method, replicates, runs_of
from analysis.claims.methods import minus
from analysis.claims.pairs import BOTH, BOTH_LOSS, Choose, Pair, of_losses, of_scores
from analysis.claims.scales import PERCENT, TIMES

MEASURED, PLANS, OPTIONS = "memory/measured.csv", "memory/plans.csv", "memory/options.csv"
SIZE = ["batch", "length", "checkpointing"]
LARGE = 1e9  # parameters from which a model is called large


def _measured(frames: Frames) -> list[Case]:
    """LoRA's share of full fine-tuning's peak as torch's allocator has it: geometric means over ranks, weight types and
    sizes of the input."""
    if MEASURED not in frames:
        return []
    steps = frames[MEASURED]
    steps = steps[steps["quantization"].isna() & steps["state_precision"].isna()]
    logs = np.log(steps["measured_peak"]).groupby([steps[name] for name in ["model", "method", *SIZE]]).mean()
    shares = (logs.unstack("method").reindex(columns=["lora", "full"]) @ [1, -1]).dropna()
    return [
        exact("memory", f"{model}, {len(own)} sizes", str(model), float(own.mean()), "sizes")
        for model, own in shares.groupby("model", sort=False)
    ]


def _planned(large: bool) -> Judge:
    """The same as planned for a GPU: LoRA on frozen 16-bit weights against AMP with fp32 copies."""

    def judge(frames: Frames) -> list[Case]:
        if PLANS not in frames:
            return []
        rows = frames[PLANS]
        rows = rows[rows.groupby("model")["total_params"].transform("max").ge(LARGE) == large]
        peaks = rows.pivot_table("peak", ["model", *SIZE], "title", sort=False)
        if not {"LoRA", "full, AMP"} <= set(peaks):
            return []
        shares = (peaks["LoRA"] / peaks["full, AMP"]).dropna().map(math.log)
        return [
            exact("memory", f"{model}, {len(own)} plans", str(model), float(own.mean()), "plans")
            for model, own in shares.groupby("model", sort=False)
        ]

    return judge


def _slowed(frames: Frames) -> list[Case]:
    if OPTIONS not in frames:
        return []
    cases = []
    for model, own in frames[OPTIONS].groupby("model", sort=False):
        seconds = own.pivot(index="round", columns="option", values="seconds")
        share = seconds["checkpointing"] / seconds["none"] - 1
        cases += replicates("memory", str(model), str(model), share, "rounds")
    return cases


def _in_bits(kind: str) -> Choose:
    def choose(rows: pd.DataFrame) -> Iterator[Pair]:
        few, whole = (rows[rows["quantization"] == bits] for bits in (kind, "none"))
        yield Pair(method(few, "lora"), method(whole, "lora"))

    return choose


def _loftq(rows: pd.DataFrame) -> Iterator[Pair]:
    for r, own in rows[rows["quantization"] == "int2"].groupby("r"):
        yield Pair(method(own, "loftq"), method(own, "lora"), f"r = {r:g}")


def _both(
    key: str, statement: str, source: str, compares: str, study: str, choose: Choose,
    low: float = -np.inf, high: float = np.inf,
) -> list[Claim]:  # fmt: skip
    """The claim of classifiers, by scores, and of language models, by the test loss."""
    text, files = f"Where text is written: {statement.replace('a point', '2% of the perplexity')}", runs_of(study)
    return [
        of_scores(key, statement, source, f"{compares} {BOTH}", files, choose, low=low, high=high),
        of_losses(f"{key}_text", text, source, f"{compares} {BOTH_LOSS}", files, choose, low=low, high=high),
    ]


_FORMS = (
    "LoRA's peak of a training step over full fine-tuning's, geometric means over sizes of the input, with activations "
    "kept and computed again"
)

CLAIMS = [
    *(
        Claim(
            f"third_of_memory_{key}",
            f"Training with LoRA takes a third of the memory of full fine-tuning, or less, {where}.",
            "paper, Section 4.2 (GPT-3: 350 GB instead of 1.2 TB)", f"{_FORMS}{how}.", (file,), judge,
            margin=1, high=1 / 3, scale=TIMES,
        )
        for key, where, how, file, judge in (
            ("large", "with a billion parameters or more", ", as planned for a GPU", PLANS, _planned(large=True)),
            ("small", "with fewer than a billion", ", as planned for a GPU", PLANS, _planned(large=False)),
            ("measured", "of small models on a CPU", ", as torch's allocator has it", MEASURED, _measured),
        )
    ),
    Claim(
        "checkpointing_a_third", "Computing activations again takes a third more time: a fifth to a half.",
        "guides, after Chen et al. (arXiv 1604.06174): one more forward pass",
        "Seconds of a step of full fine-tuning with activations computed again over those of one that keeps "
        "them, less 1, in the same round.", (OPTIONS,), _slowed, margin=0.1, low=0.2, high=0.5, scale=PERCENT,
    ),
    *_both(
        "four_bits_suffice", "LoRA on 4-bit weights loses nothing: it is at most a point below 16 bits.",
        "QLoRA (arXiv 2305.14314)", "LoRA on NF4 weights minus LoRA on weights that are not quantised.", "qlora",
        _in_bits("nf4"), low=-1,
    ),
    *_both(
        "two_bits_lose", "LoRA on 2-bit weights is worse than on 16 bits.", "LoftQ (arXiv 2310.08659)",
        "LoRA on 2-bit weights minus LoRA on weights that are not quantised.", "qlora", _in_bits("int2"), high=0,
    ),
    *_both(
        "loftq_better", "On 2-bit weights LoftQ's start is better than the usual one.", "LoftQ (arXiv 2310.08659)",
        "LoftQ's start minus the usual one, at the same rank.", "qlora", _loftq, low=0,
    ),
    *(
        claim
        for label, name, number in (("galore", "GaLore", "2403.03507"), ("badam", "BAdam", "2404.02827"))
        for claim in _both(
            f"{label}_as_full", f"{name} matches full fine-tuning with AdamW: it is at most a point below.",
            f"{name} (arXiv {number})", f"{name} minus full fine-tuning with AdamW.", "memory_methods",
            minus(label, "full"), low=-1,
        )
    ),
]  # fmt: skip

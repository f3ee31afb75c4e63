"""Claims about few training examples, demonstrations in the prompt, and what is forgotten."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames
from analysis.claims.measures import Measured, by_task, ids, method, on_each, runs_of
from analysis.claims.pairs import POINT, Pair, of_losses
from analysis.claims.scales import NATS
from analysis.maths import estimates

FEW = 1000
SHOWN = 256
FORGETTING = "forgetting/forgetting.csv"


def _few_examples(rows: pd.DataFrame) -> Iterator[Pair]:
    if "train_examples" not in rows:
        return
    ours, theirs = (rows[rows["label"] == label] for label in ("lora", "full"))
    shared = set(ours["train_examples"]) & set(theirs["train_examples"])
    n = min(shared, default=FEW + 1)
    if n <= FEW:
        runs = rows[rows["train_examples"] == n]
        yield Pair(method(runs, "lora"), method(runs, "full"), f"n = {n:g}")


def _prompts(frames: Frames) -> list[Case]:
    """Trained minus the best prompt, which is drawn apart from training: nothing pairs them."""
    cases = []
    for study, where, rows in by_task(frames):
        prompts = rows[rows["label"] == "frozen"]
        if prompts.empty:
            continue
        means = prompts.groupby("shots")["value"].mean()
        prompt = prompts[prompts["shots"] == means.idxmax()]
        for label in ("lora", "full"):
            runs = rows[(rows["label"] == label) & (rows["train_examples"] <= SHOWN)]
            runs = runs[runs["train_examples"] == runs["train_examples"].max()]
            if not runs.empty:
                trained, shown = (estimates.mean(part["value"].to_numpy()) for part in (runs, prompt))
                if means.idxmax() == 0:  # nothing is drawn: one run is all there is to know
                    shown = estimates.Estimate(shown.value, 0.0, np.inf, trained.n)
                place = f"{where} {label}, n = {runs['train_examples'].iloc[0]:g}"
                found = estimates.difference(trained, shown)
                cases.append(Case(study, place, str(rows["task"].iloc[0]), found, "seeds", ids(runs, prompt)))
    return cases


def _forgetting(rows: pd.DataFrame) -> Measured:
    """LoRA's rise less full fine-tuning's, by seed: the mean over texts, which the same runs are read on."""
    rise = (rows["loss_after"] - rows["loss_before"]).groupby([rows["seed"], rows["label"], rows["text"]]).mean()
    wide = rise.groupby(["seed", "label"]).mean().unstack("label").reindex(columns=["lora", "full"])
    return Measured(wide["lora"] - wide["full"], ids(rows[rows["label"].isin(["lora", "full"])]))


CLAIMS = [
    of_losses(
        "few_examples", "With few training examples LoRA is better than full fine-tuning.",
        "paper, Section F.3, Table 16",
        "LoRA minus full fine-tuning at the smallest number of training examples that both have, "
        f"{FEW:,} at most; by how much the test loss is lower, paired by seed.", runs_of("table16", "table8"),
        _few_examples, low=0,
    ),
    Claim(
        "prompts_below", f"Demonstrations in the prompt are below training on few examples ({SHOWN} at most).",
        "paper, Appendix A, Table 8",
        "LoRA and full fine-tuning at their largest such number of examples minus the best prompt, which is "
        "chosen on test data, in its favour; Welch's t.", runs_of("table8"), _prompts, margin=2 * POINT, low=0,
    ),
    Claim(
        "forgets_less", "LoRA forgets less than full fine-tuning.",
        "guides: LoRA Learns Less and Forgets Less (arXiv 2405.09673)",
        "Rise of the loss on texts that are not trained on, nats a token: LoRA's, the mean over its "
        "settings, minus that of full fine-tuning, the mean over texts, paired by seed.",
        (FORGETTING,), on_each(FORGETTING, _forgetting),
        margin=0.1, high=0, scale=NATS,
    ),
]  # fmt: skip

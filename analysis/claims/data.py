"""Claims about few training examples, demonstrations in the prompt, and what is forgotten."""

from collections.abc import Iterator

import pandas as pd

from analysis.claims.engine import SIGNED, Case, Claim, Frames
from analysis.claims.measures import Pair, by_task, compared, difference, ids, method, places, runs_of
from analysis.studies.table8.few_shot import unpaired

FEW = 1000
SHOWN = 256
FORGETTING = "forgetting/forgetting.csv"


def _few_examples(rows: pd.DataFrame) -> Iterator[Pair]:
    ours, theirs = (rows[rows["label"] == label] for label in ("lora", "full"))
    shared = set(ours["train_examples"]) & set(theirs["train_examples"])
    n = min(shared, default=FEW + 1)
    if n <= FEW:
        runs = rows[rows["train_examples"] == n]
        yield Pair(method(runs, "lora"), method(runs, "full"), f"n = {n:g}")


def _prompts(frames: Frames) -> list[Case]:
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
                found = unpaired(runs["value"], prompt["value"], exact=bool(means.idxmax() == 0))
                low, high = (found.difference + sign * found.difference_interval for sign in (-1, 1))
                place = f"{where} {label}, n = {runs['train_examples'].iloc[0]:g}"
                seeds = min(len(runs), len(prompt))
                cases.append(Case(study, place, found.difference, low, high, seeds, "seeds", ids(runs, prompt)))
    return cases


def _forgetting(frames: Frames) -> list[Case]:
    cases = []
    for where, rows in places(frames.get(FORGETTING), "text"):
        rise = (rows["loss_after"] - rows["loss_before"]).groupby([rows["label"], rows["seed"]]).mean()
        ours, theirs = (rows[rows["label"] == label] for label in ("lora", "full"))
        if len(ours) and len(theirs):
            cases += difference("forgetting", where, rise["lora"], rise["full"], ids(ours, theirs))
    return cases


CLAIMS = [
    Claim(
        key="few_examples",
        statement="With few training examples LoRA is better than full fine-tuning.",
        source="paper, Section F.3, Table 16",
        statistic=f"LoRA minus full fine-tuning at the smallest number of training examples that both have, {FEW:,} at "
        "most; test scores, paired by seed.",
        files=runs_of("table16", "table8"),
        judge=compared(_few_examples),
        low=0,
    ),
    Claim(
        key="prompts_below",
        statement=f"Demonstrations in the prompt are below training on few examples ({SHOWN} at most).",
        source="paper, Appendix A, Table 8",
        statistic="A trained method at its largest such number of examples minus the best prompt, which is chosen on "
        "test data, in its favour; Welch's t.",
        files=runs_of("table8"),
        judge=_prompts,
        low=0,
    ),
    Claim(
        key="forgets_less",
        statement="LoRA forgets less than full fine-tuning.",
        source="guides: LoRA Learns Less and Forgets Less (arXiv 2405.09673)",
        statistic="Rise of the loss on texts that are not trained on, nats a token: LoRA's, the mean over its "
        "settings, minus that of full fine-tuning, paired by seed.",
        files=(FORGETTING,),
        judge=_forgetting,
        high=0,
        scale=SIGNED._replace(digits=3, unit=" nats"),
    ),
]

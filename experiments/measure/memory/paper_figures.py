"""What the LoRA paper and guides to it say of memory, computed again from plans of GPT-3 175B and Llama 7B."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from experiments.measure.memory.contenders import Contender, setup
from experiments.measure.memory.plans import Plans
from experiments.measure.memory.setup import Plan

GPT3, LLAMA = "gpt3-175b", "llama-7b"
BATCH, LENGTH = 1, 2048
PAPER, ZERO, GUIDES = "LoRA, section 4.2", "ZeRO, section 3.1 (arXiv:1910.02054)", "guides to LoRA"
_Q_V = ("method.r=4", "method.weight_types=q+v")
_ONE_TYPE = ("method.r=16", "method.weight_types=q")


class Figure(NamedTuple):
    """One number of theirs and ours, in the same unit; how: what ours is made of."""

    quantity: str
    source: str
    unit: str
    theirs: float
    ours: float
    how: str


def figures(plans: Plans) -> pd.DataFrame:
    """A row a figure: quantity, source, unit, theirs, ours, ratio (ours / theirs), how.

    Raises InputError as `experiments.measure.memory.planner.plan`.
    """

    def plan(model: str, method: str, precision: str, *fields: str) -> Plan:
        return plans(setup(model, Contender(method, method, precision, fields), BATCH, LENGTH, checkpointing=True))

    amp, full = plan(GPT3, "full", "amp"), plan(GPT3, "full", "pure16")
    lora = plan(GPT3, "lora", "pure16", *_Q_V)
    rows = [
        *_training(amp, full, lora),
        *_checkpoints(full, lora),
        *_guides(amp, plan(LLAMA, "lora", "pure16", *_ONE_TYPE)),
    ]
    table = pd.DataFrame(rows, columns=list(Figure._fields))
    table.insert(5, "ratio", table["ours"] / table["theirs"])
    return table


def _held(plan: Plan) -> int:
    return plan.weights + plan.master + plan.gradients + plan.optimizer


def _training(amp: Plan, full: Plan, lora: Plan) -> list[Figure]:
    at = f"batch {BATCH}, length {LENGTH}, activations computed again"

    def memory(what: str, theirs: float, plan: Plan) -> Figure:
        ours, said = _held(plan) / plan.total_params, 1e9 * theirs / plan.total_params
        how = f"peak of a step ({at}); {ours:.3g} bytes a parameter without activations, theirs are {said:.3g}"
        return Figure(f"training memory, {what}", PAPER, "GB", theirs, plan.peak / 1e9, how)

    def saved(what: str, plan: Plan) -> Figure:
        return Figure(
            f"training memory saved, {what}", PAPER, "%", 100 * 2 / 3, 100 * (1 - lora.peak / plan.peak),
            "1 - LoRA / full, of the rows above; the paper: up to 2/3",
        )  # fmt: skip

    return [
        Figure("parameters of GPT-3", PAPER, "B", 175, amp.total_params / 1e9, "counted, with embeddings"),
        memory("full, AMP", 1200, amp),
        memory("full, all in 16 bits", 1200, full),
        memory("LoRA r = 4 on q and v", 350, lora),
        saved("against AMP", amp),
        saved("against 16 bits", full),
    ]


def _checkpoints(full: Plan, lora: Plan) -> list[Figure]:
    trained = f"{lora.trainable_params:,} parameters: 96 layers × 2 matrices × 2 × 12288 × 4"
    one, own = 2 * full.total_params, 2 * lora.trainable_params
    return [
        Figure("trained, r = 4 on q and v", "LoRA, Table 15", "M", 18.8, lora.trainable_params / 1e6, trained),
        Figure("checkpoint, full", PAPER, "GB", 350, one / 1e9, "every parameter in 16 bits"),
        Figure("checkpoint, LoRA r = 4 on q and v", PAPER, "MB", 35, own / 1e6, "A and B in 16 bits"),
        Figure("checkpoint, times smaller", PAPER, "×", 1e4, one / own, "of the two rows above"),
        Figure(
            "100 adapted models",
            "LoRA, section 4.2, a footnote",
            "GB",
            354,
            (one + 100 * own) / 1e9,
            "one model, 100 × A and B",
        ),
    ]


def _guides(amp: Plan, lora: Plan) -> list[Figure]:
    """The bytes of a parameter that is trained with AMP; gradients of q alone, whose matrices are 4096 x 4096."""
    d, r, layers = 4096, 16, 32
    of_q = 2 * layers * d * d
    return [
        Figure(
            "bytes of a trained parameter, AMP", ZERO, "bytes", 16, _held(amp) / amp.total_params,
            "weights, fp32 copy, gradients and moments of a plan, by its parameters",
        ),
        Figure(
            f"fewer bytes of gradients, d = {d}, r = {r}", GUIDES, "%", 99.22, 100 * (1 - lora.gradients / of_q),
            f"{lora.gradients:,} bytes for A and B of q in {layers} layers, {of_q:,} for q itself; 1 - 2 r / d",
        ),
    ]  # fmt: skip

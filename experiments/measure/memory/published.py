"""What others say that fine-tuning takes, beside plans of the same: LLaMA-Factory's table."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import pandas as pd

from experiments.measure.memory.contenders import CONTENDERS, Contender, setup, traits
from experiments.measure.memory.plans import Plans
from experiments.measure.memory.setup import Plan, Setup
from experiments.measure.memory.units import KINDS

# Its examples train with one row at a time, at most 2048 tokens, and activations computed again; it leaves open what
# the estimates are for.
BATCH, LENGTH, CHECKPOINTING = 1, 1024, True
MODELS = {
    "7B": "llama-7b", "13B": "llama-13b", "30B": "llama-30b", "70B": "llama-70b", "8x7B": "mixtral-8x7b",
    "8x22B": "mixtral-8x22b",
}  # fmt: skip
STATES = {"weights": "weights", "master": "fp32 copy", "gradients": "gradients", "optimizer": "optimizer"}
GB = 1e9


class Rule(NamedTuple):
    """Bytes for each nominal parameter by the last column of LLaMA-Factory's table, and what they would be."""

    bytes_per_param: float
    made_of: str
    contenders: tuple[str, ...]


_16 = "weights in 16 bits"
RULES = {
    ("Full AMP", "AMP"): Rule(18, "weights 2, fp32 copy 4, fp32 gradients 4, moments 8", ("full, AMP",)),
    ("Full", "16"): Rule(8, "weights 2, gradients 2, moments 4", ("full, 16 bits",)),
    ("Freeze", "16"): Rule(2, _16, ("freeze, last 2 layers",)),
    ("LoRA/GaLore/BAdam", "16"): Rule(2, _16, ("LoRA", "GaLore, r = 128", "BAdam")),
    ("QLoRA", "8"): Rule(1, "weights in 8 bits", ("QLoRA, 8 bits",)),
    ("QLoRA", "4"): Rule(0.5, "weights in 4 bits", ("QLoRA, 4 bits",)),
    ("QLoRA", "2"): Rule(0.25, "weights in 2 bits", ("QLoRA, 2 bits",)),
}


def estimates() -> pd.DataFrame:
    """LLaMA-Factory's table, a row a cell: method, bits, size (7B, 8x7B), bytes."""
    table = pd.read_csv(str(files("experiments.measure.memory").joinpath("estimates.csv")), dtype=str)
    cells = table.melt(["method", "bits"], var_name="size", value_name="bytes")
    return cells.assign(bytes=(cells["bytes"].str.removesuffix("GB").astype(float) * GB).astype(int))


def nominal(size: str) -> int:
    """Parameters by name alone: 8x7B is 56 billion."""
    experts, _, each = size.removesuffix("B").rpartition("x")
    return int(experts or 1) * int(each) * 10**9


def beside(plans: Plans, sizes: Sequence[str], contenders: Sequence[Contender] = CONTENDERS) -> pd.DataFrame:
    """A row for each cell of LLaMA-Factory's table and each of our methods in it, for these sizes of model and methods.

    ours - theirs, in bytes, is exactly by_parameters + by_states + by_rest: by_parameters, what the rule counts for
    parameters that the model has beyond, or lacks of, its nominal number; by_states, what weights, copies, gradients
    and optimizer take beyond the rule; by_rest, what is beyond these at the peak, less what the estimate adds to the
    rule. Raises InputError as `experiments.measure.memory.planner.plan`.
    """
    named, rows = {contender.title: contender for contender in contenders}, []
    for cell in estimates().to_dict("records"):
        rule = RULES[cell["method"], cell["bits"]]
        for contender in (named[title] for title in rule.contenders if title in named and cell["size"] in sizes):
            wanted = setup(MODELS[cell["size"]], contender, BATCH, LENGTH, CHECKPOINTING)
            rows.append(cell | _beside(cell["size"], cell["bytes"], rule, contender, wanted, plans(wanted)))
    return pd.DataFrame(rows).rename(columns={"bytes": "theirs"})


def _beside(size: str, theirs: int, rule: Rule, contender: Contender, wanted: Setup, plan: Plan) -> dict[Any, Any]:
    params = traits(MODELS[size]).parameters
    parts = {
        "by_parameters": round(rule.bytes_per_param * (params - nominal(size))),
        "by_states": sum(getattr(plan, name) for name in STATES) - round(rule.bytes_per_param * params),
    }
    parts["by_rest"] = plan.peak - theirs - sum(parts.values())
    return {
        "model": MODELS[size],
        "ours": contender.title,
        "precision": wanted.precision,
        "batch": wanted.batch,
        "length": wanted.length,
        "targets": wanted.targets,
        "checkpointing": wanted.checkpointing,
        "peak": plan.peak,
        "ratio": plan.peak / theirs,
        "nominal_params": nominal(size),
        "total_params": params,
        "trainable_params": plan.trainable_params,
        **{name: getattr(plan, name) for name in KINDS},
        **parts,
        "why": explanation(size, params, theirs, rule, plan, parts),
    }


def explanation(size: str, params: int, theirs: int, rule: Rule, plan: Plan, parts: dict[str, int]) -> str:
    """The parts of ours - theirs in words, the largest first, without those under 2% of theirs."""
    held = {name: getattr(plan, name) / params for name in STATES}
    shares = ", ".join(f"{word} {held[name]:.2g}" for name, word in STATES.items() if held[name])
    words = {
        "by_parameters": f"the model has {params / 1e9:.4g}B parameters, not {nominal(size) / 1e9:.0f}B"
        + (", its experts share all but their MLPs" if "x" in size else ""),
        "by_states": f"{sum(held.values()):.3g} bytes a parameter ({shares}{_because(size, rule, held)}), "
        f"theirs {rule.bytes_per_param:g} ({rule.made_of})",
        "by_rest": _beyond(size, theirs, rule, plan),
    }
    large = sorted((name for name in parts if abs(parts[name]) >= 0.02 * theirs), key=lambda name: -abs(parts[name]))
    return "; ".join(f"{_gb(parts[name], '+')}: {words[name]}" for name in large) or "no part differs by 2%"


def _because(size: str, rule: Rule, held: dict[str, float]) -> str:
    """What made the bytes of a parameter what they are, where that is not to be seen from their names."""
    reasons = []
    if rule.bytes_per_param <= 2 and held["gradients"] > 1:
        reasons.append("all gradients are there at once, as updates are not made layer by layer")
    if "x" in size and rule.bytes_per_param <= 2 and held["optimizer"] > 1:
        reasons.append("experts are no matrices, so their moments are not projected")
    if "x" in size and held["weights"] > 1.5 * rule.bytes_per_param:
        reasons.append("experts are no linear layers, and stay in 16 bits")
    return "".join(f": {reason}" if not index else f", and {reason}" for index, reason in enumerate(reasons))


def _beyond(size: str, theirs: int, rule: Rule, plan: Plan) -> str:
    """What is alive at the peak beside the states, and what the estimate has for it."""
    rest = plan.peak - sum(getattr(plan, name) for name in STATES)
    made_of = f"activations {_gb(plan.activations)}, logits {_gb(plan.logits)}"
    some = "not all of " if rest < plan.activations + plan.logits else ""
    margin = theirs - rule.bytes_per_param * nominal(size)
    leaves = f"leaves {_gb(margin)} for that" if margin >= 0 else f"is {_gb(-margin)} below its own rule"
    return f"{_gb(rest)} more at the peak ({some}{made_of}, batch {BATCH}, length {LENGTH}), theirs {leaves}"


def _gb(size: float, sign: str = "") -> str:
    return f"{size / GB:{sign}.1f} GB"

"""Whole commands on a small Llama: the adapter of its update, and an adapter of it made smaller, here and by peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from analysis.adapters.made import PEFT
from analysis.extract.delta import delta
from analysis.shrink import stored
from analysis.weights import sources, updates
from analysis.weights.delta_w import LowRank
from analysis.weights.pairs import pair
from analysis.weights.pretrained import Weights
from lora.config import InputError

WHOLE_RANK = 64  # of the adapter that is made smaller
NOISE = 0.002  # of the update's entries; weights have 0.02


class Done(NamedTuple):
    """A contender's name, what it does, and its error afterwards, ||delta_w - B A|| / ||delta_w|| over all matrices."""

    name: str
    work: Callable[[], Any]
    error: Callable[[], float]


def _models(width: int, layers: int, folder: Path) -> None:
    """A Llama with random weights and, with an update of all of its matrices, its tuned self, both in fp32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=11 * width // 4, num_hidden_layers=layers, num_attention_heads=8,
        num_key_value_heads=8, vocab_size=1000,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_proj" in name:
                falling = torch.arange(1, parameter.shape[1] + 1) ** -0.45
                parameter += NOISE * torch.randn_like(parameter) * falling * len(falling) ** 0.45
    model.save_pretrained(folder / "tuned")


def extraction(width: int, layers: int, rank: int, mergekit: str | None, folder: Path) -> list[Done]:
    """The contenders, each a process from nothing to an adapter in a folder. Raises InputError if one fails."""
    _models(width, layers, folder)
    given = {"base": str(folder / "base"), "tuned": str(folder / "tuned"), "rank": str(rank)}
    own = "-m analysis.extract {tuned} --base {base} --rank {rank} --out {out}"
    commands = {"lora-lab": [sys.executable, *own.split()]}
    if mergekit:
        theirs = "--model {tuned} --base-model {base} --max-rank {rank} --out-path {out} -e lm_head -e embed_tokens"
        commands["mergekit-extract-lora"] = [mergekit, *theirs.split()]
    found = []
    for name, command in commands.items():
        out = str(folder / name)
        filled = [part.format(**given, out=out) for part in command]
        found.append(Done(name, lambda filled=filled: _call(filled), lambda out=out: _error(given, out)))  # type: ignore[misc]
    return found


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{command[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def _error(given: Mapping[str, str], out: str) -> float:
    base = Weights.open(given["base"])
    both, found = pair("tuned", Weights.open(given["tuned"]), base), updates.read(out)
    far = near = 0.0
    for update in found.values():
        assert isinstance(update, LowRank)
        exact = torch.from_numpy(delta(both, base.canonical(update.module)).matrix).double()
        A, B = map(torch.from_numpy, update.factors())
        far += float((exact - B @ A).square().sum())
        near += float(exact.square().sum())
    if len(found) != len(base.linear):
        raise InputError(f"{out} adapts {len(found)} modules of {len(base.linear)}")
    return float((far / near) ** 0.5)


def shrinking(width: int, layers: int, rank: int, folder: Path) -> list[Done]:
    """An adapter of rank WHOLE_RANK on the Llama, in memory, brought to a lower one: from its factors, and by peft."""
    torch.manual_seed(1)
    base = LlamaForCausalLM.from_pretrained(folder / "base")
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=WHOLE_RANK, lora_alpha=WHOLE_RANK, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(str(folder / "adapter"))
    model.add_adapter("zero", peft.LoraConfig(r=1, target_modules=targets))
    adapter = stored.read(sources.find(folder / "adapter"))
    exact = {target.module: _product(adapter.file.tensors(target), target.scaling) for target in adapter.targets}
    small: dict[str, torch.Tensor] = {}

    def ours() -> None:
        made = adapter.cut([rank] * len(adapter.targets), PEFT)
        small.update({own.module: _product(factors, own.scaling) for own, factors in made.adapters.items()})

    def theirs() -> None:
        # Of one adapter alone it takes no SVD: the second adds nothing.
        model.add_weighted_adapter(
            ["default", "zero"], [1.0, 1.0], "small", "svd", svd_rank=rank, svd_full_matrices=False
        )

    def merged() -> float:
        layers = {name: model.get_submodule(f"base_model.model.{name}") for name in exact}
        return _far(exact, {name: layer.get_delta_weight("small").detach() for name, layer in layers.items()})

    return [
        Done("lora-lab", ours, lambda: _far(exact, small)),
        Done("peft, add_weighted_adapter (svd)", theirs, merged),
    ]


def _product(factors: Sequence[torch.Tensor], scaling: float) -> torch.Tensor:
    A, B = factors
    return scaling * B.double() @ A.double()


def _far(exact: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> float:
    far = sum(float((own - found[name].double()).square().sum()) for name, own in exact.items())
    return float((far / sum(float(own.square().sum()) for own in exact.values())) ** 0.5)

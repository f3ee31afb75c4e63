"""One forward pass of a language model with random weights, timed: as it is, with LoRA, and with adapters.

The time does not depend on the values of weights, so that nothing is downloaded. All contenders share the base model's
weights; only what a method adds, or replaces, is their own.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from experiments import methods
from experiments.hub import locate
from experiments.models import SAFE, Runtime
from lora.config import InputError, LoRAConfig
from lora.model import inject, merge

SHAPES: dict[str, tuple[type[transformers.PretrainedConfig], dict[str, Any]]] = {
    "gpt2-medium": (GPT2Config, {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "smollm2-135m": (
        LlamaConfig,
        {
            "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "tiny": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100, "n_positions": 64}),
}  # fmt: skip
LORA = LoRAConfig(r=4, alpha=32, weight_types=("q", "v"))  # the paper's GPT-2, Table 11
ADAPTERS = ("adapter_h", "adapter_l")


class Contender(NamedTuple):
    """A way to run the model. `added`: parameters that a pass uses beyond the base model's; bottleneck 0 is none."""

    name: str
    bottleneck: int
    model: nn.Module
    added: int


class Rounds(NamedTuple):
    """As many counted rounds as fit into `seconds`, but at least `least` and at most `most`, after `warm_up` others."""

    least: int
    most: int
    seconds: float
    warm_up: int

    def number(self, seconds: float) -> int:
        """How many to count when one takes `seconds`."""
        return min(self.most, max(self.least, int(self.seconds / max(seconds, 1e-9))))


class Trial(NamedTuple):
    """One timed pass."""

    contender: Contender
    round: int
    seconds: float


def build(name: str, runtime: Runtime) -> PreTrainedModel:
    """A causal language model of a shape in SHAPES, or of the config in a folder or on the hub, with random weights.

    Raises InputError if there is no such config, or if it is none of a causal language model.
    """
    try:
        if name in SHAPES:
            kind, sizes = SHAPES[name]
            config = kind(**sizes)
        else:
            config = AutoConfig.from_pretrained(locate(name, also=list(SHAPES)), **SAFE)
        with runtime.device:
            model = AutoModelForCausalLM.from_config(config, dtype=runtime.dtype, **SAFE)
    except Exception as error:  # a malformed config ends in an error of any kind
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"no model can be made of {name!r}: {reason} (shapes: {', '.join(SHAPES)})") from error
    return model.eval()


def contenders(base: PreTrainedModel, bottlenecks: Sequence[int]) -> list[Contender]:
    """The base model, itself a second time as a control, LoRA merged and not, and both adapters of each bottleneck.

    All compute in the base model's precision. Raises InputError as `experiments.methods.apply` and `lora.model`.
    """
    merged, unmerged = _sharing(base), _sharing(base)
    inject(merged, LORA)
    merge(merged)
    inject(unmerged, LORA)
    adapted = []
    for name in ADAPTERS:
        for bottleneck in bottlenecks:
            model = _sharing(base)
            methods.apply(model, {"name": name, "bottleneck": bottleneck}, [])
            adapted.append((name, bottleneck, model))
    models = [("base", 0, base), ("control", 0, _sharing(base)), ("lora_merged", 0, merged)]
    models += [("lora_unmerged", 0, unmerged), *adapted]
    size = base.num_parameters()
    return [
        # A and B of a merged adapter are there for `unmerge`; no pass reads them.
        Contender(name, m, model.to(base.dtype).eval(), 0 if model is merged else _parameters(model) - size)
        for name, m, model in models
    ]


def _sharing(base: PreTrainedModel) -> PreTrainedModel:
    """Modules of its own, the same tensors: what is put into the copy is not in `base`."""
    return copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def inputs(base: PreTrainedModel, batch: int, length: int, seed: int) -> Tensor:
    """Random tokens (batch, length). Raises InputError for a length that the model has no positions for."""
    longest = getattr(base.config, "max_position_embeddings", None)
    if longest and length > longest:
        raise InputError(f"length {length} is too long: {type(base).__name__} has {longest} positions")
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(base.config.get_text_config().vocab_size, (batch, length), generator=generator)
    return tokens.to(base.device)


def trials(competing: Sequence[Contender], tokens: Tensor, rounds: Rounds, seed: int) -> Iterator[Trial]:
    """Every contender once a round, in an order drawn anew for each round; warm-up rounds are not among the results.

    A pass is what inference does for the next token: no gradients, no cache, logits of the last position alone. Right
    before it a few tokens are passed untimed, so that each contender finds the caches as its own weights leave them,
    not as the contender before it did.
    Raises InputError if the accelerator's memory is too small.
    """
    orders = random.Random(f"{seed} {tuple(tokens.shape)}")
    number, index = rounds.least, -rounds.warm_up
    while index < number:
        order = orders.sample(competing, len(competing))
        started = time.perf_counter()
        done = [Trial(contender, index, _seconds(contender.model, tokens)) for contender in order]
        if index < 0:  # the last warm-up round says how many rounds there is time for
            number = rounds.number(time.perf_counter() - started)
        else:
            yield from done
        index += 1


def _seconds(model: nn.Module, tokens: Tensor) -> float:
    try:
        with torch.inference_mode():
            _pass(model, tokens[:1, :16])
            started = time.perf_counter()
            _pass(model, tokens)
            return time.perf_counter() - started
    except torch.OutOfMemoryError as error:
        batch, length = tokens.shape
        raise InputError(f"batch {batch} x length {length} does not fit into memory: choose smaller ones") from error


def _pass(model: nn.Module, tokens: Tensor) -> None:
    model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    if tokens.device.type != "cpu":
        torch.accelerator.synchronize()

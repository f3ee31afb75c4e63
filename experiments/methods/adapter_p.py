"""Adapter_P (Pfeiffer et al. 2021): one in each layer, after the MLP and the layer norm that follows it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn import functional

from experiments.layers import layers
from experiments.method_settings import Adapter
from experiments.methods import Backward
from experiments.methods._adapters import after, attach, within_norm


def apply(model: nn.Module, method: Adapter, backward: Backward) -> None:
    """Attach L adapters."""
    attach_to(model, layers(model), method)


def attach_to(model: nn.Module, blocks: Sequence[nn.Module], method: Adapter) -> None:
    """Attach an adapter with ReLU to each of `blocks`, where the `adapters` library puts it.

    With s the sum of the MLP's output and its residual: LN(s + adapter(LN(s))) where a layer norm follows, as in BERT,
    RoBERTa and DeBERTa; s + adapter(s) where none does, as in GPT-2 and Llama.
    """
    inside = [dict(block.named_modules()).get("output.LayerNorm") for block in blocks]
    norms = [norm for norm in inside if norm is not None]
    attach(model, norms or blocks, method, functional.relu, within_norm if norms else after)

"""Prefix-embedding tuning: special tokens with trained embeddings (paper, section 5.1; Lester et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.layers import body
from experiments.method_settings import Prompt
from experiments.methods import Backward
from experiments.prompts import attach, lengths


def apply(model: nn.Module, method: Prompt, backward: Backward) -> None:
    """Add l_p prefix and l_i infix tokens: d (l_p + l_i) parameters, which start as embeddings of random tokens."""
    count = lengths(model, method)
    embeddings: Tensor = body(model).get_input_embeddings().weight
    tokens = torch.randint(len(embeddings), (sum(count),))
    attach(model, embeddings.detach()[tokens.to(embeddings.device)], count)

"""Prefix-embedding tuning: special tokens with trained embeddings (paper, section 5.1; Lester et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from experiments.layers import body
from experiments.methods import Backward
from experiments.prompts import attach, lengths

FIELDS = ("l_p", "l_i")


def apply(model: nn.Module, method: Mapping[str, Any], backward: Backward) -> None:
    """Add l_p prefix and l_i infix tokens: d (l_p + l_i) parameters, which start as embeddings of random tokens."""
    count = lengths(model, method)
    embeddings: Tensor = body(model).get_input_embeddings().weight
    tokens = torch.randint(len(embeddings), (sum(count),))
    attach(model, embeddings.detach()[tokens.to(embeddings.device)], count)

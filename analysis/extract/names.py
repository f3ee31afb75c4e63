"""What the tensors of a checkpoint are called in the model that an extracted adapter is for."""

from __future__ import annotations

from typing import NamedTuple

import torch
import transformers

from analysis.weights.module_names import unique
from analysis.weights.pretrained import Weights
from lora.fill import slots
from lora.formats.keys import plain


class Names(NamedTuple):
    """stored -> name in the model, for those that it has; `tied`: name -> the other names of the same weight, None
    where the model is not known; `model`: its class, for a reader."""

    stored: dict[str, str]
    tied: dict[str, list[str]] | None
    model: str

    def module(self, stored: str) -> str:
        """The name of the module whose weight a stored tensor is."""
        return self.stored[stored].removesuffix(".weight")


def of_file(tuned: Weights) -> Names:
    """Those of a file of weights without a config: as they are, less what wrappers put before them."""
    return Names(plain(tuned.checkpoint.where), None, "the model whose weights these are")


def of_model(tuned: Weights) -> Names:
    """Those of a model's folder: in the class that its config names, which may put others before those of the body;
    as stored, where transformers has no such class."""
    config = tuned.body.config
    kind = (getattr(config, "architectures", None) or [""])[0]
    found = getattr(transformers, kind, None)
    if found is None:
        return of_file(tuned)
    with torch.device("meta"):
        there = slots(found._from_config(config))
    by_canonical = unique({name: tuned.canonical(name) for name in there})
    stored = {
        name: bare if bare in there else by_canonical.get(tuned.canonical(bare))
        for name, bare in plain(tuned.checkpoint.where).items()
    }
    same: dict[int, list[str]] = {}
    for name, slot in there.items():
        same.setdefault(id(slot.tensor), []).append(name)
    tied = {name: [other for other in names if other != name] for names in same.values() for name in names}
    return Names({name: known for name, known in stored.items() if known}, tied, kind)

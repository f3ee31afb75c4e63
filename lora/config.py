"""What a LoRA adapter is, as data: rank, alpha, where it goes, how it starts. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import math
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from lora import variants
from lora.errors import InputError as InputError
from lora.errors import is_count, is_number

WEIGHT_TYPES = ("q", "k", "v", "o", "up", "gate", "down")
TOWERS = ("encoder", "decoder", "cross", "text", "vision", "audio")  # of models that have several: decoder.q
SCALINGS = ("standard", "rslora")
_QUANTIZED = str(Path(__file__).with_name("quantized"))
# Ways to hold base weights in few bits: the files of `lora.quantized`, which is not imported for it
QUANTIZATIONS = tuple(kind.name for kind in pkgutil.iter_modules([_QUANTIZED]))


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """h = W0 x + scaling * B A x, with A (r, k) and B (d, r) trained and W0 (d, k) frozen (Hu et al. 2021, eq. 3).

    r            rank, one for all or a mapping weight type or pattern -> rank.
    alpha        the update is scaled by alpha / r (`standard`, the paper) or alpha / sqrt(r) (`rslora`); as for r.
    dropout      probability of dropping an input of the low-rank path while training.
    weight_types which of q k v o up gate down get an adapter; the architecture says which modules these are
                 (`lora.schemes`). Of a model with several towers a type is that of all of them, or of one of TOWERS, as
                 `decoder.q`; `cross.q` is of a decoder's attention to an encoder.
    modules      glob patterns of further modules by name, e.g. "*.lm_head"; the whole module gets one adapter.
    layers       indices of the layers that get adapters; None means all.
    init         how A and B start, a `Start` of `lora.variants`; `gaussian`: A ~ N(0, 1/k), B = 0 (the paper).
    scaling      see alpha.
    variant      what the adapter adds, an `Update` of `lora.variants`; `lora`: the above.

    Raises InputError for values that no model could take.
    """

    r: int | Mapping[str, int] = 8
    alpha: float | Mapping[str, float] = 16.0
    dropout: float = 0.0
    weight_types: tuple[str, ...] = ("q", "v")
    modules: tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    init: str = variants.USUAL
    scaling: str = "standard"
    variant: str = variants.PLAIN

    def __post_init__(self) -> None:
        for field in ("weight_types", "modules", "layers"):
            value = getattr(self, field)
            if field == "layers" and value is None:
                continue
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise InputError(f"{field} = {value!r}: it must be a list")
            object.__setattr__(self, field, tuple(value))
        if not self.names:
            raise InputError("LoRA has no target: give weight_types (e.g. q+v) or modules (a name pattern)")
        for weight_type in self.weight_types:
            tower, dot, own = weight_type.rpartition(".") if isinstance(weight_type, str) else ("", "", weight_type)
            if own not in WEIGHT_TYPES:
                raise InputError(f"unknown weight type {weight_type!r}: choose from {', '.join(WEIGHT_TYPES)}")
            if dot and tower not in TOWERS:
                raise InputError(
                    f"unknown tower {tower!r} of weight type {weight_type!r}: choose from {', '.join(TOWERS)}"
                )
        if len(set(self.names)) != len(self.names):
            raise InputError(f"a weight type or pattern is named twice in {', '.join(self.names)}")
        for field in ("r", "alpha"):
            value = getattr(self, field)
            if isinstance(value, Mapping) and set(value) != set(self.names):
                raise InputError(f"{field} is given for {sorted(value)} but the targets are {sorted(self.names)}")
        for name in self.names:
            r, alpha = self.rank(name), self.alpha_of(name)
            if not is_count(r):
                raise InputError(f"rank r = {r!r} for {name}: r must be a whole number of at least 1")
            if not is_number(alpha) or alpha <= 0:
                raise InputError(f"alpha = {alpha!r} for {name}: alpha must be a positive number")
        if not isinstance(self.dropout, int | float) or not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout = {self.dropout!r}: it must be a number in [0, 1)")
        for layer in self.layers or ():
            if isinstance(layer, bool) or not isinstance(layer, int):
                raise InputError(f"layer {layer!r}: layers are given as whole numbers, counted from 0")
        if self.scaling not in SCALINGS:
            raise InputError(f"unknown scaling {self.scaling!r}: choose from {', '.join(SCALINGS)}")
        for chosen in (variants.chosen(variants.Start, self.init), variants.chosen(variants.Update, self.variant)):
            chosen.check(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Weight types, then patterns: every name that can carry a rank of its own."""
        return (*self.weight_types, *self.modules)

    def rank(self, name: str) -> int:
        """Rank r of a weight type or pattern."""
        return self.r[name] if isinstance(self.r, Mapping) else self.r

    def alpha_of(self, name: str) -> float:
        """alpha of a weight type or pattern."""
        return self.alpha[name] if isinstance(self.alpha, Mapping) else self.alpha

    def scale(self, name: str) -> float:
        """The factor in front of B A: alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023)."""
        r, alpha = self.rank(name), self.alpha_of(name)
        return alpha / (math.sqrt(r) if self.scaling == "rslora" else r)

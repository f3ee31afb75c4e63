"""Where adapters start and what they add to W0 x: a file each, found by its name.

A file `<name>.py` of this package has a VARIANT, made with `__name__`: an object of a subclass of

    Start    which `LoRAConfig(init="<name>")` chooses, or
    Update   which `LoRAConfig(variant="<name>")` chooses,

and that is all that a new one takes: layers, files, budgets and merging ask the object. `plus`, a rule for the learning
rates of A and B, has none and is used by itself. Imports nothing heavy before it is asked.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lora.errors import InputError, is_a

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora.config import LoRAConfig
    from lora.layer import LoRALayer, Part

Backward = Callable[[], None]  # runs a model forward and the training loss backward
Weights = Callable[[], Mapping[str, "Tensor"]]  # module -> its weight (d, k) before quantisation
PLAIN, USUAL = "lora", "gaussian"  # what an adapter is, and how it starts, where nothing is said


class _Variant:
    field = ""  # of LoRAConfig, which chooses it by its name
    title = "init {}"  # what messages call it
    matrices_alone = False  # whether it is for linear layers alone, and not for embeddings, whose x is an index

    def __init__(self, module: str) -> None:
        self.name = module.rpartition(".")[2]  # the file's
        self.title = self.title.format(self.name)

    def check(self, config: LoRAConfig) -> None:
        """Raises InputError if it cannot be with the rest of a config."""

    def check_base(self, base: nn.Module) -> None:
        """Raises InputError if it cannot be on this module."""
        if self.matrices_alone and is_a(base, "Embedding"):
            raise InputError(f"{self.title} is for Linear and Conv1D, not for an Embedding: adapt that without it")


class Start(_Variant):
    """Where A and B start. Random numbers are drawn on the CPU: a seed gives the same start on every device."""

    field = "init"
    residual = False  # B A starts elsewhere than at 0, the model at W0: the base weight becomes W0 - scaling * B0 A0
    remakes = False  # the base weights are its own: stored adapters belong to them, and loading makes them again

    def prepare(
        self, model: nn.Module, modules: Sequence[str], backward: Backward | None, pretrained: Weights | None
    ) -> Mapping[str, Tensor]:
        """Module -> a matrix (d, k) that the start needs of it, before anything is adapted. Raises InputError."""
        return {}

    def start(self, w0: Tensor, r: int, scaling: float, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """A (r, k) and B (d, r), fp32, for W0 (d, k); `given` are these rows of what `prepare` gave of the module."""
        raise NotImplementedError

    def begin(
        self, base: nn.Module, w0: Tensor, parts: Sequence[Part], given: Tensor | None
    ) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
        """The base module to adapt, of weight `w0` (d, k) now, and A and B of each of its parts."""
        own = [None if given is None else given[part.rows] for part in parts]
        return base, [self.start(w0[p.rows], p.r, p.scaling, rows) for p, rows in zip(parts, own, strict=True)]


class Peft(NamedTuple):
    """How peft stores an update that is not plain LoRA: the option that is on, and side -> the name of its tensor."""

    option: str
    sides: Mapping[str, str]


class Update(_Variant):
    """What an adapter adds to the outputs of W0, from A, B and what else it trains; as it stands, plain LoRA.

    What else is trained has one tensor a part for each name in `shapes`: for `m` it is `layer.lora_m[part.name]`.
    """

    field = "variant"
    title = "{}"
    peft: Peft | None = None  # None: peft has no such update

    def shapes(self, d: int, k: int, r: int) -> dict[str, tuple[int, ...]]:
        """What is trained beside A (r, k) and B (d, r): names and shapes."""
        return {}

    def start(self, w0: Tensor) -> dict[str, Tensor]:
        """Where these start, fp32, for W0 (d, k)."""
        return {}

    def output(self, layer: LoRALayer, part: Part, update: Tensor, x: Tensor, h: Tensor) -> Tensor:
        """What to add on the part's rows. `update` is scaling * B A x, of x (..., k) after dropout; h (..., d) are the
        outputs of the base, bias and all."""
        return update

    def delta_w(self, layer: LoRALayer, part: Part) -> Tensor:
        """The same as a matrix (d, k), fp32: what merging adds to W0."""
        A, B = layer.matrices(part.name)
        return part.scaling * (B @ A)


V = TypeVar("V", Start, Update)


@functools.cache
def _loaded(folders: tuple[str, ...]) -> list[object]:
    names = [module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_")]
    return [getattr(importlib.import_module(f"{__name__}.{name}"), "VARIANT", None) for name in names]


def known(kind: type[V]) -> dict[str, V]:
    """Every variant of a kind, by its name."""
    return {variant.name: variant for variant in _loaded(tuple(__path__)) if isinstance(variant, kind)}


def chosen(kind: type[V], name: str) -> V:
    """The variant of a kind that has this name. Raises InputError if there is none."""
    found = known(kind)
    if not isinstance(name, str) or name not in found:
        raise InputError(f"unknown {kind.field} {name!r}: choose from {', '.join(found)}")
    return found[name]

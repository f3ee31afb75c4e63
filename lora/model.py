"""Put adapters into a model and take them out again: eject undoes inject, and unmerge undoes merge, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from lora.config import LoRAConfig
from lora.errors import InputError
from lora.layer import LoRALayer, Part
from lora.targets import Place, find_places
from lora.variants import USUAL, Backward, Start, Weights, chosen


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALayer]]:
    """(name, layer) of every adapted module."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALayer))


def attach(
    model: nn.Module,
    places: Sequence[Place],
    dropout: float = 0.0,
    init: str = USUAL,
    backward: Backward | None = None,
    pretrained: Weights | None = None,
) -> None:
    """Wrap the modules of `places`, in place. `init`, `backward` and `pretrained` are as of `inject`.

    Raises InputError if the model has adapters already or lacks a module, or for the reasons of `LoRALayer`; the model
    is then as it was.
    """
    if any(lora_layers(model)):
        raise InputError("the model has LoRA adapters already: eject them first")
    parts: dict[str, list[Part]] = {}
    for place in places:
        parts.setdefault(place.module, []).append(place.part)
    modules, start = dict(model.named_modules(remove_duplicate=False)), chosen(Start, init)
    for name in parts:
        if name not in modules:
            raise InputError(f"the model has no module {name}")
        start.check_base(modules[name])
    given = start.prepare(model, list(parts), backward, pretrained)
    layers: dict[str, LoRALayer] = {}
    try:
        for name, group in parts.items():
            layers[name] = LoRALayer(modules[name], tuple(group), dropout, init, given.get(name))
    except BaseException:
        for layer in layers.values():
            layer.original()
        raise
    for name, layer in layers.items():
        layer.train(model.training)
        model.set_submodule(name, layer)


def inject(
    model: nn.Module,
    config: LoRAConfig,
    backward: Backward | None = None,
    pretrained: Weights | None = None,
) -> None:
    """Put the adapters of `config` into `model`. Its outputs do not change, to rounding, unless both A and B start
    Gaussian (`both_gaussian`), or, with loftq, near the model before quantisation. This freezes nothing: see `freeze`.

    `backward` is for starts from gradients (lora_ga) and unused by the others: it runs the model forward and the
    training loss backward, on one or more batches for calibration. It need not see to which parameters need gradients,
    nor clear any. `pretrained` is for starts from what quantisation loses (loftq), and called by no other: it gives the
    weights from before quantisation, by module.

    Raises InputError for the reasons of `find_places` and `attach`; the model is then as it was.
    """
    attach(model, find_places(model, config), config.dropout, config.init, backward, pretrained)


def eject(model: nn.Module) -> None:
    """Put the original modules back: the model is bit-identical to the one before `inject`, but for a start that has
    quantised weights anew (loftq): these stay."""
    for name, layer in list(lora_layers(model)):
        model.set_submodule(name, layer.original())


def merge(model: nn.Module) -> None:
    """Merge every adapter into its weight: same outputs, no extra latency (paper, section 4.1)."""
    for _, layer in lora_layers(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`: every weight from before is back, bit for bit."""
    for _, layer in lora_layers(model):
        layer.unmerge()


def base_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of all but those of adapters, by the names that they have in the model without adapters."""
    adapted = {name for name, _ in lora_layers(model)}
    found: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        owner = module.removesuffix(".base")
        if owner in adapted:
            found[f"{owner}.{leaf}"] = parameter
        elif module.rpartition(".")[0] not in adapted:
            found[name] = parameter
    return found


def freeze(model: nn.Module, trained: Iterable[str] = ()) -> None:
    """Train every adapter and the modules or parameters named in `trained` (heads); freeze the rest.

    Raises InputError if a name in `trained` is no module or parameter of the model, or is quantised.
    """
    base = base_parameters(model)
    chosen = {name: [key for key in base if key == name or key.startswith(f"{name}.")] for name in trained}
    for name, keys in chosen.items():
        if not keys:
            raise InputError(f"{name!r} is to be trained, but the model has no module or parameter of that name")
    kept = itertools.chain.from_iterable(layer.kept for _, layer in lora_layers(model))
    for parameter in itertools.chain(base.values(), kept):
        parameter.requires_grad_(False)
    for key in itertools.chain(*chosen.values()):
        if not base[key].is_floating_point():
            raise InputError(f"{key} is to be trained, but it is quantised: its codes have no gradient")
        base[key].requires_grad_(True)
    for _, layer in lora_layers(model):
        for part in layer.parts:
            for parameter in layer.trained(part.name).values():
                parameter.requires_grad_(True)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of all that is trained."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

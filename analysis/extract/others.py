"""What LoRA cannot hold of a checkpoint, stored beside the adapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from analysis.adapters.made import PEFT, Made, refuse_tied, saved_modules
from analysis.extract.names import Names
from analysis.weights.beside import Beside
from analysis.weights.pretrained import Weights
from lora.stored import Target


def kept(tuned: Weights, rows: Sequence[Beside], names: Names) -> dict[str, Tensor]:
    """The tensors of these rows that the model has a place for, by their stored names, as they are stored. Raises
    InputError if a file is damaged."""
    return {row.name: tuned.checkpoint.weight(row.name) for row in rows if row.name in names.stored}


def with_rest(
    adapters: Mapping[Target, tuple[Tensor, Tensor]],
    rest: Mapping[str, Tensor],
    tuned: Weights,
    names: Names,
    layout: str,
    base: str,
) -> Made:
    """The adapter with `rest`, of `kept`, for one of the formats. In peft's modules are stored whole, and a tied weight
    under each of its names.

    Raises InputError if peft cannot store one of `rest`, or if it may be tied in a model that is not known.
    """
    parameters = {names.stored[stored]: tensor for stored, tensor in rest.items()}
    if layout != PEFT:
        return Made(adapters, parameters)
    parameters = _whole(tuned, parameters, names, {target.module for target in adapters})
    if names.tied is None:
        refuse_tied(parameters)
    for name in list(parameters):
        for other in (names.tied or {}).get(name, ()):
            parameters.setdefault(other, parameters[name].clone())
    options = saved_modules(parameters, [target.module for target in adapters])
    return Made(adapters, parameters, options=options | {"base_model_name_or_path": base})


def _whole(
    tuned: Weights, parameters: Mapping[str, Tensor], names: Names, adapted: Collection[str]
) -> dict[str, Tensor]:
    """These parameters, and all others of their modules, without which peft does not load a module that it saves."""
    modules = {name.rpartition(".")[0] for name in parameters} - {*adapted}
    more = {
        name: tuned.checkpoint.tensor(stored)
        for stored, name in names.stored.items()
        if name not in parameters and any(name.startswith(f"{module}.") for module in modules)
    }
    return {**parameters, **more}


def described(row: Beside) -> str:
    """A tensor that is not kept, and how far it moved."""
    moved = "not in the base" if row.norm_change != row.norm_change else f"changed by {row.norm_change:.3g}"
    return f"{row.name} {moved}"

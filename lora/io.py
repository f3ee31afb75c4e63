"""Save and load adapters with every trained parameter. A folder holds lora_config.json and adapter.safetensors.

lora_config.json   what was adapted: one entry a target, and the names of the other trained parameters
adapter.safetensors   `<module>.<weight_type>.lora_A` (r, k), `….lora_B` (d, r), what a variant trains beside them, as
                      `….lora_m` (d,) of DoRA, and the other parameters by their names

Adapters with a residual start (pissa, lora_ga) are stored as what they are to the pretrained W0: ordinary LoRA of rank
2r, or of rank min(d, k) should that be smaller (`LoRALayer.matrices`). Loading gives this LoRA: the same outputs from
more parameters.

Adapters of a quantised model are stored as all others, and W0 is what its codes stand for: they can be loaded onto the
model before quantisation, or quantised in another way, where the norms of W0 agree to 1 %. (They do with nf4 and int8,
but with int2 they do not.) Those of a start that has quantised the weights anew (loftq) belong to these, which loading
makes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor, nn

from lora.errors import InputError
from lora.fill import adapters_of, fill, remade_by
from lora.model import base_parameters, lora_layers
from lora.stored import Adapter, Piece, Target
from lora.tensor_files import open_tensors, read_json
from lora.variants import USUAL, Start, Weights, known

__all__ = ["Adapter", "Target", "load", "read", "save", "write"]

CONFIG, WEIGHTS, FORMAT = "lora_config.json", "adapter.safetensors", 1


def save(model: nn.Module, folder: Path | str) -> None:
    """Write every trained parameter of `model` into `folder`, which is made: A, B, m, heads and all else trained.

    Raises InputError if the residual under an adapter with a residual start is trained too.
    """
    folder = Path(folder)
    for name, layer in lora_layers(model):
        if layer.start.residual and layer.weight.requires_grad:
            raise InputError(f"{name}.weight, now the residual of W0, is trained beside its adapter: freeze it to save")
    others = {name: parameter for name, parameter in base_parameters(model).items() if parameter.requires_grad}
    write(folder, adapters_of(model), others, remade_by(model), _apart(model, others))


def write(
    folder: Path,
    adapters: Mapping[Target, Sequence[Tensor]],
    parameters: Mapping[str, Tensor],
    init: str | None = None,
    apart: Sequence[str] = (),
) -> None:
    """Write an adapter folder, which is made, without a model: A, B and what a variant trains beside, of each target,
    and what else was trained, by its name in the model. `init` and `apart` are those of `lora.stored.Adapter`."""
    tensors: dict[str, Tensor] = dict(parameters)
    for target, own in adapters.items():
        tensors |= dict(zip(_names(target), own, strict=True))
    entries = [target.entry() for target in adapters]
    content: dict[str, Any] = {"format": FORMAT, "targets": entries, "trained_parameters": sorted(parameters)}
    if init and init != USUAL:
        content["init"] = init
    if apart:
        content["apart"] = list(apart)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(content, indent=1))


def _apart(model: nn.Module, trained: Mapping[str, Tensor]) -> list[str]:
    """The trained embeddings, input or output, that are tied by the model's config and are not tied in the model."""
    if not getattr(getattr(model, "config", None), "tie_word_embeddings", False):
        return []
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is None:
        return []
    weights = [end.weight for end in (output, cast(Any, model).get_input_embeddings())]
    if weights[0] is weights[1]:
        return []
    return sorted(name for name, own in trained.items() if any(own is weight for weight in weights))


def _names(target: Target) -> list[str]:
    """The names of a target's tensors in the file."""
    return [f"{target.key}.lora_{name}" for name in target.shapes]


def read(folder: Path | str) -> Adapter:
    """An adapter folder, without its model. Raises InputError if a file is missing or damaged, or if there is a tensor
    that the config does not tell of."""
    folder = Path(folder)
    content = read_json(folder / CONFIG)
    if content.get("format") != FORMAT:
        raise InputError(f"{folder / CONFIG} is damaged or of another version (its format is not {FORMAT})")
    try:
        targets = [Target.of(entry) for entry in content["targets"]]
        trained, apart = lists = [content["trained_parameters"], content.get("apart", [])]
        if any(not isinstance(own, list) or not all(isinstance(name, str) for name in own) for own in lists):
            raise TypeError("trained_parameters and apart are lists of names")
        init = content.get("init", USUAL)
        if init not in (USUAL, *(name for name, start in known(Start).items() if start.remakes)):
            raise TypeError(f"init {init!r} is unknown")
        if len({target.key for target in targets}) < len(targets):
            raise TypeError("a target is there twice")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / CONFIG} is damaged ({error})") from error
    file = open_tensors(folder / WEIGHTS)
    pieces = {target: tuple(map(Piece, _names(target))) for target in targets}
    told = {piece.name for own in pieces.values() for piece in own} | set(trained)
    if more := sorted(set(file.shapes) - told):
        raise InputError(f"{file.path} holds {more[0]}, of which {CONFIG} does not tell: one of the two is damaged")
    return Adapter(str(folder), file, pieces, {name: name for name in trained}, frozenset(apart), init=init)


def load(model: nn.Module, folder: Path | str, pretrained: Weights | None = None) -> None:
    """Attach the adapter of `folder` to `model`, with every other parameter that was trained (heads). `pretrained` is
    as of `lora.model.inject`.

    Raises InputError if the adapter is damaged or is for another model; the model is then as it was.
    """
    adapter = read(folder)
    tensors, parameters = adapter.all_tensors(), adapter.parameters()
    fill(model, tensors, parameters, adapter.source, adapter.init, pretrained, adapter.apart)

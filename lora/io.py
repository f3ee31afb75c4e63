"""Save and load adapters with every trained parameter. A folder holds lora_config.json and adapter.safetensors.

lora_config.json   what was adapted: one entry a target, and the names of the other trained parameters
adapter.safetensors   `<module>.<weight_type>.lora_A` (r, k), `….lora_B` (d, r), for DoRA `….lora_m` (d,), and the other
                      parameters by their names

Adapters that started from pissa or lora_ga are stored as what they are to the pretrained W0: ordinary LoRA of rank 2r,
or of rank min(d, k) should that be smaller (`LoRALayer.matrices`). Loading gives this LoRA: the same outputs from more
parameters.

Adapters of a quantised model are stored as all others, and W0 is what its codes stand for: they can be loaded onto the
model before quantisation, or quantised in another way, where the norms of W0 agree to 1 %. (They do with nf4 and int8,
but with int2 they do not.) Those that started from loftq belong to the weights that it has quantised, which loading
makes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lora.config import InputError
from lora.inject import Weights, attach, base_parameters, eject, lora_layers
from lora.targets import layer_of, make_place
from lora.tensor_files import open_tensors

CONFIG, WEIGHTS, FORMAT = "lora_config.json", "adapter.safetensors", 1


class Target(NamedTuple):
    """One adapter: delta_w = scaling * B A of `shape` (d, k), in `module`, with A (r, k) and B (d, r).

    `w0_norm` is the Frobenius norm of the W0 it was trained on, or 0 if that is not known. With `dora` scaling * B A is
    the update of W0's directions alone, and there are magnitudes m (d,).
    """

    module: str
    weight_type: str
    layer: int | None
    r: int
    scaling: float
    shape: tuple[int, int]
    w0_norm: float
    dora: bool = False

    @property
    def key(self) -> str:
        """Prefix of the target's tensors in the file."""
        return f"{self.module}.{self.weight_type}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of A, B and, with DoRA, m."""
        (d, k), r = self.shape, self.r
        return {"A": (r, k), "B": (d, r)} | ({"m": (d,)} if self.dora else {})

    def check(self, tensors: Sequence[Tensor], source: str) -> None:
        """Raises InputError, naming `source`, if A, B or m has not the shape that it must have."""
        needed, found = list(self.shapes.values()), [tuple(tensor.shape) for tensor in tensors]
        if found != needed:
            has, needs = (" and ".join(map("{} {}".format, self.shapes, shapes)) for shapes in (found, needed))
            raise InputError(f"{source} is damaged: {self.key} has {has}, but needs {needs}")


class Adapter(NamedTuple):
    """A stored adapter, read without its model; tensors are read when asked for."""

    folder: Path
    targets: list[Target]
    trained_parameters: list[str]
    init: str = "gaussian"  # or loftq

    def tensors(self, target: Target) -> tuple[Tensor, ...]:
        """A (r, k), B (d, r) and, with DoRA, m (d,), fp32. Raises InputError if the file is damaged."""
        stored = read_tensors(self.folder / WEIGHTS, [f"{target.key}.lora_{name}" for name in target.shapes])
        tensors = tuple(tensor.float() for tensor in stored.values())
        target.check(tensors, str(self.folder))
        return tensors

    def matrices(self, target: Target) -> tuple[Tensor, Tensor]:
        """A (r, k) and B (d, r), fp32. Raises InputError if the file is damaged."""
        A, B, *_ = self.tensors(target)
        return A, B


def read_tensors(path: Path, names: list[str] | None = None) -> dict[str, Tensor]:
    """The named (None: all) tensors of a safetensors file. Raises InputError if it is missing, damaged or lacks one."""
    file = open_tensors(path)
    return file.tensors(file.shapes if names is None else names)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError if the file is missing or no JSON object."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: is its folder an adapter?")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (it holds no JSON object)")
    return content


def _targets(model: nn.Module) -> dict[Target, tuple[Tensor, ...]]:
    """Every adapter of `model`, as an update of the pretrained W0, and its A, B and, with DoRA, m."""
    found: dict[Target, tuple[Tensor, ...]] = {}
    for name, layer in lora_layers(model):
        for part in layer.parts:
            w0 = layer.w0(part)
            d, k = w0.shape
            norm = w0.float().norm().item()
            A, B = layer.matrices(part.name)
            target = Target(name, part.name, layer_of(name), len(A), part.scaling, (d, k), norm, part.dora)
            found[target] = (A, B, layer.lora_m[part.name]) if part.dora else (A, B)
    return found


def save(model: nn.Module, folder: Path | str) -> None:
    """Write every trained parameter of `model` into `folder`, which is made: A, B, m, heads and all else trained.

    Raises InputError if the residual under an adapter that started from pissa or lora_ga is trained too.
    """
    folder = Path(folder)
    for name, layer in lora_layers(model):
        if layer.residual and layer.weight.requires_grad:
            raise InputError(f"{name}.weight, now the residual of W0, is trained beside its adapter: freeze it to save")
    targets = _targets(model)
    others = {name: parameter for name, parameter in base_parameters(model).items() if parameter.requires_grad}
    tensors: dict[str, Tensor] = {**others}
    for target, own in targets.items():
        tensors |= {f"{target.key}.lora_{name}": tensor for name, tensor in zip(target.shapes, own, strict=True)}
    entries = [target._asdict() for target in targets]
    for entry in entries:
        if not entry["dora"]:  # written only where it holds: plain adapters stay readable for versions without DoRA
            del entry["dora"]
    content: dict[str, Any] = {"format": FORMAT, "targets": entries, "trained_parameters": sorted(others)}
    if any(layer.loftq for _, layer in lora_layers(model)):
        content["init"] = "loftq"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(content, indent=1))


def read(folder: Path | str) -> Adapter:
    """An adapter folder, without its model. Raises InputError if a file is missing or damaged."""
    folder = Path(folder)
    content = read_json(folder / CONFIG)
    if content.get("format") != FORMAT:
        raise InputError(f"{folder / CONFIG} is damaged or of another version (its format is not {FORMAT})")
    try:
        targets = [Target(**{**entry, "shape": tuple(entry["shape"])}) for entry in content["targets"]]
        return Adapter(folder, targets, list(content["trained_parameters"]), content.get("init", "gaussian"))
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} is damaged ({error})") from error


@torch.no_grad()
def fill(
    model: nn.Module,
    adapters: Mapping[Target, tuple[Tensor, ...]],
    parameters: Mapping[str, Tensor],
    source: str,
    init: str = "gaussian",
    pretrained: Weights | None = None,
) -> None:
    """Attach `adapters` (A, B and, with DoRA, m) to `model` and copy `parameters` into it. `init` and `pretrained` are
    of `attach`: loftq quantises the weights anew.

    Raises InputError, naming `source`, if a module or parameter does not exist, a shape differs, or W0 is not the one
    trained on; the model is then as it was.
    """
    own = base_parameters(model)
    for name, tensor in parameters.items():
        if name not in own or own[name].shape != tensor.shape:
            there = f"has {tuple(own[name].shape)} there" if name in own else "has no such parameter"
            raise InputError(
                f"{source} is for another model: it trained {name} {tuple(tensor.shape)}, this one {there}"
            )
    for target, tensors in adapters.items():
        target.check(tensors, source)
    try:
        places = [make_place(model, t.module, t.weight_type, t.r, t.scaling, t.dora) for t in adapters]
        attach(model, places, init=init, pretrained=pretrained)
    except InputError as error:
        raise InputError(f"{source} does not fit this model: {error}") from error
    here = {target.key: (target, ours) for target, ours in _targets(model).items()}
    for target in adapters:
        found, _ = here[target.key]
        same_base = not target.w0_norm or abs(found.w0_norm - target.w0_norm) <= 0.01 * target.w0_norm
        if found.shape != target.shape or not same_base:
            eject(model)
            raise InputError(
                f"{source} is for another model: {target.key} was trained on a W0 of shape {target.shape} and norm"
                f" {target.w0_norm:.4g}, here it is {found.shape} and {found.w0_norm:.4g}"
            )
    for target, tensors in adapters.items():
        for ours, stored in zip(here[target.key][1], tensors, strict=True):
            ours.copy_(stored)
    for name, tensor in parameters.items():
        own[name].copy_(tensor)


def load(model: nn.Module, folder: Path | str, pretrained: Weights | None = None) -> None:
    """Attach the adapter of `folder` to `model`, with every other parameter that was trained (heads). `pretrained` is
    as of `lora.inject.inject`.

    Raises InputError if the adapter is damaged or is for another model; the model is then as it was.
    """
    adapter = read(folder)
    adapters = {target: adapter.tensors(target) for target in adapter.targets}
    parameters = read_tensors(adapter.folder / WEIGHTS, adapter.trained_parameters)
    fill(model, adapters, parameters, str(folder), adapter.init, pretrained)

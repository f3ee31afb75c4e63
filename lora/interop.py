"""Adapters of other libraries: peft folders in and out, loralib checkpoints in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lora import dora
from lora.config import InputError, LoRAConfig
from lora.inject import base_parameters, lora_layers
from lora.io import Target, fill, read_json, read_tensors
from lora.layer import Part, turned
from lora.targets import find_places, layer_of, weight_type_of

PEFT_CONFIG, PEFT_WEIGHTS, PEFT_PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
PEFT_MAGNITUDE = "lora_magnitude_vector"  # DoRA's m
# What makes a peft LoRA something else than our LoRA or DoRA on the pretrained W0: options, and inits that change W0
PEFT_OTHER = (
    *("use_qalora", "use_bdlora", "kasa_config", "arrow_config", "alora_invocation_tokens", "lora_bias"),
    *("layer_replication", "trainable_token_indices", "target_parameters"),
)
PEFT_OTHER_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@torch.no_grad()
def save_peft(model: nn.Module, folder: Path | str, base_model: str = "") -> None:
    """Write the adapters and trained heads of `model` as a peft folder, which `peft.PeftModel.from_pretrained` opens.

    Slices of a fused projection become one adapter of all of it: the A's one below the other, each B in its own rows.
    Adapters that started from pissa or lora_ga become ordinary LoRA on the pretrained W0, as in `lora.io`.

    Raises InputError if there are no adapters, if some are DoRA and others not, or if what is trained beside them is no
    module that peft can store.
    """
    folder, layers = Path(folder), dict(lora_layers(model))
    if not layers:
        raise InputError("the model has no LoRA adapters to save")
    kinds = {part.dora for layer in layers.values() for part in layer.parts}
    if len(kinds) > 1:
        raise InputError("peft cannot store a model of which some adapters are DoRA and others are not")
    tensors: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    ranks: dict[str, int] = {}
    for name, layer in layers.items():
        first = layer.parts[0].scaling
        matrices = [layer.matrices(part.name) for part in layer.parts]
        A = torch.cat([A for A, _ in matrices])
        B = A.new_zeros(len(turned(layer.base, layer.weight)), len(A))
        columns = torch.split(B, [len(A) for A, _ in matrices], dim=1)  # views: what is written here is written in B
        for part, (_, own), column in zip(layer.parts, matrices, columns, strict=True):
            column[part.rows] = own * (part.scaling / first)
        kind, ending = ("lora_embedding", "") if isinstance(layer.base, nn.Embedding) else ("lora", ".weight")
        tensors |= {f"{PEFT_PREFIX}{name}.{kind}_{side}{ending}": value for side, value in (("A", A), ("B", B))}
        alphas[name], ranks[name] = first * len(A), len(A)
        if True in kinds:
            m = dora.start(layer.w0(Part("", 1, 1.0)))  # of all rows: those without an adapter keep their norm
            for part in layer.parts:
                m[part.rows] = layer.lora_m[part.name]
            tensors[f"{PEFT_PREFIX}{name}.{PEFT_MAGNITUDE}"] = m
    trained = [name for name, parameter in base_parameters(model).items() if parameter.requires_grad]
    heads = sorted({name.rpartition(".")[0] for name in trained})
    for head in heads:
        if not head or head in layers:
            raise InputError(
                f"peft cannot store {head or trained[0]!r}, trained beside the adapters: only whole modules"
            )
        tensors |= {
            f"{PEFT_PREFIX}{head}.{key}": value for key, value in model.get_submodule(head).state_dict().items()
        }
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "target_modules": sorted(layers),
        "rank_pattern": {f"^{re.escape(name)}": rank for name, rank in ranks.items()},
        "alpha_pattern": {f"^{re.escape(name)}": alpha for name, alpha in alphas.items()},
        "use_dora": True in kinds,
        "modules_to_save": heads or None,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=1))
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / PEFT_WEIGHTS)


def _peft_option(config: dict[str, Any], name: str, patterns: str, module: str) -> Any:
    """peft's rule: the first pattern that matches the end of the module's name, else the option for all (default 8)."""
    matching = (value for key, value in (config.get(patterns) or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matching, config.get(name, 8))


def load_peft(model: nn.Module, folder: Path | str) -> None:
    """Attach a peft LoRA or DoRA adapter to `model`, with the modules it saved beside (`modules_to_save`).

    Raises InputError if the folder is damaged, is for another model, or uses what changes the equation (PiSSA…).
    """
    folder = Path(folder)
    config = read_json(folder / PEFT_CONFIG)
    init = str(config.get("init_lora_weights")).lower()
    other = [name for name in PEFT_OTHER if config.get(name)] + [init] * init.startswith(PEFT_OTHER_INITS)
    if config.get("peft_type") != "LORA" or other:
        what = ", ".join(other) or config.get("peft_type")
        raise InputError(
            f"{folder}: this peft adapter uses {what}, which is not h = W0 x + s B A x on the pretrained W0"
        )
    tensors = {name.removeprefix(PEFT_PREFIX): value for name, value in read_tensors(folder / PEFT_WEIGHTS).items()}
    adapters: dict[Target, tuple[Tensor, ...]] = {}
    for key in [key for key in tensors if re.search(r"\.lora_(embedding_)?A(\.weight)?$", key)]:
        A, B = tensors.pop(key), tensors.pop(re.sub(r"A(\.weight)?$", r"B\1", key), None)
        module = re.sub(r"\.lora_(embedding_)?A(\.weight)?$", "", key)
        if B is None:
            raise InputError(f"{folder}: {module} has an A but no B: the adapter is damaged")
        found: tuple[Tensor, ...] = (A, B)
        if config.get("use_dora"):
            m = tensors.pop(f"{module}.{PEFT_MAGNITUDE}", None)
            if m is None:
                raise InputError(
                    f"{folder}: {module} has no {PEFT_MAGNITUDE}, which DoRA needs: the adapter is damaged"
                )
            found = (A, B, m)
        r, alpha = (
            _peft_option(config, *names, module) for names in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern"))
        )
        if len(A) != r or not isinstance(alpha, int | float):
            told = f"r = {r!r} and lora_alpha = {alpha!r} in {PEFT_CONFIG}"
            raise InputError(f"{folder}: {module} has rank {len(A)} in {PEFT_WEIGHTS}, but {told}")
        scaling = alpha / (r**0.5 if config.get("use_rslora") else r)
        shape = (len(B), A.shape[1])
        weight_type, layer = weight_type_of(model, module), layer_of(module)
        target = Target(module, weight_type, layer, r, scaling, shape, 0.0, bool(config.get("use_dora")))
        adapters[target] = found
    fill(model, adapters, {name.replace(".base_layer.", "."): value for name, value in tensors.items()}, str(folder))


def _in_order(parts: list[Part], module: str) -> list[Part]:
    """The parts as loralib's MergedLinear has them: from the first rows to the last, each a block."""
    blocks = [(part.rows.start or 0, part) for part in parts if isinstance(part.rows, slice)]
    if len(blocks) < len(parts):
        raise InputError(
            f"loralib has no adapter for {parts[0].name} in {module}, whose rows are spread over the heads"
        )
    return [part for _, part in sorted(blocks, key=lambda block: block[0])]


def load_loralib(model: nn.Module, checkpoint: Path | str, config: LoRAConfig) -> None:
    """Attach a loralib checkpoint (`torch.save(loralib.lora_state_dict(model), path)`) to `model`, with all else in it.

    loralib stores neither alpha nor which slices of a MergedLinear are on: `config` tells. Only tensors are unpickled.

    Raises InputError if the file cannot be read, or if it and `config` or `model` do not agree.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{checkpoint} does not exist") from error
    except Exception as error:  # torch.load raises pickle, zip, end-of-file and runtime errors for a damaged file
        raise InputError(f"{checkpoint} is no readable loralib checkpoint ({type(error).__name__})") from error
    if isinstance(state, dict):
        state = state.get("model_state_dict", state)  # loralib's own examples wrap it
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{checkpoint} is no loralib checkpoint: it must hold names and tensors")
    adapters: dict[Target, tuple[Tensor, ...]] = {}
    places = find_places(model, config)
    for module in dict.fromkeys(place.module for place in places):
        parts = _in_order([place.part for place in places if place.module == module], module)
        A, B = state.pop(f"{module}.lora_A", None), state.pop(f"{module}.lora_B", None)
        if A is None or B is None:
            raise InputError(f"{checkpoint} has no lora_A and lora_B for {module}: choose the weight types it trained")
        ranks = [part.r for part in parts]
        if len(A) != sum(ranks):
            raise InputError(
                f"{checkpoint}: A of {module} has rank {len(A)}, but the configuration asks for {sum(ranks)}"
            )
        for part, A_part, B_part in zip(parts, A.split(ranks), B.tensor_split(len(parts)), strict=True):
            shape = (len(B_part), A.shape[1])
            adapters[Target(module, part.name, layer_of(module), part.r, part.scaling, shape, 0.0)] = (A_part, B_part)
    left = [name for name in state if ".lora_" in name]
    if left:
        raise InputError(f"{checkpoint} also adapts {left[0].rpartition('.')[0]}, which the configuration leaves out")
    fill(model, adapters, state, str(checkpoint))

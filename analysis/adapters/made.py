"""An adapter that was computed, not trained, and how it is written: in this suite's format, or as a peft folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from analysis.maths.svd import SVD
from analysis.weights.pretrained import Weights
from lora import io
from lora.config import InputError
from lora.formats import peft_out
from lora.formats.peft import PEFT_WEIGHTS
from lora.fused import Rows
from lora.stored import Target
from lora.targets import WHOLE, types_by_name

# What may be tied to another weight by its name: peft gives a module that it saves a weight of its own
TIED = re.compile(r"(^|[._])(\w*embed\w*|wte|wpe|shared|lm_head|embed_out|output_projection)\.weight$")
OWN, PEFT = "own", "peft"
FORMATS = (OWN, PEFT)


class Made(NamedTuple):
    """What is written.

    adapters    target -> A (r, k), B (d, r)
    parameters  what else was trained, by its name in the model
    apart       those of `parameters` that are not tied to others, as in `lora.stored.Adapter`
    embeddings  the adapted modules that are known to be embeddings
    options     of peft's adapter_config.json, where they are not what A and B say
    """

    adapters: Mapping[Target, tuple[Tensor, Tensor]]
    parameters: Mapping[str, Tensor]
    apart: Sequence[str] = ()
    embeddings: frozenset[str] = frozenset()
    options: Mapping[str, Any] = {}


def factors(svd: SVD, rank: int, scaling: float = 1.0) -> tuple[Tensor, Tensor]:
    """A (rank, k) and B (d, rank) with scaling * B A the best approximation of this rank, each with the root of the
    singular values, so that both are of one size; double precision."""
    root = np.sqrt(svd.S[:rank])
    B = svd.U[:, :rank] * (root / scaling if scaling else 0 * root)
    return torch.from_numpy(root[:, None] * svd.Vh[:rank]), torch.from_numpy(B)


def check_empty(folder: Path) -> None:
    """Raises InputError if a folder to be written is there and holds something, or is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder} is there and not empty: name another folder, or remove it")


def write(made: Made, layout: str, folder: Path, base: Weights | None) -> Path:
    """Write the adapter; returns the file of its tensors. `base` tells which rows of a fused projection a weight type
    has, and what a module is.

    Raises InputError if it cannot be peft's: a base model is needed and not there, or what was trained beside the
    adapters is nothing that peft can store.
    """
    if layout == OWN:
        io.write(folder, made.adapters, made.parameters, apart=made.apart)
        return folder / io.WEIGHTS
    modules = _modules(made, base)
    peft_out.write(folder, modules, made.parameters, _config(made, modules))
    return folder / PEFT_WEIGHTS


def _modules(made: Made, base: Weights | None) -> dict[str, peft_out.Whole]:
    """The adapters of whole modules, as peft has them."""
    parts: dict[str, list[tuple[Tensor, Tensor, float, Rows]]] = {}
    sizes: dict[str, int] = {}
    for target, (A, B) in made.adapters.items():
        rows, sizes[target.module] = _rows(target, base)
        parts.setdefault(target.module, []).append((A, B, target.scaling, rows))
    return {
        module: peft_out.join(own, sizes[module])._replace(embedding=_is_embedding(module, made, base))
        for module, own in parts.items()
    }


def _rows(target: Target, base: Weights | None) -> tuple[Rows, int]:
    """Which rows of its module a target is, and how many the module has."""
    if base and base.has(target.module):
        d, _ = base.shape(target.module, WHOLE)
        return (slice(None) if d == target.shape[0] else base.slices(target.module)[target.weight_type]), d
    if target.weight_type != WHOLE and len(types_by_name(target.module)) != 1:
        raise InputError(
            f"{target.module} has {target.weight_type} in one matrix with others: to write it for peft, which adapts "
            "all of it, give the base model (--base)"
        )
    return slice(None), target.shape[0]


def _is_embedding(module: str, made: Made, base: Weights | None) -> bool:
    found = base.module(module) if base else None
    return isinstance(found, nn.Embedding) if found is not None else module in made.embeddings


def _config(made: Made, modules: Mapping[str, peft_out.Whole]) -> dict[str, Any]:
    """adapter_config.json: the most frequent rank and alpha for all, and patterns for the others."""
    ranks = {name: len(whole.A) for name, whole in modules.items()}
    alphas = {name: _plain(whole.scaling * len(whole.A)) for name, whole in modules.items()}
    (r, alpha), _ = Counter(zip(ranks.values(), alphas.values(), strict=True)).most_common(1)[0]
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "",
        "inference_mode": True,
        **made.options,
        "r": r,
        "lora_alpha": alpha,
        "use_rslora": False,
        "target_modules": sorted(modules),
        **dict.fromkeys(("exclude_modules", "layers_to_transform", "layers_pattern")),
        "rank_pattern": {peft_out.pattern(name): own for name, own in ranks.items() if own != r},
        "alpha_pattern": {peft_out.pattern(name): own for name, own in alphas.items() if own != alpha},
    }


def _plain(alpha: float) -> float | int:
    return int(alpha) if float(alpha).is_integer() else alpha


def saved_modules(parameters: Mapping[str, Tensor], adapted: Sequence[str]) -> dict[str, Any]:
    """peft's options for what was trained beside the adapters: whole modules, and biases of adapted ones.

    Raises InputError for a parameter that is of neither.
    """
    modules, biases = set[str](), False
    for name in parameters:
        module, _, leaf = name.rpartition(".")
        if module in adapted and leaf == "bias":
            biases = True
            continue
        inside = [own for own in adapted if f"{own}.".startswith(f"{module}.")]
        if not module or inside:
            raise InputError(
                f"peft cannot store {name}, trained beside the adapters: only whole modules"
                + (f" without adapters in them ({inside[0]})" if inside else "")
                + ": write it with --format own"
            )
        if f"{module}.weight" not in parameters and leaf == "bias":
            raise InputError(
                f"peft cannot store {name}, trained beside the adapters, without {module}.weight: write it with "
                "--format own"
            )
        modules.add(module)
    return {"modules_to_save": sorted(modules) or None, "bias": "all" if biases else "none"}


def refuse_tied(names: Iterable[str]) -> None:
    """Raises InputError if one of these parameters may be tied to another, of which peft would keep a copy."""
    found = [name for name in names if TIED.search(name)]
    if found:
        raise InputError(
            f"{found[0]}, trained beside the adapters, may be tied to another weight, which peft would leave as it "
            "was: write it with --format own, or load it into its model and use lora.save_peft"
        )

"""`task.start_from=RUN`: a run that starts from the adapter that another has learnt, as the paper's MRPC, RTE and STS-B
start from MNLI's (its Table 2, and Section D.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from experiments.config import RunConfig
from experiments.store import RECORD, definition, store_of
from lora import io
from lora.config import InputError
from lora.fill import adapters_of, slots
from lora.model import lora_layers


@torch.no_grad()
def start(model: nn.Module, config: RunConfig, heads: Sequence[str]) -> None:
    """Copy into `model`, to which the method of `config` was applied, what the run `task.start_from` has trained.

    The head is that run's where it learnt the same task; of another it stays as it was drawn. Raises InputError if that
    run is not here with its adapter, was of another model or method, or has trained something that is not here.
    """
    run, store = config.task["start_from"], store_of(config.results_dir)
    where = f"task.start_from = {run}"
    folder = store.folder(str(run))
    if run not in store:
        raise InputError(f"{where}: there is no such run in {store.root}; train it first, or name its results_dir")
    if not store.has_adapter(run):
        why = "was unpacked from records" if (folder / RECORD).exists() else "has kept none, or it was pruned"
        raise InputError(f"{where}: the run is in {store.root} without its adapter: it {why}; train it again")
    source, here = _config(folder, where), definition(config.given)
    for part in ("model", "method"):
        if source[part] != here[part]:
            raise InputError(f"{where}: that run has another {part}: {_differs(source[part], here[part])}")
    if any(layer.start.residual or layer.start.remakes for _, layer in lora_layers(model)):
        init = config.method["init"]
        raise InputError(f"{where}: method.init = {init} changes the weights under the adapter: give gaussian")
    same_task = source["task"].get("name") == here["task"]["name"]
    skipped = () if same_task else tuple(f"{name}." for name in heads)
    _copy(model, folder / "adapter", skipped, where)


def _config(folder: Path, where: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return {part: dict(found[part]) for part in ("model", "task", "method")}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{where}: {folder / 'config.yaml'} is damaged ({' '.join(str(error).split())})") from error


def _differs(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first field in which two parts of a config differ."""
    field = next(name for name in [*there, *here] if there.get(name) != here.get(name))
    return f"{field} is {there.get(field)!r} there, {here.get(field)!r} here"


def _copy(model: nn.Module, folder: Path, skipped: tuple[str, ...], where: str) -> None:
    """Copy the adapter of a folder into the parameters of the same names, all but those that begin with `skipped`."""
    adapter = io.read(folder)
    places: dict[str, Tensor] = {name: slot.tensor for name, slot in slots(model).items() if slot.tensor.requires_grad}
    for target, tensors in adapters_of(model).items():
        places |= {f"{target.key}.lora_{name}": tensor for name, tensor in zip(target.shapes, tensors, strict=True)}
    names = [name for name in adapter.file.shapes if not name.startswith(skipped or ("\0",))]
    for name, stored in adapter.file.tensors(names).items():
        place = places.get(name)
        if place is None or place.shape != stored.shape:
            has = "is not trained here" if place is None else f"is {tuple(place.shape)} here"
            raise InputError(f"{where}: that run has trained {name} {tuple(stored.shape)}, which {has}")
        place.copy_(stored)

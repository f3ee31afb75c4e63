"""runtime.offload=auto: a base that is larger than its device, by accelerate.

What does not fit beside a step stays in the machine's memory, and what does not fit there on its disk; a module's
weights are brought to the device for as long as it computes. On a CPU the device is the machine's memory.

accelerate puts other parameters in the place of those that it moves, and an optimizer would go on with the old ones. So
what is trained is on the device, and modules are dispatched one by one: never an adapted layer, whose A and B would go
with it, but its frozen base. Weights are kept from the backward pass only where activations are computed again.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from experiments.config import RunConfig
from experiments.engines import sizing
from lora.config import InputError
from lora.model import trainable_parameters

logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # it warns that weights are elsewhere


def free(device: torch.device) -> float:
    """Bytes that a run may take on a device."""
    if device.type == "cuda":
        return sizing.SHARE * torch.cuda.mem_get_info(device)[0]
    return sizing.SHARE * sizing.memory() - sizing.PROCESS


def room(config: RunConfig, device: torch.device) -> int | None:
    """Bytes of `device` for weights, beside what a step takes; None if the whole run is planned to fit.

    Raises InputError for a device of another kind, and where a step alone does not fit.
    """
    if config.runtime.offload is None:
        return None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"runtime.offload = auto is for cuda and cpu, not for {device.type}: set it to null")
    plan, there = sizing.plan(config, device.type), free(device)
    step = sizing.SPREAD * (plan.peak - plan.weights)
    if plan.weights + step <= there:
        return None
    left = there - step - 4 * plan.trainable_params
    if left <= 0:
        raise InputError(
            f"runtime.offload = auto: a step takes {(step) / sizing.GIB:.1f} GB without weights, there are "
            f"{there / sizing.GIB:.1f}: lower training.batch_size, or raise training.accumulate"
        )
    return int(left)


@contextmanager
def dispatched(model: PreTrainedModel, device: torch.device, room: int | None, folder: Path) -> Iterator[None]:
    """Within it an adapted `model` computes on `device` with at most `room` bytes of weights there, what is on the disk
    in `folder`; weights that are elsewhere cannot be read, nor merged. After it they are in the machine's memory."""
    if room is None:
        yield
        return
    # Seconds to import, that other runs do not need.
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.hooks import remove_hook_from_submodules
    from accelerate.utils import find_tied_parameters, retie_parameters

    here: Any = "cpu" if device.type == "cpu" else device.index or torch.cuda.current_device()
    limits = {here: room} if here == "cpu" else {here: room, "cpu": int(sizing.SHARE * sizing.memory())}
    for tensor in (*trainable_parameters(model).values(), *model.buffers()):
        tensor.data = tensor.data.to(device)
    blocks = infer_auto_device_map(model, limits, no_split_module_classes=list(model._no_split_modules or ()))
    tied = find_tied_parameters(model)
    with tempfile.TemporaryDirectory(prefix=".offload", dir=folder) as place:
        dispatch_model(model, _places(model, blocks, here), main_device=here, offload_dir=place)
        try:
            yield
        finally:
            remove_hook_from_submodules(model)
            retie_parameters(model, tied)


def _places(model: nn.Module, blocks: Mapping[str, Any], here: Any) -> dict[str, Any]:
    """Where each module is that has weights of its own: as its block, but on the device if some of it is trained."""
    found: dict[str, Any] = {}
    owners = {key.rpartition(".")[0] for key in model.state_dict()}
    for name, module in model.named_modules():
        if name not in owners or any(name.startswith(f"{outer}.") for outer in found):
            continue
        trained = any(parameter.requires_grad for parameter in module.parameters())
        where = (at for block, at in blocks.items() if not block or f"{name}.".startswith(f"{block}."))
        found[name] = here if trained else next(where, "cpu")  # no block has all of it: its tensors are on several
    return found

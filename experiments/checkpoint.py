"""Where a run that takes long goes on after a kill: everything that its next epoch depends on, after every n epochs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.parallel import rank
from lora.config import InputError


@dataclass
class Position:
    """How far a run has come: epochs and steps done, seconds and tokens trained, validation scores of the last epoch
    and the share of its items that were right, memory after the first, and the rows of its history."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    memory: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


class Checkpoint:
    """The file `path`, written every `every` epochs: trained parameters, the optimizer's state, the schedule, and the
    generators of random numbers. A run that goes on from it ends as one that was never killed, bit for bit."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def load(
        self, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, order: torch.Generator
    ) -> Position:
        """Set all to where they were; the first position if there is no file. Raises InputError if it is damaged."""
        if not self.path.is_file():
            return Position()
        parameters = _parameters(optimizer)
        try:
            found = torch.load(self.path, weights_only=True)
            with torch.no_grad():
                for parameter, value in zip(parameters, found["parameters"], strict=True):
                    parameter.copy_(value)
            for parameter, state in zip(parameters, found["state"], strict=True):
                # Not load_state_dict, which casts every tensor to the precision of its parameter.
                optimizer.state[parameter] = {
                    name: value.to(parameter.device) if isinstance(value, Tensor) and name != "step" else value
                    for name, value in state.items()
                }
            scheduler.load_state_dict(found["schedule"])
            for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = lr
            for generator, state in zip(self._generators(optimizer, order), found["generators"], strict=True):
                generator.set_state(state)
            return Position(**found["position"])
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path} is damaged ({reason}): delete it, the run begins anew") from error

    def save(
        self,
        position: Position,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        order: torch.Generator,
    ) -> None:
        """Write the file, whole, if it is time to; of several processes the first does."""
        if position.epoch % self.every or rank():
            return
        parameters = _parameters(optimizer)
        content = {
            "parameters": [parameter.detach() for parameter in parameters],
            "state": [dict(optimizer.state.get(parameter, {})) for parameter in parameters],
            "schedule": scheduler.state_dict(),
            "generators": [generator.get_state() for generator in self._generators(optimizer, order)],
            "position": position.__dict__,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}")
        torch.save(content, temporary)
        temporary.replace(self.path)

    def _generators(self, optimizer: torch.optim.Optimizer, order: torch.Generator) -> Sequence[torch.Generator]:
        """Those of dropout, on the processor and the GPU, of the order of the rows, and of the optimizer's rounding."""
        found = [torch.default_generator, order]
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            found.append(torch.cuda.default_generators[torch.cuda.current_device()])
        rounding = getattr(optimizer, "generator", None)
        return found if rounding is None else [*found, rounding]


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

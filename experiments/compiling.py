"""runtime.compile: the layers of a model compiled by torch.compile while it trains.

A layer at a time: layers are alike, so the first one's code serves all, and it compiles in seconds where a model takes
minutes. Evaluation stays as it is: each length of a key-value cache would be compiled anew.
"""

from __future__ import annotations

import torch

from experiments.layers import layers
from experiments.problems.base import Problem
from lora.config import InputError

BACKEND = "inductor"


def compile_layers(problem: Problem, device: torch.device) -> None:
    """Compile the layers of the model of `problem`, for training alone.

    Raises InputError for a model without a list of layers, and where `device` has no compiler.
    """
    found = layers(problem.model)
    try:
        torch.compile(torch.neg, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # each backend has its own
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"runtime.compile = true: torch.compile fails here ({reason}); set it to false") from error
    torch.compiler.reset()  # torch gives up, unsaid, after so many compilations, those of earlier runs included
    for layer in found:
        layer.compile(dynamic=True, backend=BACKEND)
    problem.evaluate = torch.compiler.set_stance("force_eager")(problem.evaluate)  # type: ignore[method-assign]

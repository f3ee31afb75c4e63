"""method.budget: a number of parameters in place of method.r, resolved before a run is identified.

A run has the r that its budget buys and no budget: it is the run, with the run_id, of that r.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments import method_settings
from lora.config import InputError, LoRAConfig

if TYPE_CHECKING:
    from torch import nn

AS_MUCH_AS = re.compile(r"(?P<weight_types>[a-z.+]+)@(?P<r>\d+)")


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config without `method.budget`: where that is not null, `method.r` is the rank that it buys.

    A budget is a number of parameters of A and B (and DoRA's m), or `q@20`: as many as LoRA on q has at r = 20. Of the
    model only its config is read. Raises InputError if method.r is given too, that is, differs from its default; if the
    budget is not as said or cannot be met exactly; and as `experiments.models.skeleton`.
    """
    method = dict(config["method"])
    if "r" not in method:
        return dict(config)  # it has no rank to be bought
    budget = method.pop("budget", None)
    if budget is not None:
        method["r"] = _rank(config["model"]["path"], method, budget)
    return {**config, "method": method}


def _rank(path: str, method: Mapping[str, Any], budget: object) -> int:
    default = LoRAConfig.r
    if method["r"] != default:
        raise InputError(
            f"method.budget = {budget} and method.r = {method['r']} are both given: the budget says what r is, leave r "
            f"at {default}, its default"
        )
    if method["modules"]:
        raise InputError(f"method.budget = {budget} is for weight types: with method.modules give method.r")
    # Seconds that a run without a budget, if it is stored, does not need.
    from experiments.methods import lora
    from experiments.models import skeleton
    from lora.budget import rank

    settings = method_settings.lora(method)
    assert settings is not None  # it alone has a budget
    network, config = skeleton(path), lora.config(settings)
    try:
        return rank(network, config, _parameters(network, config, budget))
    except InputError as error:
        raise InputError(f"method.budget = {budget}: {error}") from error


def _parameters(network: nn.Module, config: LoRAConfig, budget: object) -> int:
    """The budget as a number of parameters."""
    from lora.budget import parameters

    if isinstance(budget, int) and not isinstance(budget, bool):
        return budget
    other = AS_MUCH_AS.fullmatch(str(budget))
    if not other:
        raise InputError("it must be a number of parameters, or as in q@20 weight types and the r of theirs it equals")
    weight_types = tuple(other["weight_types"].split("+"))
    plain = LoRAConfig(r=int(other["r"]), weight_types=weight_types, layers=config.layers)
    return parameters(network, plain)

"""A fine-tuned model and its base: whether the one can have come from the other, as far as their weights tell."""

from __future__ import annotations

from typing import NamedTuple

from analysis.weights import beside
from analysis.weights.module_names import quantised
from analysis.weights.pretrained import Weights
from lora.config import InputError
from lora.formats.peft import is_peft
from lora.tensor_files import TensorFile


class Pair(NamedTuple):
    """The weights of both, by the modules of one model, and what a reader must know of them."""

    tuned: Weights
    base: Weights
    notes: list[str]


def pair(name: str, tuned: Weights | TensorFile, base: Weights | None) -> Pair:
    """The weights of `tuned`, called `name`, beside those of its base.

    Raises InputError if there is no base, if one of the two is quantised or has an adapter in it, or if they share no
    weight matrix, or one of another shape.
    """
    if base is None:
        raise InputError(f"{name} holds whole weights, no adapter: its updates need the model it started from, --base")
    notes = beside.of_rest(tuned) if isinstance(tuned, TensorFile) else []
    tuned = tuned if isinstance(tuned, Weights) else base.of(tuned)
    for weights in (tuned, base):
        beside.refuse_codes(weights.source, quantised(weights.checkpoint.where))
    names = tuned.checkpoint.where
    inside = [own for own in names if ".lora_" in own or beside.WRAPPED.search(own)]
    if inside or is_peft(names):
        raise InputError(
            f"{name} holds a model with an adapter in it, merged or not ({inside[0] if inside else 'peft'}): take the "
            "adapter out (merge_and_unload), and save it again"
        )
    there = tuned.sites
    shared = [at for site, at in base.sites.items() if there.get(site) == at]
    if not shared:
        raise InputError(f"{name} has no weight matrix of {base.source}: it is of another model, or trained none")
    for at in shared:
        if tuned.shape(*at) != base.shape(*at):
            raise InputError(
                f"{name} is of another model than {base.source}: {at[0]} is {tuned.shape(*at)} in one and "
                f"{base.shape(*at)} in the other"
            )
    dtypes = [str(weights.stored_dtype(shared[0][0])).removeprefix("torch.") for weights in (tuned, base)]
    rounded = (
        f"stored in {dtypes[0]} and its base in {dtypes[1]}: delta_w has the rounding to the coarser of the two too"
    )
    return Pair(tuned, base, [*([rounded] * (base.dtype is None and dtypes[0] != dtypes[1])), *notes])

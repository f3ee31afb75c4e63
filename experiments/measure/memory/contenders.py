"""The methods that tables of memory compare, with the settings of LLaMA-Factory's examples and defaults."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import NamedTuple

from experiments.measure.memory import compose
from experiments.measure.memory.setup import Setup

ALL_LINEAR = "{linear}"  # in a field: every weight type that the model has


class Contender(NamedTuple):
    """A method, as its config in experiments/conf/method with some fields, and the precision it is trained in."""

    title: str
    method: str
    precision: str
    fields: tuple[str, ...] = ()


_LORA = ("method.r=8", f"method.weight_types={ALL_LINEAR}")
CONTENDERS = (
    Contender("full, AMP", "full", "amp"),
    Contender("full, 16 bits", "full", "pure16"),
    Contender("freeze, last 2 layers", "freeze", "bf16", ("method.layers=2",)),
    Contender("GaLore, r = 128", "galore", "pure16", ("method.r=128",)),
    Contender("BAdam", "badam", "pure16"),
    Contender("LoRA", "lora", "bf16", _LORA),
    Contender("QLoRA, 8 bits", "lora", "bf16", (*_LORA, "model.quantization=int8")),
    Contender("QLoRA, 4 bits", "lora", "bf16", (*_LORA, "model.quantization=nf4")),
    Contender("QLoRA, 2 bits", "lora", "bf16", (*_LORA, "model.quantization=int2")),
)


class Traits(NamedTuple):
    """What a model's config says: its number of parameters, its linear weight types, whether it is a language model (or
    has a new head), the positions it was pretrained for, and the most tokens that it can read at all: more, if its
    positions are rotary; and the quantisation that its weights are stored in, or None."""

    parameters: int
    weight_types: str
    writes_text: bool
    positions: int
    limit: int
    quantization: str | None = None


@cache
def traits(model: str) -> Traits:
    """Traits of a model as typed by a user.

    Raises InputError if its config cannot be found or read, or is of no model that is planned for.
    """
    import torch  # seconds
    import transformers

    from experiments.layers import positions
    from experiments.measure.memory.network import model_class, network_config, stored_as, writes_text
    from lora.targets import typed_places

    path = compose.composed(model, ["full"])[0].model["path"]
    config = network_config(path)
    writes = writes_text(config)
    kind, quantization = model_class(config, path, writes), stored_as(config, path)
    with torch.device("meta"):
        network = kind.from_config(config) if writes else transformers.AutoModel.from_config(config)
    types = dict.fromkeys(place.part.name for place in typed_places(network))
    most = positions(network)
    rotary = getattr(config, "rope_parameters", None) is not None
    limit = 1 << 20 if rotary else most
    return Traits(network.num_parameters(), "+".join(types), writes, most, limit, quantization)


def setup(model: str, contender: Contender, batch: int, length: int, checkpointing: bool) -> Setup:
    """The setup on a GPU; of a language model each token but the last has logits. Raises InputError as `composed`."""
    known = traits(model)
    fields = [field.replace(ALL_LINEAR, known.weight_types) for field in contender.fields]
    (plain,) = compose.composed(model, [contender.method], fields)
    return dataclasses.replace(
        plain,
        batch=batch,
        length=length,
        targets=length - 1 if known.writes_text else None,
        precision=contender.precision,
        checkpointing=checkpointing,
        device="cuda",
    )

"""The model of a setup as fake tensors: its modules, and what a method makes of them, without weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from experiments.memory import quantized, step
from experiments.memory.setup import LABELS, Setup
from experiments.models import SAFE, head_modules, locate, set_dropout
from lora.config import InputError


def network_config(path: str) -> Any:
    """The config of a model, as `experiments.models.locate` finds it.

    Raises InputError if it cannot be found or read.
    """
    place = locate(path)
    try:
        return transformers.AutoConfig.from_pretrained(place, **SAFE)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise InputError(f"model {path} cannot be read: {' '.join(str(error).split())[:300]}") from error


def build(setup: Setup) -> PreTrainedModel:
    """The model before its method. To be called, and used, within a FakeTensorMode."""
    config = network_config(setup.model["path"])
    set_dropout(config, setup.model)
    config._attn_implementation = "eager" if setup.device == "cpu" else "sdpa"
    kind: Any = transformers.AutoModelForCausalLM
    if setup.targets is None:
        kind, config.num_labels, config.problem_type = (
            transformers.AutoModelForSequenceClassification, LABELS, "single_label_classification",
        )  # fmt: skip
    dtype = torch.float32 if setup.precision == "fp32" else torch.bfloat16
    try:
        with no_init_weights():
            network: PreTrainedModel = kind.from_config(config, dtype=dtype, **SAFE)
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"model {setup.model['path']} cannot be made: {reason}") from error
    network.tie_weights()
    network.config.pad_token_id = 0
    if setup.targets is None:
        for name in head_modules(network):
            step.cast(network.get_submodule(name), torch.float32)
    if setup.model.get("quantization") is not None:
        quantized.quantize(network, setup.model["quantization"])
    return network

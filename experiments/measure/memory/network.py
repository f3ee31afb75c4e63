"""The model of a setup as fake tensors: its modules, and what a method makes of them, without weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from experiments import quantization
from experiments.hub import locate
from experiments.measure.memory import training_step
from experiments.measure.memory.setup import LABELS, Setup
from experiments.models import SAFE, head_modules, set_dropout
from lora.config import InputError
from lora.quantized import KINDS
from lora.quantized.int8 import OUTLIER

# The defaults of bitsandbytes' config
BITSANDBYTES = {
    "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False, "llm_int8_threshold": OUTLIER,
    "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None,
}  # fmt: skip
# Settings of it that are those of `lora.quantized.KINDS`
PLANNED: dict[str, tuple[str, dict[str, object]]] = {
    "load_in_4bit": ("nf4", {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "load_in_8bit": ("int8", {"llm_int8_threshold": OUTLIER, "llm_int8_has_fp16_weight": False}),
}
STORED = ("quantization_config", "compression_config")  # where a config says in which way its weights are quantised


def network_config(path: str) -> Any:
    """The config of a model, as `experiments.hub.locate` finds it.

    Raises InputError if it cannot be found or read.
    """
    place = locate(path)
    try:
        return transformers.AutoConfig.from_pretrained(place, **SAFE)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise InputError(f"model {path} cannot be read: {' '.join(str(error).split())[:300]}") from error


def writes_text(config: Any) -> bool:
    """Whether a config is of a model with a language model's head, and not of a body or a classifier."""
    architectures: Any = getattr(config, "architectures", None) or []
    return any(name.endswith(("CausalLM", "LMHeadModel")) for name in architectures)


def model_class(config: Any, path: str, writes: bool) -> Any:
    """The class of transformers that makes the model of a config: a language model, or a classifier of texts.

    Raises InputError for a config of which there is none: models of images, of sound, and others.
    """
    kind: Any = transformers.AutoModelForCausalLM if writes else transformers.AutoModelForSequenceClassification
    if type(config) not in kind._model_mapping:
        what = "language models" if writes else "classifiers of text"
        raise InputError(
            f"model {path} is of the type {config.model_type}, of which transformers has no {what}: a step is planned "
            "for language models and classifiers of text alone"
        )
    return kind


def stored_as(config: Any, path: str) -> str | None:
    """In which of `lora.quantized.KINDS` the weights are stored already, by the config's quantization_config; None:
    in floating point.

    Raises InputError for every other way to store them, which is not planned for.
    """
    own = (getattr(place, name, None) for place in (config, config.get_text_config()) for name in STORED)
    stored: Any = next((each for each in own if each), None)
    if stored is None:
        return None
    options = BITSANDBYTES | (stored if isinstance(stored, dict) else stored.to_dict())
    bits = next((name for name in PLANNED if options.get(name)), "")
    kind, settings = PLANNED.get(bits, ("", {}))
    usual = options["llm_int8_skip_modules"] in (None, ["lm_head"])
    if kind and usual and all(options[name] == value for name, value in settings.items()):
        return kind
    method = " ".join(part for part in (str(options.get("quant_method", "an unknown way")), bits) if part)
    raise InputError(
        f"model {path} is stored quantised ({method}), which is not planned for: plan the model that it was made from, "
        "with model.quantization=nf4, int8 or int2 if need be"
    )


def build(setup: Setup) -> PreTrainedModel:
    """The model before its method. To be called, and used, within a FakeTensorMode."""
    config = network_config(setup.model["path"])
    set_dropout(config, setup.model.get("dropout"))
    config._attn_implementation = "eager" if setup.device == "cpu" else "sdpa"
    kind = model_class(config, setup.model["path"], setup.targets is not None)
    if setup.targets is None:
        config.num_labels, config.problem_type = LABELS, "single_label_classification"
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
            training_step.cast(network.get_submodule(name), torch.float32)
    if setup.model.get("quantization") is not None:
        kind = setup.model["quantization"]
        quantization.replace_layers(network, kind, lambda weight, bias: KINDS[kind].hollow(weight, bias))
    return network

"""Which library wrote an adapter that is read neither as peft's nor as loralib's, as far as its file tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lora.errors import InputError
from lora.tensor_files import TensorFile

# A name that a library alone gives, in the order in which they are tried
NAMES: tuple[tuple[str, str], ...] = (
    (r"\.loras\.[^.]+\.lora_[AB]$|\.adapters\.[^.]+\.adapter_(down|up)", "adapters (AdapterHub)"),
    (r"^lora_(unet|te\d*|transformer)_|\.(lora_down|lora_up)\.weight$", "kohya (sd-scripts)"),
    (r"\.lora\.(down|up)\.weight$|\.lora_linear_layer\.|\.processor\..*lora", "diffusers"),
    (r"\.(hada_w[12]_[ab]|lokr_w[12](_[ab])?|oft_blocks)$", "LyCORIS"),
    (
        r"(^|\.)transformer\.h\.\d+\.(attn\.(attn|qkv|proj)|mlp\.(fc|fc_1|fc_2|proj))\.(linear\.weight|lora_[AB]$)",
        "litgpt",
    ),
    (r"(^|\.)layers\.\d+\.attn\.(q_proj|k_proj|v_proj|output_proj)\.(lora_a|lora_b|magnitude)", "torchtune"),
    (r"(^|\.)layers\.\d+\..*\.lora_[ab]\.weight$", "torchtune"),
    (r"\.lora_[ab]$", "MLX"),
    (r"adapter.*\.(linear_in|linear_out)\.weight$", "NeMo"),
)


def library_of(file: TensorFile) -> str | None:
    """The library that wrote a file of tensors, by their names and what the file says of itself."""
    if any(key.startswith("ss_") for key in file.metadata):
        return "kohya (sd-scripts)"
    for pattern, library in NAMES:
        if any(re.search(pattern, name) for name in file.shapes):
            return library
    return None


def library_of_config(config: Mapping[str, Any]) -> str | None:
    """The library that wrote an adapter_config.json without a peft_type."""
    if "peft_type" in config:
        return None
    if str(config.get("version", "")).startswith(("adapters.", "adapter-transformers")) or "model_class" in config:
        return "adapters (AdapterHub)"
    if "lora_parameters" in config or "fine_tune_type" in config or "lora_layers" in config:
        return "MLX"
    return None


def refuse_other(file: TensorFile) -> None:
    """Raises InputError, with its name, for a file of a library that is not read here."""
    if library := library_of(file):
        raise InputError(f"{file.path} is an adapter of {library}, which is not read here: give it in peft's format")

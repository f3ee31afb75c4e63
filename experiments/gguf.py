"""A GGUF file as a model folder in Hugging Face layout: transformers reads such files, but cannot save them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers


def convert(gguf: Path, folder: Path) -> None:
    """Writes the de-quantised weights in bf16, the config and the tokenizer to `folder`, and deletes the file."""
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name, "trust_remote_code": False}
    read = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    content = read.config.to_dict()
    del content["quantization_config"]  # the weights are not quantised any more
    model = transformers.AutoModelForCausalLM.from_config(type(read.config)(**content), dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    gguf.unlink()
    if bars:
        transformers.logging.enable_progress_bar()

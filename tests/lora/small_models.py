"""Small random models of many architectures, made from their default configs with other sizes; nothing downloaded."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HEADS, KEY_HEADS, HEAD, WIDTH = 4, 2, 8, 32
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "attention_heads"), HEADS),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "hidden_dim", "dff"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), 32),
    "vocab_size": 64, "num_key_value_heads": KEY_HEADS, "head_dim": HEAD, "num_buckets": 8,
    "image_size": 8, "patch_size": 4, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "sep_token_id": 2,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "sliding_window": 8,
}  # fmt: skip
IDS = torch.tensor([[5, 9, 17, 33, 2, 40, 7, 3], [8, 8, 60, 3, 21, 11, 50, 9]])


def small_model(kind: str, **options: Any) -> Any:
    """The body of a model type in evaluation mode with eager attention, every weight large enough to matter. `options`
    change its config; those named like a part of it (`text_config`) change that part's."""
    torch.manual_seed(0)
    config = _config(CONFIG_MAPPING[kind](), options)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").float()
    for name, parameter in model.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        nn.init.normal_(parameter, mean=1.0 if is_scale else 0.0, std=0.2)
    return model.eval()


def _config(default: Any, options: dict[str, Any]) -> Any:
    parts = getattr(default, "sub_configs", {})
    renamed = set(getattr(default, "attribute_map", {}))
    fields = {name: value for name, value in SIZES.items() if name in vars(default) and name not in renamed}
    inner = {name: _config(getattr(default, name), options.get(name, {})).to_dict() for name in parts}
    return type(default)(**(inner | fields | {name: value for name, value in options.items() if name not in parts}))


def output(model: Any) -> Tensor:
    """The last hidden state, or the two towers' embeddings of a model of images and texts, for fixed inputs."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    inputs: dict[str, Tensor] = {}
    if model.main_input_name == "pixel_values" or hasattr(config, "vision_config"):
        size = getattr(config, "vision_config", config).image_size
        inputs["pixel_values"] = torch.randn(2, 3, size, size, generator=generator)
    if model.main_input_name == "input_features":
        inputs["input_features"] = torch.randn(
            2, config.num_mel_bins, 2 * config.max_source_positions, generator=generator
        )
    if model.main_input_name == "input_ids":
        inputs["input_ids"] = IDS
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = IDS.flip(0)
    if getattr(config, "add_cross_attention", False):
        inputs["encoder_hidden_states"] = torch.randn(2, 6, WIDTH, generator=generator)
    with torch.no_grad():
        made = model(**inputs)
    if hasattr(made, "text_embeds"):
        return torch.cat([made.text_embeds, made.image_embeds])
    hidden: Tensor = made[0]
    return hidden

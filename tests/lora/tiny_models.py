"""Tiny models with random weights, one of each supported architecture: 2 layers, width 32, nothing downloaded."""

import torch
import transformers
from torch import Tensor, nn

from lora import targets, variants
from lora.config import LoRAConfig

HIDDEN, VOCABULARY, LAYERS, HEADS, KEY_HEADS, INNER = 32, 64, 2, 4, 2, 48

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_SIZES, "num_key_value_heads": KEY_HEADS}

# model_type -> (config class, its arguments, model class)
_MODELS: dict[str, tuple[str, dict[str, object], str]] = {
    "bert": ("BertConfig", _SIZES, "BertForSequenceClassification"),
    "roberta": ("RobertaConfig", _SIZES, "RobertaForSequenceClassification"),
    "deberta-v2": (
        "DebertaV2Config",
        {**_SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
        "DebertaV2ForSequenceClassification",
    ),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 32}
        | {"bos_token_id": 1, "eos_token_id": 2},
        "GPT2LMHeadModel",
    ),
    "gpt_neox": ("GPTNeoXConfig", _SIZES, "GPTNeoXForCausalLM"),
    "opt": (
        "OPTConfig",
        {**_SIZES, "ffn_dim": INNER, "word_embed_proj_dim": HIDDEN},
        "OPTForCausalLM",
    ),
    "bloom": (
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": HEADS}
        | {"bos_token_id": 1, "eos_token_id": 2},
        "BloomForCausalLM",
    ),
    "llama": ("LlamaConfig", _GROUPED, "LlamaForCausalLM"),
    "mistral": ("MistralConfig", _GROUPED, "MistralForCausalLM"),
    "qwen2": ("Qwen2Config", _GROUPED, "Qwen2ForCausalLM"),
    "gemma": ("GemmaConfig", {**_GROUPED, "head_dim": 12}, "GemmaForCausalLM"),
    "phi3": ("Phi3Config", _GROUPED, "Phi3ForCausalLM"),
    "t5": (
        "T5Config",
        {"vocab_size": VOCABULARY, "d_model": HIDDEN, "d_kv": 8, "d_ff": INNER, "num_layers": LAYERS}
        | {"num_heads": HEADS, "feed_forward_proj": "gated-gelu", "pad_token_id": 0, "decoder_start_token_id": 0},
        "T5ForConditionalGeneration",
    ),
}
ARCHITECTURES = tuple(_MODELS)
_STARTS = variants.known(variants.Start)
STARTS = tuple(name for name, start in _STARTS.items() if not start.remakes)  # of models in floating point
RESIDUAL = tuple(name for name, start in _STARTS.items() if start.residual)
INPUTS = torch.tensor([[5, 9, 17, 33, 2, 40, 7], [8, 8, 60, 3, 21, 11, 50]])


def tiny_model(kind: str, seed: int = 0, **options: object) -> nn.Module:
    """A model in evaluation mode with eager attention; `options` change its config."""
    config_class, arguments, model_class = _MODELS[kind]
    config = getattr(transformers, config_class)(**(arguments | {"attn_implementation": "eager"} | options))
    torch.manual_seed(seed)
    model: nn.Module = getattr(transformers, model_class)(config)
    for name, parameter in model.named_parameters():  # biases and norms too, and large enough that every path matters
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        nn.init.normal_(parameter, mean=1.0 if is_scale else 0.0, std=0.2)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    """The outputs of a model for INPUTS: (2, classes) or (2, 7, vocabulary)."""
    config = getattr(model, "config", None)
    extra = {"decoder_input_ids": INPUTS.flip(0)} if getattr(config, "is_encoder_decoder", False) else {}
    return model(input_ids=INPUTS, **extra).logits


def randomise(model: nn.Module, seed: int = 1) -> None:
    """Give every A and B of either library values that matter, as training would."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)


def assert_equal(ours: Tensor, theirs: Tensor, what: str = "outputs") -> None:
    """Equal to the rounding of fp32, relative to the largest entry."""
    error, size = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert error <= 5e-5 * size, f"{what}: {error} of {size}"


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_identical(model: nn.Module, before: dict[str, Tensor]) -> None:
    """The model has the names and, bit for bit, the tensors of `before`."""
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def every_type(kind: str, **fields: object) -> LoRAConfig:
    """r = 2 for every weight type that the architecture has."""
    return LoRAConfig(**({"r": 2, "weight_types": targets.weight_types(tiny_model(kind))} | fields))

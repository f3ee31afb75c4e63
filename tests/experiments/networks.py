"""Tiny models with random weights, the settings of every method, and a batch: shared by the tests of the methods."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from experiments import methods
from experiments.models import head_modules
from lora.model import trainable_parameters

D, LAYERS, VOCABULARY, POSITIONS, INNER = 16, 3, 40, 32, 24
PAD = 1
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SIZES),
    "roberta": ("Roberta", _SIZES),
    "deberta-v2": (
        "DebertaV2",
        {**_SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "gpt2": ("GPT2", {"vocab_size": VOCABULARY, "n_embd": D, "n_layer": LAYERS, "n_head": 2, "n_positions": POSITIONS}),
    "llama": ("Llama", {**_SIZES, "num_key_value_heads": 1}),
}
KINDS = tuple(_CONFIGS)
BLOCK = {  # the name of a layer
    "bert": "bert.encoder.layer.{}",
    "roberta": "roberta.encoder.layer.{}",
    "deberta-v2": "deberta.encoder.layer.{}",
    "gpt2": "transformer.h.{}",
    "llama": "model.layers.{}",
}
O_DOWN = {  # within a layer
    **dict.fromkeys(("bert", "roberta", "deberta-v2"), ("attention.output.dense", "output.dense")),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
}
Q_V = {
    **dict.fromkeys(("bert", "roberta"), ("attention.self.query", "attention.self.value")),
    "deberta-v2": ("attention.self.query_proj", "attention.self.value_proj"),
    "gpt2": ("attn.c_attn",),
    "llama": ("self_attn.q_proj", "self_attn.v_proj"),
}

_DECODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODERS: dict[str, dict[str, int]] = {
    "llama": {**_DECODER, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "qwen2": {**_DECODER, "num_key_value_heads": 2},
}

LORA = {"name": "lora", "r": 2, "alpha": 4, "weight_types": "q+v", "modules": [], "layers": None, "dropout": 0.0}
PROMPT = {"l_p": 3, "l_i": 2}
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "head_only": {},
    "bitfit": {},
    "ft_top2": {"layers": 2},
    "adapter_h": {"bottleneck": 4},
    "adapter_l": {"bottleneck": 4},
    "adapter_p": {"bottleneck": 4},
    "adapter_d": {"bottleneck": 4, "drop": 2},
    "prefix_embed": PROMPT,
    "prefix_layer": PROMPT,
    "lora": LORA,
    "lora+prefix_embed": {**LORA, **PROMPT},
    "lora+prefix_layer": {**LORA, **PROMPT},
    "lora+bitfit": LORA,
}
METHODS = {name: {**fields, "name": name} for name, fields in METHODS.items()}
PAIRS = [(kind, name) for kind in KINDS for name in METHODS if not (kind == "llama" and "bitfit" in name)]
every_pair = pytest.mark.parametrize(("kind", "name"), PAIRS)


def network(kind: str, task: str = "ForSequenceClassification", **options: Any) -> Any:
    """A model in evaluation mode with weights, biases and norms that all matter; the same ones at every call."""
    family, sizes = _CONFIGS[kind]
    fixed = {"pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 3, "attn_implementation": "eager"}
    config = getattr(transformers, f"{family}Config")(**{**sizes, **fixed, **options})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}{task}")(config)
    for name, parameter in model.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        nn.init.normal_(parameter, mean=1.0 if is_scale else 0.0, std=0.2)
    return model.eval()


def adapted(kind: str, method: Mapping[str, Any], **options: Any) -> Any:
    """A classifier after `methods.apply`."""
    model = network(kind, **options)
    methods.apply(model, method, head_modules(model))
    return model


def padded(rows: list[list[int]], left: bool = False) -> dict[str, Tensor]:
    """input_ids and attention_mask of rows of unequal lengths."""
    longest = max(map(len, rows))
    pads = [[0] * (longest - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    mask = [pad + one if left else one + pad for pad, one in zip(pads, ones, strict=True)]
    ids = [[PAD] * len(pad) + row if left else row + [PAD] * len(pad) for pad, row in zip(pads, rows, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


ROWS = [[2, 9, 17, 33, 21, 3], [2, 8, 3], [2, 30, 11, 3]]
BATCH = {**padded(ROWS), "labels": torch.tensor([0, 1, 1])}


def train(model: Any, method: Mapping[str, Any], batch: Mapping[str, Tensor], steps: int = 6) -> list[float]:
    """The losses of some steps of AdamW at learning rate 0.01."""
    optimizer = torch.optim.AdamW(methods.parameter_groups(model, method, [], 1e-2), weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


def trained_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in trainable_parameters(model).values())


def randomise_trained(model: nn.Module) -> None:
    """Give what is trained values that matter, as training would."""
    torch.manual_seed(1)
    for parameter in trainable_parameters(model).values():
        nn.init.normal_(parameter, std=0.3)

"""How models name the projections of attention and MLP. A name counts by what stands beside it: an `out_proj` is o
where there are q, k and v, and a `dense` elsewhere is nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

There = Callable[[str], bool]  # whether a model has a module of this name

_LETTERS = (
    "{}_proj", "{}_lin", "W{}", "w{}", "linear_{}", "to_{}", "project_{}", "{}_head", "{}",
)  # fmt: skip
_WORDS = ("{}", "{}_proj", "projection_{}")
TRIOS = (
    *(tuple(form.format(x) for x in "qkv") for form in _LETTERS),
    *(tuple(form.format(x) for x in ("query", "key", "value")) for form in _WORDS),
)
FUSED = {  # weight types in one matrix, by its name; of c_attn with q_attn beside it, k and v alone
    **dict.fromkeys(
        ("query_key_value", "c_attn", "Wqkv", "qkv", "qkv_proj", "att_proj", "W_pack", "in_proj_qkv", "in_proj_qkvz"),
        ("q", "k", "v"),
    ),
    "kv_b_proj": ("k", "v"),
    "to_kv": ("k", "v"),
}
# Of one type each, told by what stands beside: DeepSeek's queries, in two steps or one, and those beside a fused k, v
_ALONE = {"q_b_proj": ("q_a_proj",), "q_proj": ("kv_b_proj",), "q_attn": ("c_attn",), "to_q": ("to_kv",)}
OUTPUTS = (
    *("o_proj", "out_proj", "o", "dense", "c_proj", "Wo", "out_lin", "proj", "linear_out", "attention_out"),
    *("projection", "projection_layer", "to_out", "post_proj"),
)
# The output projection beside the module that has q, k and v, which is one of these
_OUTSIDE = ("output.dense", "output")
_INNER = ("self", "attention", "attn", "att", "longformer_self_attn", "self_attention")
MLPS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"up_proj": ("up",), "gate_proj": ("gate",), "down_proj": ("down",)},
    {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)},
    {"intermediate.dense": ("up",), "output.dense": ("down",)},
    {"intermediate_query.dense": ("up",), "output_query.dense": ("down",)},
    {"dense_h_to_4h": ("up",), "dense_4h_to_h": ("down",)},
    {"c_fc": ("up",), "c_proj": ("down",)},
    {"fc1": ("up",), "fc2": ("down",)},
    {"fc_in": ("up",), "fc_out": ("down",)},
    {"lin1": ("up",), "lin2": ("down",)},
    {"linear1": ("up",), "linear2": ("down",)},
    {"linear_fc1": ("up",), "linear_fc2": ("down",)},
    {"w3": ("up",), "w1": ("gate",), "w2": ("down",)},
    {"wi": ("up",), "wo": ("down",)},
    {"wi_1": ("up",), "wi_0": ("gate",), "wo": ("down",)},
    {"Wi": ("gate", "up"), "Wo": ("down",)},
    {"input_linear": ("gate", "up"), "output_linear": ("down",)},
    {"intermediate_dense": ("up",), "output_dense": ("down",)},
    {"proj_up": ("up",), "proj_up_gate": ("gate",), "proj_down": ("down",)},
    {"w_in.w_1": ("up",), "w_in.w_0": ("gate",), "w_out": ("down",)},
    {"layer_1": ("up",), "layer_2": ("down",)},
    {"dense1": ("up",), "dense2": ("down",)},
    {"intermediate": ("up",), "output": ("down",)},
    {"ffn": ("up",), "ffn_output": ("down",)},
)  # a gate may be missing
_NO_MLP = re.compile(r"router|norm|(^|\.)gate(\.|$)")
ATTENTION = re.compile(r"(?i)attn|attention|(^|_|\.)att(\.|$)")
# Fused projections of which each weight type's rows are spread over heads or groups of them
SPREAD = re.compile(r"(^|\.)(query_key_value|attention\.self\.in_proj|kv_b_proj|in_proj_qkvz|attn\.qkv_proj)$")
TOWERS = {
    "vision": r"vision|visual|image|video",
    "text": r"text|language",
    "audio": r"audio|speech",
    "encoder": r"(\w+_)?encoder",
    "decoder": r"(\w+_)?decoder",
}
_ATTENTION_NAMES = {name for trio in TRIOS for name in trio} | {*FUSED, *_ALONE, *OUTPUTS, "in_proj", "q_a_proj"}
_MLP_NAMES = {name.rpartition(".")[2] for scheme in MLPS for name in scheme}
CROSS = re.compile(r"(?i)cross|encoder_attn|encdec")


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)


def fused(block: str, leaf: str) -> tuple[str, ...]:
    """The weight types that a projection of this name has in one matrix, if it is such a one."""
    if leaf == "in_proj":  # DeBERTa's; Mamba's is something else
        return ("q", "k", "v") if block.endswith("attention.self") else ()
    return FUSED.get(leaf, ())


def _of_attention(block: str, leaf: str, there: There) -> tuple[str, ...]:
    """The weight types of `leaf` in a block of attention: q, k and v."""

    def has(*names: str) -> bool:
        return all(there(_join(block, name)) for name in names)

    if leaf in _ALONE and has(*_ALONE[leaf]):
        return ("q",)
    if fused(block, leaf):
        return ("k", "v") if leaf == "c_attn" and has("q_attn") else fused(block, leaf)
    for trio in TRIOS:
        # Some layers have no k and v of their own, but those of another.
        if leaf in trio and has(trio[0]) and (has(*trio) or any(map(has, OUTPUTS))):
            return ("qkv"[trio.index(leaf)],)
    return ()


def _attends(block: str, there: There) -> bool:
    """Whether a block has q, k and v of its own."""
    names = {*FUSED, "in_proj", *_ALONE, *(trio[0] for trio in TRIOS)}
    return any(there(_join(block, name)) and _of_attention(block, name, there) for name in names)


def _of_mlp(module: str, there: There) -> tuple[str, ...]:
    for scheme in MLPS:
        for ending, types in scheme.items():
            block = module.removesuffix(ending)
            if block == module or (block and not block.endswith(".")) or _NO_MLP.search(block):
                continue
            if all(there(block + name) for name in scheme if "gate" not in scheme[name] or "up" in scheme[name]):
                return types
    return ()


def types_of(module: str, there: There) -> tuple[str, ...]:
    """The weight types of a module by its name, in the order of the rows if it is fused: none for a module that is
    neither attention's nor an MLP's in a layer."""
    module = module.removesuffix(".linear")  # some projections are wrapped
    block, _, leaf = module.rpartition(".")
    found = _of_attention(block, leaf, there)
    if not found and layer_of(module) is not None:
        found = _of_mlp(module, there)
    if not found and leaf in OUTPUTS and _attends(block, there):
        found = ("o",)
    for ending in _OUTSIDE if not found else ():
        around = module.removesuffix(f".{ending}")
        if around != module and any(_attends(_join(around, inner), there) for inner in _INNER):
            found = ("o",)
    return found


def outputs_of(block: str) -> list[str]:
    """Names that the output projection of a block of attention may have."""
    around, _, inner = block.rpartition(".")
    outside = [_join(around, ending) for ending in _OUTSIDE] if inner in _INNER else []
    return [*(_join(block, name) for name in OUTPUTS), *outside]


def by_name_alone(name: str) -> bool:
    """A stand-in for `There` where the model is not known: that is there which is likely from the path to it."""
    block, _, leaf = name.rpartition(".")
    parts = block.split(".")[-2:]
    if leaf == "q_attn":  # GPT-2 has it for a decoder's attention to an encoder alone
        return CROSS.search(block) is not None
    if ATTENTION.search(".".join(parts)):
        return leaf in _ATTENTION_NAMES and parts[-1] != "intermediate"
    return leaf in _MLP_NAMES


def towers_of(module: str) -> tuple[str, ...]:
    """Which of several towers a module lies in, by its name: the attention of a decoder to an encoder is none of the
    decoder's, but `cross`."""
    number = re.search(r"(?:^|\.)\d+(?:\.|$)", module)
    before, behind = (module[: number.start()], module[number.end() :]) if number else ("", module)
    parts = before.split(".")
    found = [name for name, form in TOWERS.items() if any(re.fullmatch(rf"({form})(_\w+)?", part) for part in parts)]
    if CROSS.search(behind) or CROSS.search(before):
        found = [name for name in found if name not in ("encoder", "decoder")] + ["cross"]
    return tuple(found)


def layer_of(module: str) -> int | None:
    """The layer a module lies in: the first number in its name (`bert.encoder.layer.3.attention…` -> 3)."""
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", module)
    return int(number.group(1)) if number else None

"""Weight types are what the forward pass uses them as, in every scheme of names, and most models have one."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import peft
import pytest
import torch
import transformers
from small_models import HEAD, HEADS, KEY_HEADS, WIDTH, output, small_model
from tiny_models import assert_equal, randomise
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lora import schemes, targets
from lora.config import InputError, LoRAConfig
from lora.layer import adaptable, shape
from lora.model import inject, lora_layers

LATENT: dict[str, Any] = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6, "head_dim": 4,
    "num_key_value_heads": HEADS,
}  # fmt: skip
DELTA: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 4, "linear_value_head_dim": 6,
}  # fmt: skip
# A model of each scheme: the end of the names of its q, what its config is given, and v's where it is no sibling of q
APART: dict[str, tuple[str, str, dict[str, Any]]] = {
    "distilbert": (r"attention\.q_lin", r"attention\.v_lin", {}),
    "flaubert": (r"attentions\.\d\.q_lin", r"attentions\.\d\.v_lin", {}),
    "albert": (r"attention\.query", r"attention\.value", {}),
    "mpnet": (r"attention\.attn\.q", r"attention\.attn\.v", {}),
    "gptj": (r"attn\.q_proj", r"attn\.v_proj", {"rotary_dim": 4}),
    "gpt_neo": (r"attn\.attention\.q_proj", r"attn\.attention\.v_proj", {"attention_types": [[["global"], 2]]}),
    "phi": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "starcoder2": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "gemma3_text": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "gpt_oss": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "qwen2_moe": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "nemotron": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "ctrl": (r"multi_head_attention\.Wq", r"multi_head_attention\.Wv", {}),
    "cpmant": (r"self_attention\.project_q", r"self_attention\.project_v", {}),
    "prophetnet": (r"(self|cross)_attn\.query_proj", r"(self|cross)_attn\.value_proj", {}),
    "moshi": (r"self_attn\.q_proj\.linear", r"self_attn\.v_proj\.linear", {}),
    "modernbert-decoder": (r"attn\.q_proj", r"attn\.v_proj", {}),
    "granite_speech": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "data2vec-vision": (r"attention\.attention\.query", r"attention\.attention\.value", {}),
    "bart": (r"(self_attn|encoder_attn)\.q_proj", r"(self_attn|encoder_attn)\.v_proj", {}),
    "whisper": (r"(self_attn|encoder_attn)\.q_proj", r"(self_attn|encoder_attn)\.v_proj", {}),
    "vit": (r"attention\.q_proj", r"attention\.v_proj", {}),
    "clip": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "siglip": (r"self_attn\.q_proj", r"self_attn\.v_proj", {}),
    "bert": (r"(attention|crossattention)\.self\.query", r"(attention|crossattention)\.self\.value",
             {"add_cross_attention": True, "is_decoder": True}),
}  # fmt: skip
# name of a test -> model type, options of its config, the fused module, and the number of its rows
FUSED: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "falcon, one key": ("falcon", {}, "h.0.self_attention.query_key_value", (HEADS + 2) * HEAD),
    "falcon, by head": ("falcon", {"multi_query": False}, "h.1.self_attention.query_key_value", 3 * WIDTH),
    "falcon, groups": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": KEY_HEADS},
                       "h.0.self_attention.query_key_value", (HEADS + 2 * KEY_HEADS) * HEAD),
    "bloom": ("bloom", {}, "h.0.self_attention.query_key_value", 3 * WIDTH),
    "gpt_neox": ("gpt_neox", {}, "layers.1.attention.query_key_value", 3 * WIDTH),
    "persimmon": ("persimmon", {}, "layers.0.self_attn.query_key_value", 3 * WIDTH),
    "mpt": ("mpt", {}, "blocks.1.attn.Wqkv", 3 * WIDTH),
    "modernbert": ("modernbert", {}, "layers.1.attn.Wqkv", 3 * WIDTH),
    "gpt_bigcode, one key": ("gpt_bigcode", {}, "h.0.attn.c_attn", (HEADS + 2) * HEAD),
    "gpt_bigcode, by head": ("gpt_bigcode", {"multi_query": False}, "h.1.attn.c_attn", 3 * WIDTH),
    "gpt2": ("gpt2", {}, "h.1.attn.c_attn", 3 * WIDTH),
    "imagegpt": ("imagegpt", {}, "h.0.attn.c_attn", 3 * WIDTH),
    "codegen": ("codegen", {"rotary_dim": 4}, "h.1.attn.qkv_proj", 3 * WIDTH),
    "phi3": ("phi3", {}, "layers.0.self_attn.qkv_proj", (HEADS + 2 * KEY_HEADS) * HEAD),
    "minimax": ("minimax", {"layer_types": ["linear_attention", "full_attention"]}, "layers.0.self_attn.qkv_proj",
                3 * WIDTH),
    "deberta": ("deberta", {}, "encoder.layer.1.attention.self.in_proj", 3 * WIDTH),
    "blip": ("blip", {}, "vision_model.encoder.layers.0.self_attn.qkv", 3 * WIDTH),
    "vitdet": ("vitdet", {}, "encoder.layer.1.attention.qkv", 3 * WIDTH),
    "deepseek_v3": ("deepseek_v3", LATENT, "layers.1.self_attn.kv_b_proj", HEADS * (8 + 6)),
    "deepseek_v2": ("deepseek_v2", {**LATENT, "q_lora_rank": None}, "layers.0.self_attn.kv_b_proj", HEADS * (8 + 6)),
    "qwen3_next, gated": ("qwen3_next", DELTA, "layers.1.self_attn.q_proj", 2 * HEADS * HEAD),
    "qwen3_next": ("qwen3_next", DELTA, "layers.0.linear_attn.in_proj_qkvz", 2 * 8 + 2 * 4 * 6),
    "qwen3_5": ("qwen3_5_text", DELTA, "layers.0.linear_attn.in_proj_qkv", 2 * 8 + 4 * 6),
}  # fmt: skip
PRODUCTS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.baddbmm, Tensor.baddbmm, torch.einsum,
    nn.functional.scaled_dot_product_attention,
}  # fmt: skip
# What the tables of names had before schemes: stored runs and adapters count on these, module by module
BERT = {
    "q": r"attention\.self\.query", "k": r"attention\.self\.key", "v": r"attention\.self\.value",
    "o": r"attention\.output\.dense", "up": r"intermediate\.dense", "down": r"\d+\.output\.dense",
}  # fmt: skip
LLAMA = {**{x: rf"self_attn\.{x}_proj" for x in "qkvo"}, **{x: rf"mlp\.{x}_proj" for x in ("up", "gate", "down")}}
NEOX = {
    **dict.fromkeys("qkv", r"(self_)?attention\.query_key_value"), "o": r"(self_)?attention\.dense",
    "up": r"mlp\.dense_h_to_4h", "down": r"mlp\.dense_4h_to_h",
}  # fmt: skip
BEFORE: dict[str, dict[str, str]] = {
    "bert": BERT, "roberta": BERT, "xlm-roberta": BERT, "camembert": BERT, "electra": BERT, "llama": LLAMA,
    "mistral": LLAMA, "mixtral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "gemma": LLAMA, "gemma2": LLAMA, "olmo2": LLAMA,
    "smollm3": LLAMA, "gpt_neox": NEOX, "bloom": NEOX,
    "deberta-v2": {"q": r"self\.query_proj", "k": r"self\.key_proj", "v": r"self\.value_proj",
                   "o": r"attention\.output\.dense", "up": r"intermediate\.dense", "down": r"\d+\.output\.dense"},
    "gpt2": {**dict.fromkeys("qkv", r"attn\.c_attn"), "o": r"attn\.c_proj", "up": r"mlp\.c_fc", "down": r"mlp\.c_proj"},
    "opt": {**{x: rf"self_attn\.{x}_proj" for x in "qkv"}, "o": r"self_attn\.out_proj", "up": "fc1", "down": "fc2"},
    "phi3": {**dict.fromkeys("qkv", r"self_attn\.qkv_proj"), "o": r"self_attn\.o_proj",
             **dict.fromkeys(("up", "gate"), r"mlp\.gate_up_proj"), "down": r"mlp\.down_proj"},
    "t5": {**{x: rf"(SelfAttention|EncDecAttention)\.{x}" for x in "qkvo"}, "up": r"DenseReluDense\.(wi|wi_1)",
           "gate": r"DenseReluDense\.wi_0", "down": r"DenseReluDense\.wo"},
}  # fmt: skip


class Used(TorchFunctionMode):
    """What the forward pass of a block computes from: q k^T and the probabilities with v, its first two products, or
    what it gives to the rule of its linear attention."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.inside = False
        self.operands: list[tuple[Tensor, Tensor]] = []
        self.library = sys.modules[type(block).__module__]
        block.register_forward_pre_hook(lambda *_: setattr(self, "inside", True))
        block.register_forward_hook(lambda *_: setattr(self, "inside", False))

    def _note(self, *tensors: Tensor) -> None:
        if self.inside and all(tensor.ndim > 2 for tensor in tensors):  # else it is a linear layer
            first, second, *third = (tensor.detach().clone() for tensor in tensors)
            self.operands += [(first, second), *((first, value) for value in third)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS:
            given = [*args, *(kwargs[name] for name in ("batch1", "batch2", "other") if name in kwargs)]
            own = {"baddbmm": slice(1, 3), "einsum": slice(1, 3), "scaled_dot_product_attention": slice(3)}
            self._note(*given[own.get(func.__name__, slice(2))])
        return func(*args, **kwargs)

    def of(self, model: Any) -> dict[str, Tensor]:
        """q, k and v of the block in a forward pass of the model."""
        self.operands, self.inside = [], False
        name = "torch_chunk_gated_delta_rule"
        rule: Any = getattr(self.library, name, None)

        def noted(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
            self._note(q, k, v)
            return rule(q, k, v, **options)

        with mock.patch.object(self.library, name, noted, create=True), self:
            output(model)
        (q, k), (_, v) = self.operands[:2]
        return {"q": q, "k": k, "v": v}


@contextmanager
def changed(weight: Tensor, rows: Any) -> Iterator[None]:
    before = weight.detach().clone()
    with torch.no_grad():
        weight[rows] += torch.randn(weight[rows].shape, generator=torch.Generator().manual_seed(3))
        yield
        weight.copy_(before)


def matrix(module: Any) -> Tensor:
    """The weight (d, k) of h = W x, a view."""
    weight: Tensor = module.weight.data
    return weight if isinstance(module, nn.Linear) else weight.T


def assert_used_as_said(model: Any, module: str) -> set[str]:
    """Changing the rows of a weight type in the block of `module` changes q, k or v of the model's own attention, that
    one and no other. Returns the types that the block has."""
    block = module.removesuffix(".linear").rpartition(".")[0]
    used = Used(model.get_submodule(block))
    before, found = used.of(model), set()
    for place in targets.typed_places(model):
        if place.module.removesuffix(".linear").rpartition(".")[0] == block and place.part.name in "qkv":
            with changed(matrix(model.get_submodule(place.module)), place.part.rows):
                after = used.of(model)
            assert [name for name in before if not torch.equal(after[name], before[name])] == [place.part.name]
            found.add(place.part.name)
    return found


@pytest.mark.parametrize("kind", APART)
def test_q_alone_is_pefts_lora_on_the_same_modules(kind: str) -> None:
    q, v, options = APART[kind]
    for weight_type, ending in (("q", q), ("v", v)):
        ours, base = small_model(kind, **options), small_model(kind, **options)
        pretrained = output(ours)
        inject(ours, LoRAConfig(r=2, alpha=6, weight_types=(weight_type,)))
        randomise(ours)
        out = output(ours)
        assert (out - pretrained).abs().max() > 1e-4
        # Patterns of peft know nothing of layers: those of a text model alone, where others have the same names
        where = r"(language_model\.)?" if kind != "granite_speech" else r"language_model\."
        theirs: Any = peft.get_peft_model(
            base, peft.LoraConfig(r=2, lora_alpha=6, target_modules=rf"({where}.*\.)?{ending}")
        )
        twins = {name: module for name, module in base.named_modules() if hasattr(module, "lora_A")}
        layers = dict(lora_layers(ours))
        assert set(twins) == {name for name in layers if kind != "granite_speech" or name.startswith("language_model")}
        if kind == "granite_speech":  # the speech encoder's own q and v are tested by their rows
            continue
        with torch.no_grad():
            for name, twin in twins.items():
                twin.lora_A["default"].weight.copy_(layers[name].lora_A[weight_type])
                twin.lora_B["default"].weight.copy_(layers[name].lora_B[weight_type])
        assert_equal(out, output(theirs.base_model.model), weight_type)
    model = small_model(kind, **options)
    first = next(place.module for place in targets.typed_places(model) if re.search(q + "$", place.module))
    assert assert_used_as_said(model, first) == {"q", "k", "v"}


@pytest.mark.parametrize("name", FUSED)
def test_the_rows_of_a_fused_projection_are_what_attention_takes_them_for(name: str) -> None:
    kind, options, module, size = FUSED[name]
    model = small_model(kind, **options)
    parts = targets.parts_of(model, module)
    d, _ = shape(model.get_submodule(module))
    assert d == size
    rows = {weight_type: torch.arange(d)[rows].tolist() for weight_type, rows in parts.items()}
    taken = [row for own in rows.values() for row in own]
    assert len(set(taken)) == len(taken)
    assert assert_used_as_said(model, module) == {"q", "k", "v"}
    rest = sorted(set(range(d)) - set(taken))
    assert bool(rest) == (name in ("qwen3_next", "qwen3_next, gated"))  # they have gates among the rows
    if rest:
        used = Used(model.get_submodule(module.rpartition(".")[0]))
        before = used.of(model)
        with changed(matrix(model.get_submodule(module)), rest):
            assert all(torch.equal(tensor, before[own]) for own, tensor in used.of(model).items())


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_name_alone_says_what_is_in_it(name: str) -> None:
    """And where rows are spread over heads, a library that has only blocks of rows cannot have them."""
    kind, options, module, _ = FUSED[name]
    parts = targets.parts_of(small_model(kind, **options), module)
    assert sorted(targets.types_by_name(module)) == sorted(parts)
    if any(isinstance(rows, Tensor) for rows in parts.values()) and not name.startswith(
        ("gpt_bigcode", "minimax", "qwen3_next,")
    ):
        assert targets.spread_over_heads(module)


def test_towers_are_named_apart() -> None:
    def found(model: Any, *weight_types: str) -> set[str]:
        return {place.module for place in targets.find_places(model, LoRAConfig(r=1, weight_types=weight_types))}

    bart = small_model("bart")
    assert found(bart, "encoder.q") == {f"encoder.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    assert found(bart, "decoder.q") == {f"decoder.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    assert found(bart, "cross.q") == {f"decoder.layers.{layer}.encoder_attn.q_proj" for layer in (0, 1)}
    assert found(bart, "encoder.q", "decoder.q", "cross.q") == found(bart, "q")
    clip = small_model("clip")
    assert all(name.startswith("vision_model.") for name in found(clip, "vision.v"))
    assert found(clip, "vision.v") | found(clip, "text.v") == found(clip, "v")
    ranks = LoRAConfig(r={"cross.q": 3, "encoder.v": 1}, weight_types=("cross.q", "encoder.v"))
    inject(bart, ranks)
    assert {(name.split(".")[3], layer.parts[0].name, layer.parts[0].r) for name, layer in lora_layers(bart)} == {
        ("encoder_attn", "q", 3), ("self_attn", "v", 1),
    }  # fmt: skip
    with pytest.raises(InputError, match="q of module encoder.layers.0.self_attn.q_proj is chosen twice: by q and"):
        found(small_model("bart"), "q", "encoder.q")
    with pytest.raises(
        InputError, match="a bart model has no q in a tower 'vision': there is one of encoder, decoder, cr"
    ):
        found(small_model("bart"), "vision.q")
    with pytest.raises(InputError, match="unknown tower 'eye' of weight type 'eye.q': choose from encoder, decoder"):
        LoRAConfig(weight_types=("eye.q",))


def on_meta(kind: str) -> Any:
    """The body of a model type by its default config, with two layers; None where there is none."""
    try:
        config = CONFIG_MAPPING[kind]()
        for part in (
            config,
            *(value for value in vars(config).values() if isinstance(value, transformers.PretrainedConfig)),
        ):
            for name, value in vars(part).items():
                if re.fullmatch(r"(n|num|encoder|decoder)_.*layers?", name) and isinstance(value, int) and value > 2:
                    setattr(part, name, 2)
        with torch.device("meta"):
            return transformers.AutoModel.from_config(config)
    except Exception:  # what a default config or a missing library can raise is without end
        return None


def test_most_text_models_of_transformers_have_q_and_v(capsys: pytest.CaptureFixture[str]) -> None:
    """Some 20 seconds on one core."""
    of_text = {
        *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, *auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }  # fmt: skip
    known: dict[str, bool] = {}
    for kind in sorted(of_text & set(auto.MODEL_MAPPING_NAMES)):
        model = on_meta(kind)
        if model is not None:
            types = targets.weight_types(model)
            known[kind] = {"q", "v"} <= set(types)
            names = dict(model.named_modules())
            for name in names:  # no layout of a fused projection is left open
                if schemes.types_of(name, names.__contains__) and adaptable(names[name]):
                    assert targets.parts_of(model, name), (kind, name)
    without = [kind for kind, there in known.items() if not there]
    share = 1 - len(without) / len(known)
    with capsys.disabled():
        print(f"\nq and v are known in {share:.1%} of {len(known)} text models; not in {', '.join(without)}")
    assert len(known) > 200
    assert share >= 0.85


@pytest.mark.parametrize("kind", BEFORE)
def test_models_known_before_have_the_same_targets(kind: str) -> None:
    model = on_meta(kind)
    names = [name for name, _ in model.named_modules()]
    expected = {(name, x) for name in names for x, end in BEFORE[kind].items() if re.search(rf"(^|\.){end}$", name)}
    found = targets.typed_places(model)
    assert {(place.module, place.part.name) for place in found} == expected
    assert len(found) == len(expected)


def test_where_nothing_is_known_the_error_lists_what_looks_like_attention() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.mlp = nn.ModuleDict({"all_in_one": nn.Linear(4, 12)}), nn.Linear(4, 4)

    with pytest.raises(InputError, match=r"by pattern \(these look like attention: \*\.attn\.all_in_one\)"):
        inject(nn.Sequential(Strange(), Strange()), LoRAConfig(r=1))
    with pytest.raises(InputError, match=r"by pattern \(none looks like attention\)"):
        inject(nn.Sequential(nn.Linear(4, 4)), LoRAConfig(r=1))


def test_a_fused_projection_of_unknown_order_is_refused() -> None:
    """A qkv_proj without what tells Phi-3's, CodeGen's or MiniMax's, beside a layer that is known."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    known = nn.ModuleDict({"self_attn": nn.ModuleDict({name: nn.Linear(8, 8) for name in names})})
    fused = nn.ModuleDict({"self_attn": nn.ModuleDict({"qkv_proj": nn.Linear(8, 24), "out_proj": nn.Linear(8, 8)})})
    with pytest.raises(
        InputError, match="1.self_attn.qkv_proj of a Sequential model has q in one matrix with others, in"
    ):
        inject(nn.Sequential(known, fused), LoRAConfig(r=1))


def test_deepseeks_low_rank_projections() -> None:
    """q is what makes queries of their low rank; the matrices that lead into the low ranks are of no type."""
    model = small_model("deepseek_v3", **LATENT)
    types: dict[str, set[str]] = {place.module: set() for place in targets.typed_places(model)}
    for place in targets.typed_places(model):
        types[place.module].add(place.part.name)
    attention = {name.rpartition(".")[2]: own for name, own in types.items() if ".0.self_attn." in name}
    assert attention == {"q_b_proj": {"q"}, "kv_b_proj": {"k", "v"}, "o_proj": {"o"}}
    with pytest.raises(
        InputError, match="deepseek_v4 model has no weight type 'v': it has q.*look like attention too.*kv_proj"
    ):
        inject(on_meta("deepseek_v4"), LoRAConfig(r=1))


def test_chatglm_has_its_few_key_heads_below_all_queries() -> None:
    """As its published code splits them: 4 query heads of 8, then 2 key and 2 value heads; without groups by head."""
    attention = nn.ModuleDict({"query_key_value": nn.Linear(32, 64), "dense": nn.Linear(32, 32)})
    model: Any = nn.Sequential(nn.ModuleDict({"self_attention": attention}))
    model.config = SimpleNamespace(model_type="chatglm", multi_query_attention=True, num_attention_heads=4)
    found = targets.parts_of(model, "0.self_attention.query_key_value")
    assert found == {"q": slice(0, 32), "k": slice(32, 48), "v": slice(48, 64)}
    attention["query_key_value"], model.config.multi_query_attention = nn.Linear(32, 96), False
    found = targets.parts_of(model, "0.self_attention.query_key_value")
    assert torch.arange(96)[found["k"]].tolist() == [head * 24 + 8 + row for head in range(4) for row in range(8)]
    attention["query_key_value"] = nn.Linear(32, 80)  # neither of them: nothing is known of its rows
    assert targets.parts_of(model, "0.self_attention.query_key_value") == {}

"""Plans of training steps: against real models, against formulas, and a few layers against all of them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import trained_count
from safetensors import safe_open
from torch import nn

from experiments import methods
from experiments.measure.memory import depth, network
from experiments.measure.memory import planner as planning
from experiments.measure.memory.fake import fake
from experiments.measure.memory.setup import Plan, Setup
from experiments.measure.memory.trace import BACKWARD, COPIES, FORWARD, GRADIENT, LOGITS, Trace
from experiments.models import head_modules
from lora import io, quantized
from lora.config import InputError

VOCABULARY, WIDTH, DEPTH, DEEP, ROWS, LENGTH, TARGETS = 90, 64, 2, 6, 3, 16, 5
_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 64,
}  # fmt: skip


def config(kind: str, depth: int) -> Any:
    """A small model of so many layers."""
    sizes = {**_SIZES, "num_hidden_layers": depth}
    if kind == "gpt2":
        return transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=depth, n_head=4, n_positions=64)
    if kind == "mixtral":
        return transformers.MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=4)
    if kind == "llama":
        return transformers.LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True)
    return transformers.BertConfig(**sizes)


LORA = {"name": "lora", "r": 4, "weight_types": "q+v"}
GALORE = {"name": "full", "optimizer": "galore", "r": 8, "refresh": 5, "scale": 1.0}
BADAM = {"name": "full", "optimizer": "badam", "switch": 5, "order": "random", "block": 1}
PREFIX = {"name": "prefix_layer", "l_p": 3, "l_i": 2}


@pytest.fixture(scope="session")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Setup]:
    """A setup of a small model: a classifier for bert, a language model for the others."""
    root = tmp_path_factory.mktemp("configs")

    def made(
        kind: str, method: dict[str, Any], quantization: str | None = None, depth: int = DEPTH, **own: Any
    ) -> Setup:
        folder = root / f"{kind}-{depth}"
        if not folder.exists():
            config(kind, depth).save_pretrained(folder)
        model = {"name": kind, "path": str(folder), "dropout": 0.0, "quantization": quantization}
        targets = None if kind == "bert" else TARGETS
        return Setup(model, method, **{"batch": ROWS, "length": LENGTH, "targets": targets, **own})

    return made


_PLANS: dict[str, Plan] = {}


def plan(wanted: Setup) -> Plan:
    """The plan of a setup, made once."""
    key = str(wanted)
    if key not in _PLANS:
        _PLANS[key] = planning.plan(wanted)
    return _PLANS[key]


def real(kind: str, method: dict[str, Any]) -> Any:
    """The model of a setup with its method, with weights."""
    family = transformers.AutoModelForSequenceClassification if kind == "bert" else transformers.AutoModelForCausalLM
    model = family.from_config(config(kind, DEPTH))
    methods.apply(model, method, head_modules(model) if kind == "bert" else [])
    return model


def held(found: Plan) -> int:
    """Bytes that last from step to step, and the gradients."""
    return found.weights + found.master + found.gradients + found.optimizer


SHORTENED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {"name": "full"}, {"checkpointing": True}),
    ("llama", LORA, {"quantization": "nf4", "checkpointing": True}),
    ("llama", {**LORA, "layers": [1, 2, 3, 4]}, {"device": "cuda", "batch": 1}),
    ("llama", {"name": "freeze", "layers": 4}, {"precision": "amp"}),
    ("llama", GALORE, {"precision": "pure16"}),
    ("llama", BADAM, {"precision": "fp32"}),
    ("bert", {"name": "adapter_d", "bottleneck": 4, "drop": 2}, {}),
    ("gpt2", PREFIX, {}),
    ("mixtral", {"name": "full"}, {"precision": "pure16", "checkpointing": True}),
]


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.bfloat16), ("cuda", torch.float32)])
def test_a_gpu_has_layer_norms_under_autocast_in_fp32(device: str, dtype: torch.dtype) -> None:
    with fake(0, padded=True, device=device):
        norm, x = nn.LayerNorm(8, dtype=torch.bfloat16), torch.empty(2, 8, dtype=torch.bfloat16)
        assert norm(x).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert norm(x).dtype == dtype
            assert nn.Linear(8, 8)(norm(x)).dtype == torch.bfloat16


@pytest.mark.parametrize(("kind", "method", "fields"), SHORTENED)
def test_few_layers_say_exactly_what_all_of_them_say(
    setup: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch, kind: str, method: dict[str, Any], fields: Any
) -> None:
    wanted = setup(kind, method, depth=DEEP, **fields)
    few = plan(wanted)
    monkeypatch.setattr(depth, "SHORT", DEEP)
    assert few == planning.plan(wanted)


def test_one_of_several_devices_holds_its_share_and_what_it_gathers(setup: Callable[..., Setup]) -> None:
    wanted = setup("llama", LORA, depth=DEEP)
    layer = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128 + 2 * 64)  # q and o, k and v, the MLP, two norms, in bf16
    outside = 2 * (VOCABULARY + 1) * 64  # tied embeddings, and the last norm
    share = DEEP * layer // 4 + 2 * (23 * 64 + 16)  # 90 tokens: 23 rows, the last device has padding
    less = DEEP * layer + outside - share - (outside + 2 * layer)
    one = plan(wanted)
    assert planning.plan(wanted, 4) == dataclasses.replace(one, weights=one.weights - less, peak=one.peak - less)
    with pytest.raises(InputError, match="method full trains all of it"):
        planning.plan(setup("llama", {"name": "full"}), 4)


COUNTED = [
    ("bert", {"name": "full"}), ("bert", {"name": "adapter_l", "bottleneck": 4}),
    ("gpt2", LORA), ("llama", {**LORA, "dora": True}), ("llama", {**LORA, "init": "pissa"}), ("llama", PREFIX),
    ("llama", {"name": "freeze", "layers": 1}), ("llama", BADAM),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "method"), COUNTED)
def test_static_bytes_are_those_of_the_real_model(
    setup: Callable[..., Setup], tmp_path: Path, kind: str, method: dict[str, Any]
) -> None:
    model, found = real(kind, method), plan(setup(kind, method, precision="fp32"))
    trained = trained_count(model)
    assert found.trainable_params == trained
    assert found.total_params == sum(parameter.numel() for parameter in model.parameters())
    io.save(model, tmp_path)
    with safe_open(tmp_path / io.WEIGHTS, "pt") as file:
        assert found.checkpoint_bytes == sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    if method is BADAM:  # of a block at a time
        model.requires_grad_(False)
        model.model.layers[0].requires_grad_(True)
    active = [parameter for parameter in model.parameters() if parameter.requires_grad]
    numbers = sum(parameter.numel() for parameter in active)
    assert found.gradients == 4 * numbers
    assert found.optimizer == 8 * numbers + 4 * len(active)  # two moments, and a counter each


@pytest.mark.parametrize(("precision", "each"), [("fp32", 16), ("bf16", 16), ("amp", 16), ("pure16", 8)])
def test_bytes_of_a_trained_parameter(setup: Callable[..., Setup], precision: str, each: int) -> None:
    found = plan(setup("llama", {"name": "full"}, precision=precision))
    assert found.total_params * each <= held(found) <= 1.01 * found.total_params * each


def test_bf16_moments_halve_the_states_and_galore_has_those_of_its_projection(setup: Callable[..., Setup]) -> None:
    full = plan(setup("llama", {"name": "full"}))
    half = plan(setup("llama", {"name": "full"}, state_precision="bf16"))
    assert half.optimizer == pytest.approx(full.optimizer / 2, rel=0.01)
    galore, r = plan(setup("llama", GALORE)), GALORE["r"]
    saved = 0
    for module in real("llama", {"name": "full"}).model.layers.modules():
        if isinstance(module, nn.Linear):
            short, long = sorted(module.weight.shape)
            saved += 8 * short * long - (8 * r * long + 4 * r * short)
    assert galore.optimizer == full.optimizer - saved


def test_logits_are_log_probabilities_and_two_gradients_of_the_targets_alone(setup: Callable[..., Setup]) -> None:
    few, many = (plan(setup("llama", LORA, targets=targets)) for targets in (1, TARGETS))
    assert few.logits == 3 * 4 * VOCABULARY * ROWS
    assert many.logits == TARGETS * few.logits


def test_checkpointing_keeps_the_inputs_of_layers_alone(setup: Callable[..., Setup]) -> None:
    all_of_them, again = (plan(setup("llama", LORA, checkpointing=value)) for value in (False, True))
    assert held(all_of_them) == held(again)
    assert again.peak < all_of_them.peak
    state = 2 * ROWS * LENGTH * WIDTH  # bf16
    assert DEPTH * state <= again.activations <= (DEPTH + 4) * state < all_of_them.activations / 3


def test_fused_attention_keeps_no_scores(setup: Callable[..., Setup]) -> None:
    eager, fused = (plan(setup("llama", LORA, device=device, length=64)) for device in ("cpu", "cuda"))
    probabilities = 2 * ROWS * 4 * 64**2  # bf16, of 4 heads
    assert eager.activations - fused.activations >= DEPTH * probabilities


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4), ("int8", 8), ("int2", 2)])
def test_quantised_weights(setup: Callable[..., Setup], kind: str, bits: int) -> None:
    plain, found = plan(setup("bert", LORA)), plan(setup("bert", LORA, quantization=kind))
    assert found.total_params == plain.total_params
    assert found.trainable_params == plain.trainable_params
    layers = real("bert", {"name": "full"}).bert.encoder
    numbers = sum(module.weight.numel() for module in layers.modules() if isinstance(module, nn.Linear))
    saved = numbers * (16 - bits) / 8
    assert 0.85 * saved <= plain.weights - found.weights < saved  # there are scales, and tables of more than a kB


@settings(max_examples=3, deadline=None)
@given(batch=st.integers(1, 4), length=st.integers(4, 24), checkpointing=st.booleans(), full=st.booleans())
def test_the_peak_lies_between_what_lasts_and_all_there_is(
    setup: Callable[..., Setup], batch: int, length: int, checkpointing: bool, full: bool
) -> None:
    method = {"name": "full"} if full else LORA
    wanted = setup("llama", method, batch=batch, length=length, targets=2, checkpointing=checkpointing)
    found = plan(wanted)
    parts = [found.activations, found.logits, found.temporary]
    assert min(parts) >= 0
    assert found.weights + found.master + found.optimizer <= found.peak <= held(found) + sum(parts)
    assert plan(dataclasses.replace(wanted, batch=2 * batch)).peak > found.peak


def test_starts_that_need_values_take_what_others_of_their_shapes_take(setup: Callable[..., Setup]) -> None:
    pissa, lora_ga = (plan(setup("llama", {**LORA, "init": init})) for init in ("pissa", "lora_ga"))
    assert pissa == lora_ga
    gaussian, loftq = (plan(setup("llama", {**LORA, "init": i}, quantization="nf4")) for i in ("gaussian", "loftq"))
    assert gaussian == loftq


def test_gpt3_as_in_the_paper() -> None:
    model = {"name": "gpt3-175b", "path": "config:gpt3-175b", "dropout": 0.0}
    found = plan(Setup(model, LORA, batch=1, length=64, targets=63, checkpointing=True, device="cuda"))
    assert found.trainable_params == 18_874_368  # section 4.2 and Table 4: 18.9M at r = 4 on q and v
    assert found.checkpoint_bytes == 4 * found.trainable_params
    assert found.weights == pytest.approx(350e9, rel=0.01)
    assert found.peak == pytest.approx(350e9, rel=0.02)  # section 4.2: 350 GB of 1.2 TB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"targets": LENGTH}, "15 can be targets"),
        ({"precision": "fp8"}, "precision = 'fp8': choose from fp32, bf16, amp, pure16"),
        ({"method": {"name": "frozen"}}, "method frozen trains nothing"),
        ({"method": {"name": "full"}, "quantization": "nf4"}, "which method full trains"),
        ({"quantization": "int3"}, "model.quantization = int3"),
        ({"method": {"name": "lora", "rank": 3}}, "no field 'rank'"),
        ({"state_precision": "fp8"}, "training.state_precision = 'fp8'"),
    ],
)
def test_what_cannot_be_is_said(setup: Callable[..., Setup], change: dict[str, Any], message: str) -> None:
    fields = {"method": LORA, **change}
    with pytest.raises(InputError, match=message):
        plan(setup("llama", **fields))


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
          "bnb_4bit_use_double_quant": True}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "load_in_4bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": ["up_proj"]}, "load_in_8bit"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "compressed-tensors"),
    ],
)  # fmt: skip
def test_weights_that_are_stored_quantised_are_planned_so_or_refused(
    setup: Callable[..., Setup], stored: dict[str, Any], kind: str
) -> None:
    plain, folder = setup("llama", LORA), setup("llama", LORA).model["path"]
    own = json.loads((Path(folder) / "config.json").read_text())
    path = Path(folder).parent / f"stored-{len(str(stored))}-{kind.replace(' ', '-')}"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(own | {"quantization_config": stored}))
    wanted = dataclasses.replace(plain, model={**plain.model, "path": str(path)})
    if kind in quantized.KINDS:
        assert network.stored_as(network.network_config(str(path)), str(path)) == kind
        with pytest.raises(InputError, match=f"is stored in {kind}: model.quantization = null is not of it"):
            plan(wanted)
        asked = dataclasses.replace(wanted, model={**wanted.model, "quantization": kind})
        assert plan(asked) == plan(dataclasses.replace(plain, model={**plain.model, "quantization": kind}))
    else:
        with pytest.raises(InputError, match=rf"is stored quantised \(.*{kind}\), which is not planned for"):
            plan(wanted)


@pytest.mark.parametrize("kind", ["vit", "clip", "whisper", "wav2vec2", "patchtst"])
def test_models_that_read_no_text_are_said(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InputError, match=f"is of the type {kind}, of which transformers has no classifiers of") as said:
        plan(Setup({"name": kind, "path": str(tmp_path)}, LORA, 1, 8))
    assert "\n" not in str(said.value)


def test_notes_say_what_a_plan_leaves_out(setup: Callable[..., Setup]) -> None:
    found = " ".join(plan(setup("mixtral", LORA, quantization="nf4", device="cuda")).notes)
    assert "2 of 4 experts" in found and "they are not quantised" in found and "CUDA" in found
    assert plan(setup("bert", LORA)).notes == ()


def test_unknown_configs_are_said() -> None:
    with pytest.raises(InputError, match="no config 'llama-8b' ships; did you mean llama-7b"):
        plan(Setup({"name": "x", "path": "config:llama-8b"}, LORA, 1, 8, 4))


def traced(step: Callable[[], Any], logits: tuple[int, ...] = (), copies: bool = False) -> tuple[Trace, Any]:
    trace = Trace(logits, copies)
    with trace:
        return trace, step()


def test_a_trace_counts_storages_once_and_until_they_are_gone() -> None:
    with fake(0, padded=True):
        weight = torch.zeros(10, 10)

        def step() -> Any:
            kept = weight @ weight
            view = kept.view(100)[:50]
            gone = kept * 2
            del gone
            return view, weight.t()

        trace, _ = traced(step)
        assert trace.live == {FORWARD: 400}
        assert trace.peaks[FORWARD].total() == 800


def test_a_trace_tells_gradients_and_logits_apart() -> None:
    with fake(0, padded=True):
        weight = nn.Parameter(torch.zeros(10, 7))
        trace = Trace((4, 7), False)
        weight.register_post_accumulate_grad_hook(trace.gradient)
        with trace:
            (torch.zeros(4, 10) @ weight).pow(2).sum().backward()
        assert trace.live == {FORWARD: 0, BACKWARD: 0, LOGITS: 0, GRADIENT: 280}
        assert trace.most_logits >= 2 * 4 * 4 * 7


def test_sums_of_gradients_take_no_room_of_their_own_and_mixed_precisions_do() -> None:
    with fake(0, padded=True):
        weight = nn.Parameter(torch.zeros(100, 100))
        trace, _ = traced(lambda: (weight.sin().sum() + weight.cos().sum()).backward())
        assert trace.peaks[FORWARD].total() < 3.1 * weight.nbytes  # two gradients and a factor, but not their sum
        half, whole = torch.zeros(100, dtype=torch.bfloat16), torch.zeros(100)
        trace, _ = traced(lambda: half + whole, copies=True)
        assert trace.peaks[FORWARD][COPIES] == 400


def test_questions_about_fake_values_have_the_usual_answers() -> None:
    with fake(chosen=3, padded=True):
        values = torch.zeros(4, 5)
        assert not values.isnan().any()
        assert values.isfinite().all()
        assert torch.tensor(7) % 5 == 0
        assert values.sum().item() == 1.0
        assert values[torch.ones(4, 5, dtype=torch.bool)].shape == (3,)
        assert values[torch.ones(4, dtype=torch.bool)].shape == (3, 5)

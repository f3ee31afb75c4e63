"""PiSSA and LoRA-GA: A and B start as the papers say, the model starts at W0, and W0 is never lost."""

import copy
from pathlib import Path

import peft
import pytest
import torch
from peft.tuners.lora import LoraGAConfig, preprocess_loraga
from tiny_models import ARCHITECTURES, RESIDUAL, assert_equal, assert_identical, every_type, logits, state, tiny_model
from torch import Tensor, nn

from lora import io
from lora.config import InputError, LoRAConfig
from lora.formats.peft_out import save_peft
from lora.layer import turned
from lora.model import base_parameters, eject, freeze, inject, lora_layers, merge, unmerge
from lora.variants import lora_ga


def loss(model: nn.Module) -> Tensor:
    out = logits(model)
    return (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() + out.square().mean()


def adapt(model: nn.Module, config: LoRAConfig) -> None:
    model.requires_grad_(False)
    inject(model, config, lambda: loss(model).backward())


def move(model: nn.Module) -> None:
    """Change A and B as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            for matrix in (*layer.lora_A.values(), *layer.lora_B.values()):
                matrix += 0.2 * torch.randn_like(matrix)


def best(matrix: Tensor, r: int) -> Tensor:
    """The best approximation of rank r (Eckart, Young, Mirsky)."""
    U, S, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (U[:, :r] * S[:r] @ Vh[:r]).float()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_pissa_equals_peft(kind: str) -> None:
    types = {"bert": ("q", "v", "up"), "gpt2": ("o", "up", "down")}[kind]
    ours = tiny_model(kind)
    base = copy.deepcopy(ours)
    adapt(ours, LoRAConfig(r=4, alpha=6, weight_types=types, init="pissa"))
    layers = dict(lora_layers(ours))
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=list(layers), init_lora_weights="pissa")
    theirs = peft.get_peft_model(base, config).eval()
    for name, layer in layers.items():
        twin, part = theirs.base_model.model.get_submodule(name), layer.parts[0]
        A, B = twin.lora_A["default"].weight, twin.lora_B["default"].weight
        assert_equal(layer.lora_B[part.name] @ layer.lora_A[part.name], B @ A, f"B A of {name}")
        assert_equal(layer.weight, twin.base_layer.weight, f"residual of {name}")
        assert_equal(part.scaling * layer.lora_B[part.name] @ layer.lora_A[part.name], best(layer.w0(part), 4))
        signs = (A * layer.lora_A[part.name]).sum(dim=1).sign()  # a singular vector's sign is free
        with torch.no_grad():
            A *= signs[:, None]
            B *= signs
        assert_equal(layer.lora_A[part.name], A, f"A of {name}")
        assert_equal(layer.lora_B[part.name], B, f"B of {name}")
    assert_equal(logits(ours), logits(theirs))
    loss(ours).backward()
    loss(theirs).backward()
    for name, layer in layers.items():
        twin, part = theirs.base_model.model.get_submodule(name), layer.parts[0].name
        assert_equal(layer.lora_A[part].grad, twin.lora_A["default"].weight.grad, f"gradient of A in {name}")
        assert_equal(layer.lora_B[part].grad, twin.lora_B["default"].weight.grad, f"gradient of B in {name}")
    for model in (ours, theirs):
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4).step()
    merge(ours)
    merged = dict(theirs.merge_and_unload().named_parameters())
    for name, parameter in base_parameters(ours).items():
        assert_equal(parameter, merged[name], name)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "gpt_neox"])
def test_lora_ga_steps_along_the_gradient(kind: str) -> None:
    """The first step of A and B changes s B A along the best approximation of rank 2r to the gradient of W0."""
    config = LoRAConfig(r=3, alpha=4, weight_types=("q", "v", "up"), scaling="rslora", init="lora_ga")
    full = tiny_model(kind)
    loss(full).backward()
    model = tiny_model(kind)
    adapt(model, config)
    loss(model).backward()
    s = config.scale("q")
    for name, layer in lora_layers(model):
        G0 = turned(layer.base, full.get_submodule(name).weight.grad)
        for part in layer.parts:
            G, A, B = G0[part.rows], layer.lora_A[part.name], layer.lora_B[part.name]
            c_squared = len(G) ** 0.5 / lora_ga.GAMMA
            torch.testing.assert_close(A @ A.T, c_squared * torch.eye(3), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(B.T @ B, c_squared * torch.eye(3), rtol=1e-4, atol=1e-5)
            step = s * (B.grad @ A + B @ A.grad)
            expected = s**2 * c_squared * best(G, 6)
            assert (step - expected).abs().max() <= 2e-3 * expected.abs().max(), f"{name} {part.name}"


def test_lora_ga_has_the_directions_of_peft() -> None:
    """peft's has other sizes (it multiplies B by S), so what is compared are the spaces that A and B span."""
    config = LoRAConfig(r=4, alpha=4, weight_types=("q", "v", "down"), init="lora_ga")
    ours, base = tiny_model("llama"), tiny_model("llama")
    adapt(ours, config)
    layers = dict(lora_layers(ours))
    options = {"init_lora_weights": "lora_ga", "lora_ga_config": LoraGAConfig(direction="ArB2r", scale="stable")}
    their_config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=list(layers), **options)
    preprocess_loraga(base, their_config, lambda: loss(base).backward())
    theirs = peft.get_peft_model(base, their_config)
    for name, layer in layers.items():
        twin, part = theirs.base_model.model.get_submodule(name), layer.parts[0].name
        for ours_, theirs_ in (
            (layer.lora_A[part].T, twin.lora_A["default"].weight.T),
            (layer.lora_B[part], twin.lora_B["default"].weight),
        ):
            cosines = torch.linalg.svdvals(torch.linalg.qr(ours_)[0].T @ torch.linalg.qr(theirs_)[0])
            assert cosines.min() > 0.999, f"{name}: {cosines}"


def test_calibration_leaves_no_trace() -> None:
    """Gradients that are there, requires_grad, tied weights and the model's outputs are as before; only B A is new."""
    model = tiny_model("gpt2")
    head, embedding = model.get_submodule("lm_head"), model.get_submodule("transformer.wte")
    embedding.weight.grad = torch.ones_like(embedding.weight)
    model.get_submodule("transformer.ln_f").requires_grad_(False)
    asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    seen: list[str] = []

    def backward() -> None:
        for _ in range(2):
            loss(model).backward()
        seen.extend(name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad)
        assert head.weight is not embedding.weight

    found = lora_ga.gradients(model, ["lm_head", "transformer.h.0.attn.c_attn"], backward)
    assert seen == ["transformer.h.0.attn.c_attn.weight", "lm_head.weight"]
    assert head.weight is embedding.weight
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == asked
    assert torch.equal(embedding.weight.grad, torch.ones_like(embedding.weight))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "transformer.wte.weight")
    twin = tiny_model("gpt2")
    twin.lm_head.weight = nn.Parameter(twin.lm_head.weight.detach())
    loss(twin).backward()
    for name, gradient in found.items():
        assert_equal(gradient, 2 * twin.get_submodule(name).weight.grad, name)


@pytest.mark.parametrize("init", RESIDUAL)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_w0_is_kept(init: str, kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    before, out = state(model), logits(model)
    parameters = [id(parameter) for parameter in model.parameters()]
    adapt(model, every_type(kind, init=init, alpha=2))
    assert_equal(logits(model), out, "the start is the pretrained model")
    assert not any(parameter.grad is not None for parameter in model.parameters())
    for name, layer in lora_layers(model):
        assert not torch.equal(layer.weight, before[f"{name}.weight"])
        for part in layer.parts:
            assert torch.equal(layer.w0(part), turned(layer.base, before[f"{name}.weight"])[part.rows])
            assert layer.delta_w(part.name).abs().max() < 1e-5
    move(model)
    freeze(model)
    unmerged, adapted = state(model), logits(model)
    assert (adapted - out).abs().max() > 1e-3
    io.save(model, tmp_path)
    merge(model)
    assert_equal(logits(model), adapted)
    for name, layer in lora_layers(model):
        delta = torch.zeros_like(turned(layer.base, layer.weight))
        for part in layer.parts:
            delta[part.rows] = layer.delta_w(part.name)
        expected = turned(layer.base, before[f"{name}.weight"]) + delta
        torch.testing.assert_close(turned(layer.base, layer.weight), expected)
    io.save(model, tmp_path / "merged")
    unmerge(model)
    assert_identical(model, unmerged)
    for folder in (tmp_path, tmp_path / "merged"):
        back = tiny_model(kind)
        io.load(back, folder)
        assert_equal(logits(back), adapted, "loaded")
        assert {layer.parts[0].r for _, layer in lora_layers(back)} == {4}
    merge(model)
    eject(model)
    assert_identical(model, before)
    assert [id(parameter) for parameter in model.parameters()] == parameters


def test_rank_above_half_of_the_weight(tmp_path: Path) -> None:
    """Rank 2r would be above min(d, k): stored as rank min(d, k), exactly; d < k, d = k and d > k."""
    model = tiny_model("bert")
    adapt(model, LoRAConfig(r=20, alpha=10, weight_types=("q", "up", "down"), init="pissa"))
    move(model)
    io.save(model, tmp_path)
    targets = io.read(tmp_path).targets
    assert {(target.shape, target.r) for target in targets} == {((32, 32), 32), ((48, 32), 32), ((32, 48), 32)}
    adapter = io.read(tmp_path)
    layers = dict(lora_layers(model))
    for target in targets:
        A, B = adapter.matrices(target)
        torch.testing.assert_close(target.scaling * B @ A, layers[target.module].delta_w(target.weight_type))
    back = tiny_model("bert")
    io.load(back, tmp_path)
    assert_equal(logits(back), logits(model))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "bloom"])
def test_peft_opens_it_as_ordinary_lora(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    adapt(model, every_type(kind, init="pissa"))
    move(model)
    save_peft(model, tmp_path)
    assert_equal(logits(peft.PeftModel.from_pretrained(tiny_model(kind), tmp_path)), logits(model))


@pytest.mark.parametrize("init", RESIDUAL)
def test_half_precision(init: str) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    before, out = state(model), logits(model)
    adapt(model, LoRAConfig(r=4, alpha=4, weight_types=("q", "o", "down"), init=init))
    assert (logits(model) - out).abs().max() < 0.05 * out.abs().max()
    move(model)
    layer = next(layer for _, layer in lora_layers(model))
    merge(model)
    W0 = before["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(layer.weight, (W0.float() + layer.delta_w("q")).to(torch.bfloat16))
    eject(model)
    assert_identical(model, before)


def test_copied_moved_and_restored() -> None:
    """A state_dict has all that is needed beside the pretrained model, and what is kept moves with the model."""
    model = tiny_model("gpt_neox")
    before = state(model)
    adapt(model, LoRAConfig(r=2, weight_types=("q", "v"), init="lora_ga"))
    move(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), logits(model))
    merge(twin)
    assert not any(layer.merged for _, layer in lora_layers(model))
    other = tiny_model("gpt_neox")
    inject(other, LoRAConfig(r=2, weight_types=("q", "v"), init="pissa"))
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other), logits(model))
    for (_, ours), (_, theirs) in zip(lora_layers(other), lora_layers(model), strict=True):
        assert torch.equal(ours.delta_w("q"), theirs.delta_w("q"))
    merge(other)
    other.double()
    assert all(weight.dtype == torch.float64 for _, layer in lora_layers(other) for weight in layer.kept)
    other.float()
    eject(other)
    assert_identical(other, before)


def test_tied_weights_stay() -> None:
    model = tiny_model("gpt2")
    head, embedding = model.get_submodule("lm_head"), model.get_submodule("transformer.wte")
    before = state(model)
    inject(model, LoRAConfig(r=2, weight_types=(), modules=("lm_head",), init="pissa"))
    assert torch.equal(embedding.weight, before["transformer.wte.weight"])
    eject(model)
    assert head.weight is embedding.weight
    assert_identical(model, before)


def test_freeze_reaches_what_is_kept() -> None:
    """After eject the base model is as frozen as it was with its adapters."""
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2, init="pissa"))
    freeze(model, ["classifier"])
    eject(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"classifier.weight", "classifier.bias"}


def test_a_trained_residual_cannot_be_stored(tmp_path: Path) -> None:
    model = tiny_model("bert")
    adapt(model, LoRAConfig(r=2, init="pissa"))
    freeze(model, ["bert.encoder.layer.0.attention.self.query.weight"])
    with pytest.raises(InputError, match="query.weight, now the residual of W0, is trained beside its adapter"):
        io.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_refused_starts_leave_the_model_as_it_was() -> None:
    model = tiny_model("bert")
    before = state(model)
    parameters = [id(parameter) for parameter in model.parameters()]

    def backward() -> None:
        loss(model).backward()

    def broken() -> None:
        raise RuntimeError("out of memory")

    types = ("q", "v")
    for config, calibrate, match in (
        (LoRAConfig(r=2, init="lora_ga"), None, "init lora_ga starts from gradients: give inject `backward`"),
        (
            LoRAConfig(r=2, init="lora_ga"),
            lambda: None,
            "no gradient reached bert.encoder.layer.0.attention.self.query",
        ),
        (LoRAConfig(r=2, init="lora_ga"), lambda: (0 * loss(model)).backward(), "zero or not finite"),
        (LoRAConfig(r=2, init="lora_ga"), lambda: (loss(model) / 0).backward(), "zero or not finite"),
        (LoRAConfig(r=17, init="lora_ga"), backward, r"2r = 34 singular vectors, but min\(d, k\) is 32"),
        (LoRAConfig(r={"q": 2, "v": 33}, weight_types=types, init="pissa"), None, "rank r = 33 for v"),
        (LoRAConfig(r=2, modules=("*.word_embeddings",), init="pissa"), None, "init pissa is for Linear and Conv1D"),
        (LoRAConfig(r=2, modules=("*.word_embeddings",), init="lora_ga"), backward, "init lora_ga is for Linear"),
    ):
        with pytest.raises(InputError, match=match) as raised:
            inject(model, config, calibrate)
        assert "\n" not in str(raised.value)
        assert_identical(model, before)
        assert [id(parameter) for parameter in model.parameters()] == parameters
    with pytest.raises(RuntimeError, match="out of memory"):
        inject(model, LoRAConfig(r=2, init="lora_ga"), broken)
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())

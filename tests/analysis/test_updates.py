"""Updates read from files are those of the models that wrote them, and their SVD that of the dense matrix."""

import json
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from adapter_files import base_folder, of_loralib, of_peft, own, stored_run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import LAYERS, tiny_model

from analysis.weights.delta_w import LowRank, Update, inner
from analysis.weights.pretrained import Weights
from analysis.weights.sites import Site
from analysis.weights.updates import Updates, read, read_run
from lora import io
from lora.config import InputError
from lora.formats.peft_out import save_peft
from lora.model import freeze


def assert_update(update: Update, dense: np.ndarray) -> None:
    """The update is this matrix: its SVD, norm and products are."""
    assert update.shape == dense.shape
    U, S, Vh = update.svd()
    scale = max(np.abs(dense).max(), 1e-30)
    np.testing.assert_allclose(U @ np.diag(S) @ Vh, dense, atol=1e-5 * scale)
    np.testing.assert_allclose(S, np.linalg.svd(dense, compute_uv=False)[: len(S)], atol=1e-5 * scale * len(dense))
    top = update.svd(2)
    assert (top.U.shape, top.S.shape, top.Vh.shape) == ((len(dense), 2), (2,), (2, dense.shape[1]))
    np.testing.assert_allclose(top.S, S[:2])
    assert update.norm() == pytest.approx(np.linalg.norm(dense), rel=1e-5)
    x = np.random.default_rng(0).standard_normal((dense.shape[1], 3))
    np.testing.assert_allclose(update.apply(x), dense @ x, atol=1e-4 * scale * np.sqrt(dense.shape[1]))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("bert", {"weight_types": ("q", "v", "up", "down")}),
        ("gpt2", {"weight_types": ("q", "v"), "scaling": "rslora"}),
        ("gpt_neox", {"weight_types": ("k",), "r": 3}),
        ("bert", {"weight_types": ("q", "v"), "init": "pissa"}),
        ("t5", {"weight_types": ("q", "o")}),
    ],
)
@pytest.mark.parametrize("with_base", [False, True])
def test_adapters_of_this_suite(kind: str, fields: dict[str, Any], with_base: bool, tmp_path: Path) -> None:
    dense = own(kind, tmp_path / "adapter", **fields)
    base = base_folder(kind, tmp_path / "base") if with_base else None
    updates = read(tmp_path / "adapter", base)
    assert (updates.kind, updates.base) == ("LoRA", base)
    assert {(update.module, update.weight_type) for update in updates.values()} == set(dense)
    for site, update in updates.items():
        assert update.site == site
        assert update.rank == (8 if fields.get("init") == "pissa" else fields.get("r", 4))
        assert_update(update, dense[update.module, update.weight_type])


def test_dora_is_the_update_of_the_directions(tmp_path: Path) -> None:
    own("bert", tmp_path, variant="dora")
    updates = read(tmp_path)
    assert updates.kind == "DoRA" and "directions alone" in updates.notes[0]
    adapter = io.read(tmp_path)
    for target, update in zip(adapter.targets, updates.values(), strict=True):
        A, B = adapter.matrices(target)
        assert_update(update, (target.scaling * B @ A).double().numpy())


PEFT = {
    "plain": ("bert", {"target_modules": ["query", "value"]}),
    "rslora": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "patterns": ("llama", {"target_modules": ["q_proj"], "rank_pattern": {"layers.1.self_attn.q_proj": 2}}),
    "fused": ("gpt2", {"target_modules": ["c_fc", "attn.c_proj"], "fan_in_fan_out": True}),
}


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("case", PEFT)
def test_peft(case: str, with_base: bool, tmp_path: Path) -> None:
    kind, options = PEFT[case]
    dense = of_peft(kind, tmp_path / "peft", **options)
    updates = read(tmp_path / "peft", base_folder(kind, tmp_path / "base") if with_base else None)
    assert updates.kind == "LoRA (peft)"
    assert {update.module for update in updates.values()} == set(dense)
    assert {site.weight_type for site in updates} <= {"q", "k", "v", "o", "up", "down"}
    for update in updates.values():
        assert_update(update, dense[update.module])


def test_a_fused_projection_is_split_by_its_base(tmp_path: Path) -> None:
    dense = of_peft("gpt_neox", tmp_path / "peft", target_modules=["query_key_value"])
    whole = read(tmp_path / "peft")
    assert set(whole) == {Site(str(layer), "query_key_value") for layer in range(LAYERS)}
    for update in whole.values():
        assert_update(update, dense[update.module])
    base = Weights.open(base_folder("gpt_neox", tmp_path / "base"))
    split = read(tmp_path / "peft", base)
    assert set(split) == {Site(str(layer), x) for layer in range(LAYERS) for x in "qkv"}
    for update in split.values():
        assert_update(update, dense[update.module][base.slices(update.module)[update.weight_type]])


def test_what_another_library_gets_from_us_is_ours(tmp_path: Path) -> None:
    """GPT-2's q and v, exported to peft as one update of c_attn, come back as q, v, and a k of zeros."""
    dense = own("gpt2", tmp_path / "own", weight_types=("q", "v"))
    model = tiny_model("gpt2")
    io.load(model, tmp_path / "own")
    freeze(model)
    save_peft(model, tmp_path / "peft")
    updates = read(tmp_path / "peft", base_folder("gpt2", tmp_path / "base"))
    for update in updates.values():
        expected = dense.get((update.module, update.weight_type), np.zeros(update.shape))
        assert_update(update, expected)


def test_loralib(tmp_path: Path) -> None:
    file = tmp_path / "lora.pt"
    of_loralib("bert", file, ["query", "intermediate.dense"], r=3, alpha=6)
    state = torch.load(file, weights_only=True)
    updates = read(file, alpha=6)
    assert updates.kind == "LoRA (loralib)" and set(updates) == {Site(str(n), x) for n in range(2) for x in ("q", "up")}
    for update in updates.values():
        A, B = (state[f"{update.module}.lora_{side}"].double().numpy() for side in "AB")
        assert_update(update, 2 * B @ A)
    with pytest.raises(InputError, match="does not store alpha: give --alpha"):
        read(file)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "phi3"])
@pytest.mark.parametrize("form", ["folder", "body", "file"])
def test_full_checkpoints(kind: str, form: str, tmp_path: Path) -> None:
    base, tuned = tiny_model(kind), tiny_model(kind, seed=1)
    base.save_pretrained(tmp_path / "base")
    (tuned.base_model if form == "body" else tuned).save_pretrained(tmp_path / "tuned")
    source = tmp_path / "tuned" / ("model.safetensors" if form == "file" else "")
    updates = read(source, str(tmp_path / "base"))
    weights = Weights.open(str(tmp_path / "base"))
    assert list(updates) == list(weights.sites) and updates.kind == "full checkpoint" and not updates.notes
    for update in updates.values():
        after, before = (Weights.open(str(tmp_path / name)) for name in ("tuned", "base"))
        at = update.module, update.weight_type
        assert_update(update, (after.matrix(*at).double() - before.matrix(*at).double()).numpy())
        assert update.rank is None and update.parameters == np.prod(update.shape)
    with pytest.raises(InputError, match="whole weights, no adapter: its updates need the model it started from"):
        read(source)


def test_a_checkpoint_in_another_precision_is_told(tmp_path: Path) -> None:
    tiny_model("bert").save_pretrained(tmp_path / "base")
    tiny_model("bert").bfloat16().save_pretrained(tmp_path / "tuned")
    updates = read(tmp_path / "tuned", str(tmp_path / "base"))
    assert "stored in bfloat16 and its base in float32" in updates.notes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stored_full_run_is_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    """Against the weights as the run loaded them: what was not trained has changed by nothing, though it is fp32."""
    base = base_folder("bert", tmp_path / "base")
    folder, changes = stored_run(tmp_path, base, {"name": "full"}, dtype, frozen=["layer.0.attention.self.key"])
    updates = read_run(folder, Weights.open(base))
    assert (updates.kind, updates.base, updates.name) == ("full fine-tuning", "tiny", folder.name)
    assert updates.notes == ["full on reviews, lr 0.001, seed 0"]
    assert set(updates) == {Site(str(n), x) for n in range(LAYERS) for x in ("q", "k", "v", "o", "up", "down")}
    for site, update in updates.items():
        dense = changes[f"bert.{update.module}", ""]
        np.testing.assert_array_equal(update.matrix(), dense)
        assert dense.any() != (site == Site("0", "k"))
    assert updates[Site("0", "k")].norm() == 0
    with pytest.raises(InputError, match="its updates need the model it started from"):
        read_run(folder)
    other = tmp_path / "other"
    tiny_model("bert", seed=5).save_pretrained(other)
    with pytest.raises(InputError, match=f"is not tiny, the model that run {folder.name} started from"):
        read_run(folder, Weights.open(str(other)))


def test_other_stored_runs(tmp_path: Path) -> None:
    base = base_folder("bert", tmp_path / "base")
    method = {"name": "lora", "r": 2, "alpha": 4, "dropout": 0.0, "weight_types": "q+v", "modules": [], "layers": None}
    folder, _ = stored_run(tmp_path, base, method | {"init": "gaussian", "scaling": "standard"})
    for source in (folder, folder / "adapter"):
        updates = read(source)
        assert set(updates) == {Site(str(n), x) for n in range(LAYERS) for x in "qv"}
        assert updates.name == folder.name and updates.notes == ["lora on reviews, lr 0.001, seed 0"]
    top, _ = stored_run(tmp_path, base, {"name": "ft_top2", "layers": 1})
    assert {site.layer for site in read(top, base)} == {"1"}
    biases, _ = stored_run(tmp_path, base, {"name": "bitfit"})
    with pytest.raises(InputError, match="has no weight matrix of .* or trained none"):
        read(biases, base)


def dense_of(update: Update) -> np.ndarray:
    return update.apply(np.eye(update.shape[1]))


def test_inner_products(tmp_path: Path) -> None:
    base = base_folder("bert", tmp_path / "base")
    own("bert", tmp_path / "a", seed=1, r=2)
    own("bert", tmp_path / "b", seed=2, r=5)
    for seed in (1, 2):
        tiny_model("bert", seed=seed).save_pretrained(tmp_path / f"full{seed}")
    found = [read(tmp_path / name, base)[Site("1", "v")] for name in ("a", "b", "full1", "full2")]
    for first in found:
        for second in found:
            expected = np.vdot(dense_of(first), dense_of(second))
            assert inner(first, second) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def low_rank(A: np.ndarray, B: np.ndarray, scaling: float = 1.0) -> LowRank:
    tensors = torch.from_numpy(A), torch.from_numpy(B)
    shape = len(B), A.shape[1]
    return LowRank(Site("0", "q"), "q", "q", shape, len(A), scaling, lambda: tensors)


floats = st.floats(-2, 2, width=32)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(float, (2, 6), elements=floats), arrays.arrays(float, (5, 2), elements=floats), st.integers(0, 99))
def test_only_the_product_of_the_factors_counts(A: np.ndarray, B: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((2, 2)))[0] @ np.diag([0.5, 3.0])
    one, other = low_rank(A, B), low_rank(Q @ A, B @ np.linalg.inv(Q))
    third = low_rank(rng.standard_normal((3, 6)), rng.standard_normal((5, 3)), 0.25)
    size = np.linalg.norm(A) * np.linalg.norm(B) + 1e-12
    np.testing.assert_allclose(one.svd().S, other.svd().S, atol=1e-10 * size)
    assert one.norm() == pytest.approx(other.norm(), abs=1e-10 * size)
    assert inner(one, third) == pytest.approx(inner(other, third), abs=1e-9 * size)
    assert inner(one, one) == pytest.approx(one.norm() ** 2, abs=1e-10 * size**2)
    assert inner(one, third) == pytest.approx(inner(third, one), abs=1e-9 * size)


def test_a_small_rest_of_large_halves_is_measured() -> None:
    """After a PiSSA start B A - B0 A0 is small beside its halves; squares would lose it."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((3, 40)), rng.standard_normal((30, 3))
    moved = B + 1e-7 * rng.standard_normal(B.shape)
    update = low_rank(np.vstack([A, A]), np.hstack([moved, -B]))
    assert update.norm() == pytest.approx(np.linalg.norm((moved - B) @ A), rel=1e-6)


def refused(match: str, source: Path, *arguments: Any) -> None:
    with pytest.raises(InputError, match=match) as raised:
        consume(read(source, *arguments))
    assert "\n" not in str(raised.value)


def consume(updates: Updates) -> None:
    for update in updates.values():
        update.norm()


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("does not exist", tmp_path / "nothing")
    refused("is nothing to read updates from: it has no lora_config.json or config.yaml", tmp_path)
    own("bert", tmp_path / "own")
    base = base_folder("llama", tmp_path / "llama")
    refused(
        "has no weight type 'q' in bert.encoder.layer.0.attention.self.query: is it the right", tmp_path / "own", base
    )
    tiny_model("bert", hidden_size=16).save_pretrained(tmp_path / "narrow")
    narrow = str(tmp_path / "narrow")
    refused(r"has the shape \(32, 32\) in the adapter and \(16, 16\) in", tmp_path / "own", narrow)
    tiny_model("bert").save_pretrained(tmp_path / "full")
    refused(
        r"is of another model than .*: .* is \(32, 32\) in one and \(16, 16\) in the other", tmp_path / "full", narrow
    )
    refused("has no weight matrix of", tmp_path / "full", base)
    weights = tmp_path / "own" / io.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-40])
    refused("is damaged", tmp_path / "own")
    weights.unlink()
    refused("does not exist", tmp_path / "own")
    (tmp_path / "own" / io.CONFIG).write_text("{")
    refused("is damaged", tmp_path / "own")
    of_peft("bert", tmp_path / "peft", target_modules=["query"])
    (tmp_path / "peft" / "adapter_model.safetensors").unlink()
    refused("adapter_model.safetensors does not exist", tmp_path / "peft")
    (tmp_path / "lora.pt").write_bytes(b"")
    refused("cannot be read as plain tensors", tmp_path / "lora.pt")


def test_damaged_runs(tmp_path: Path) -> None:
    base = base_folder("bert", tmp_path / "base")
    folder, _ = stored_run(tmp_path, base, {"name": "full"})
    (folder / "metrics.json").write_text(json.dumps({"precision": "float8"}))
    refused("metrics.json is damaged: its precision is none of torch's", folder)
    (folder / "metrics.json").unlink()
    refused("metrics.json does not exist", folder)
    for broken in ("model: tiny", "[", ""):
        (folder / "config.yaml").write_text(broken)
        refused("config.yaml is not that of a stored run, or is damaged", folder)

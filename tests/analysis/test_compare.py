"""`python -m analysis.compare`: adapters of every kind, alone and side by side, as a user types it."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from adapter_files import base_folder, of_loralib, of_peft, own, stored_run
from safetensors.torch import load_file, save_file
from scipy.linalg import subspace_angles
from tiny_models import HIDDEN, LAYERS, tiny_model

from analysis.compare import __main__ as compare
from analysis.compare.measures import cosine_chance, match
from analysis.compare.tables import abbreviate
from analysis.weights.pretrained import Weights
from analysis.weights.updates import read
from lora import io

ROOT = Path(__file__).parents[2]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """The command, writing to tmp_path/out."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = compare.main([*map(str, arguments), "--out", str(tmp_path / "out")])
        return Result(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The base model and one source of every kind, on the tiny BERT."""
    root = tmp_path_factory.mktemp("sources")
    base = base_folder("bert", root / "base")
    own("bert", root / "own", r=4)
    of_peft("bert", root / "peft", seed=2, r=6, target_modules=["query", "value", "intermediate.dense"])
    of_loralib("bert", root / "lora.pt", ["self.value"], seed=3)
    tiny_model("bert", seed=4).save_pretrained(root / "full")
    run, _ = stored_run(root / "runs", base, {"name": "full"}, torch.bfloat16)
    names = {name: root / name for name in ("own", "peft", "lora.pt", "full")}
    return {"base": base, "run": run, **names}


def tables(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(folder / f"{name}.csv", dtype={"layer": str}) for name in ("summary", "modules", "pairs")]


def assert_page_is_whole(folder: Path) -> str:
    """Every picture that the page shows is there, and every picture that is there is shown."""
    page = (folder / "compare.md").read_text()
    shown = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert sorted(shown) == sorted(path.name for path in folder.glob("*.png"))
    assert "nan" not in page
    return page


def test_every_kind_side_by_side(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    given = [sources[name] for name in ("own", "peft", "lora.pt", "full", "run")]
    result = cli(*given, "--base", sources["base"], "--alpha", 6)
    assert result.code == 0 and not result.err
    summary, modules, pairs = tables(tmp_path / "out")
    run = sources["run"].name
    assert list(summary["adapter"]) == ["own", "peft", "lora.pt", "full", run]
    assert list(summary["kind"]) == ["LoRA", "LoRA (peft)", "LoRA (loralib)", "full checkpoint", "full fine-tuning"]
    assert list(summary["weight_types"]) == ["q+v", "q+v+up", "v", *2 * ["q+k+v+o+up+down"]]
    assert list(summary["modules"]) == [4, 6, 2, 12, 12]
    assert summary["parameters"][1] == 6 * 2 * (64 + 64 + 80)
    assert modules["amplification"].notna().all() and modules["norm_w"].notna().all()
    shared = pairs.drop_duplicates(["first", "second", "module"]).groupby(["first", "second"]).size()
    assert shared.to_dict() == {
        ("own", "peft"): 4, ("own", "lora.pt"): 2, ("own", "full"): 4, ("own", run): 4, ("peft", "lora.pt"): 2,
        ("peft", "full"): 6, ("peft", run): 6, ("lora.pt", "full"): 2, ("lora.pt", run): 2, ("full", run): 12,
    }  # fmt: skip
    page = assert_page_is_whole(tmp_path / "out")
    assert "Only `peft`: 4 modules (q, up in layers 0–1)." in page  # beside lora.pt
    assert "full on reviews, lr 0.001, seed 0." in page
    assert "above the random interval in" in result.out and "compare.md" in result.out
    assert result.out.count("Both: ") == 10


def test_numbers_are_those_of_the_dense_matrices(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    """Every column of the CSV files, from dense matrices by numpy and scipy."""
    assert cli(sources["own"], sources["full"], "--base", sources["base"], "--top", 5).code == 0
    summary, modules, pairs = tables(tmp_path / "out")
    low, full = read(sources["own"]), read(sources["full"], sources["base"])
    weights = Weights.open(sources["base"])
    identity = np.eye(HIDDEN)
    for site, update in low.items():
        first, second = update.apply(identity), full[site].apply(identity)
        W = weights.matrix(update.module, update.weight_type).double().numpy()
        row = modules[(modules["adapter"] == "own") & (modules["module"] == update.module)].iloc[0]
        U, S, Vh = np.linalg.svd(first)
        projection = np.linalg.norm(U[:, :4].T @ W @ Vh[:4].T)
        expected = {
            "norm_delta_w": np.linalg.norm(first), "norm_w": np.linalg.norm(W), "r": 4, "scaling": 2, "d": 32, "k": 32,
            "relative_norm": np.linalg.norm(first) / np.linalg.norm(W), "largest_singular_value": S[0],
            "stable_rank": (S**2).sum() / S[0] ** 2, "projection_w": projection, "directions": 4,
            "amplification": np.linalg.norm(first) / projection, "projection_random": 4 * np.linalg.norm(W) / HIDDEN,
        }  # fmt: skip
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-4), name
        both = pairs[pairs["module"] == update.module]
        cosine = np.vdot(first, second) / np.linalg.norm(first) / np.linalg.norm(second)
        assert both["cosine"].to_numpy() == pytest.approx(cosine, rel=1e-4, abs=1e-6)
        U2, _, Vh2 = np.linalg.svd(second)
        for side, (one, two) in {"left": (U, U2), "right": (Vh.T, Vh2.T)}.items():
            for i in (1, 4):
                entry = both[(both["side"] == side) & (both["i"] == i)]
                expected_phi = np.square(np.cos(subspace_angles(one[:, :i], two[:, :i]))).mean()
                assert entry["phi"].item() == pytest.approx(expected_phi, rel=1e-4, abs=1e-6)
                assert entry["above_chance"].item() == (entry["phi"].item() > entry["chance_high"].item())
                assert entry["chance_low"].item() < entry["chance"].item() < entry["chance_high"].item()
        assert set(both["i"]) == {1, 4}
    norm = np.sqrt((modules.loc[modules["adapter"] == "own", "norm_delta_w"] ** 2).sum())
    assert summary["norm_delta_w"][0] == pytest.approx(norm, rel=1e-5)
    assert summary["stable_rank"][0] == pytest.approx(
        modules.loc[modules["adapter"] == "own", "stable_rank"].mean(), rel=1e-4
    )


def test_an_adapter_beside_itself(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    """phi and the cosine are 1; the second of the same name gets a number. The same from other factors."""
    tensors = load_file(sources["own"] / io.WEIGHTS)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0] * 3
    for name in [name for name in tensors if name.endswith("lora_A")]:
        other = name.replace("lora_A", "lora_B")
        tensors[name], tensors[other] = turn @ tensors[name], tensors[other] @ torch.linalg.inv(turn)
    turned = tmp_path / "own"
    turned.mkdir()
    (turned / io.CONFIG).write_text((sources["own"] / io.CONFIG).read_text())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, turned / io.WEIGHTS)
    assert cli(sources["own"], sources["own"], turned).code == 0
    summary, _, pairs = tables(tmp_path / "out")
    assert [re.sub(r".*/", "", name) for name in summary["adapter"]] == ["own", "own (2)", "own"]
    assert summary["adapter"].is_unique
    assert pairs["phi"].to_numpy() == pytest.approx(1, abs=1e-5)
    assert pairs["cosine"].to_numpy() == pytest.approx(1, abs=1e-5)
    assert pairs["above_chance"].all()
    assert_page_is_whole(tmp_path / "out")


def test_order_does_not_matter(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    columns = ["module", "side", "i", "phi", "cosine", "chance_high"]
    found = []
    for given in (("own", "peft"), ("peft", "own")):
        assert cli(*(sources[name] for name in given)).code == 0
        found.append(tables(tmp_path / "out")[2][columns].sort_values(columns[:3], ignore_index=True))
    pd.testing.assert_frame_equal(found[0][columns[:-1]], found[1][columns[:-1]], rtol=1e-4)


@pytest.mark.parametrize("name", ["own", "peft", "lora.pt", "full", "run"])
def test_one_adapter_alone(name: str, cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    base = ["--base", sources["base"]] if name in ("full", "run") else []
    assert cli(sources[name], "--alpha", 6, *base).code == 0
    summary, modules, pairs = tables(tmp_path / "out")
    assert (len(summary), len(pairs)) == (1, 0)
    # Adapters of this suite store ||W||_F; others know nothing of W.
    assert modules["relative_norm"].notna().all() == (name in ("own", "full", "run"))
    page = assert_page_is_whole(tmp_path / "out")
    assert page.startswith(f"# {summary['adapter'][0]}")


def test_runs_by_their_ids(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    run: Path = sources["run"]
    assert cli(run.name, "--runs", run.parent, "--base", sources["base"]).code == 0
    assert tables(tmp_path / "out")[0]["adapter"].item() == run.name
    result = cli("0123456789ab", "--runs", run.parent)
    message = f"error: run 0123456789ab is not in {run.parent}: --runs says where runs are\n"
    assert (result.code, result.err) == (2, message)


def test_nothing_shared(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    of_peft("llama", tmp_path / "llama", target_modules=["k_proj"])
    assert cli(sources["lora.pt"], tmp_path / "llama", "--alpha", 6).code == 0
    page = assert_page_is_whole(tmp_path / "out")
    assert "Both: no module: nothing can be compared." in page
    assert "Only `llama`: 2 modules (k in layers 0–1)." in page
    assert len(tables(tmp_path / "out")[2]) == 0


def test_same_modules_of_other_shapes(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    of_peft("llama", tmp_path / "llama", target_modules=["v_proj", "q_proj"])
    result = cli(sources["own"], tmp_path / "llama")
    assert "4 have the same layer and weight type in both, but not the same name or shape: are the base" in result.out


def test_other_base_models(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    """Adapters of this suite store the norm of W: other norms are other models, and --base must be the right one."""
    model = tiny_model("bert", seed=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
    model.save_pretrained(tmp_path / "other")
    run, _ = stored_run(tmp_path, str(tmp_path / "other"), LORA)
    result = cli(sources["own"], run)
    assert result.code == 0
    assert "In 4 of the shared modules W had not the same norm: these adapters were trained on different" in result.out
    refused = cli(sources["own"], "--base", tmp_path / "other")
    assert refused.code == 2 and refused.err.startswith("error: own was trained on another base model: there W of bert")


LORA = {
    "name": "lora", "r": 2, "alpha": 4, "dropout": 0.0, "weight_types": "q+v", "modules": [], "layers": None,
    "init": "gaussian", "scaling": "standard",
}  # fmt: skip


def test_updates_of_zero(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    """What has not been trained has no directions, and is said to be so."""
    run, _ = stored_run(tmp_path, sources["base"], LORA, frozen=["lora_B"])  # B stays zero
    part, _ = stored_run(tmp_path / "part", sources["base"], {"name": "full"}, frozen=["layer.0.attention"])
    result = cli(run, part, sources["own"], "--base", sources["base"])
    assert result.code == 0
    summary, modules, pairs = tables(tmp_path / "out")
    assert list(summary["zero_modules"]) == [4, 4, 0]
    assert summary["norm_delta_w"][0] == 0 and np.isnan(summary["stable_rank"][0])
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {(part.name, "own")}
    assert set(pairs["layer"]) == {"1"}
    assert modules.loc[modules["norm_delta_w"] == 0, "amplification"].isna().all()
    page = assert_page_is_whole(tmp_path / "out")
    assert "one of the two updates is zero: there are no directions to compare" in page
    assert "4 (4 not changed)" in page


def test_fused_projections_and_loralib_slices(cli: Cli, tmp_path: Path) -> None:
    """A peft adapter of all of GPT-2's c_attn beside ours of q and v: with the base it is q, k and v."""
    base = base_folder("gpt2", tmp_path / "base")
    own("gpt2", tmp_path / "own", weight_types=("q", "v"))
    of_peft("gpt2", tmp_path / "peft", target_modules=["c_attn", "wte"], fan_in_fan_out=True)
    assert cli(tmp_path / "own", tmp_path / "peft").code == 0
    assert "Only `peft`: 3 modules (c_attn in layers 0–1; wte)." in (tmp_path / "out" / "compare.md").read_text()
    assert cli(tmp_path / "own", tmp_path / "peft", "--base", base).code == 0
    page = assert_page_is_whole(tmp_path / "out")
    assert "Both: 4 modules (q, v in layers 0–1)." in page
    assert "Only `peft`: 3 modules (k in layers 0–1; wte)." in page
    state = {f"transformer.h.{n}.attn.c_attn.lora_{side}": torch.randn(6, 32) if side == "A" else torch.randn(64, 3)
             for n in range(LAYERS) for side in "AB"}  # fmt: skip
    torch.save(state, tmp_path / "lora.pt")
    assert cli(tmp_path / "lora.pt", tmp_path / "own", "--alpha", 6, "--slices", "q+v", "--base", base).code == 0
    assert tables(tmp_path / "out")[0]["weight_types"][0] == "q+v"
    result = cli(tmp_path / "lora.pt", "--alpha", 6)
    assert result.code == 2 and "does not say which of these: choose the slices" in result.err
    result = cli(tmp_path / "lora.pt", "--alpha", 6, "--slices", "q+w")
    assert result.code == 2 and "--slices: 'w' is none of q, k" in result.err


def test_encoder_and_decoder(cli: Cli, tmp_path: Path) -> None:
    """T5's blocks have the same numbers in both stacks, and a decoder has two attentions: paths tell them apart."""
    own("t5", tmp_path / "all", weight_types=("q", "o"))
    of_peft("t5", tmp_path / "decoder", target_modules=r"decoder\..*SelfAttention\.q")
    assert cli(tmp_path / "all", tmp_path / "decoder").code == 0
    _, _, pairs = tables(tmp_path / "out")
    assert set(pairs["module"]) == {f"decoder.block.{n}.layer.0.SelfAttention.q" for n in range(LAYERS)}
    assert_page_is_whole(tmp_path / "out")


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_bad_input_is_one_line(cli: Cli, sources: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"a.lora_A": Malicious(tmp_path / "trace")}, tmp_path / "evil.pt")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / io.CONFIG).write_text((sources["own"] / io.CONFIG).read_text())
    (tmp_path / "damaged" / io.WEIGHTS).write_bytes(b"\0" * 9)
    cases = [
        ([], "the following arguments are required: ADAPTER"),
        ([tmp_path / "nothing"], "does not exist"),
        ([tmp_path / "damaged"], "is damaged"),
        ([sources["own"], tmp_path / "damaged"], "is damaged"),
        ([tmp_path / "evil.pt", "--alpha", 1], "cannot be read as plain tensors"),
        ([sources["lora.pt"]], "does not store alpha: give --alpha"),
        ([sources["lora.pt"], "--alpha", 0], "--alpha 0: it must be positive"),
        ([sources["own"], "--top", 0], "whole number of at least 1"),
        ([sources["full"]], "its updates need the model it started from, --base"),
        ([sources["own"], "--base", tmp_path], "is no model: it has no config.json"),
    ]
    for arguments, message in cases:
        result = cli(*arguments)
        assert result.code == 2, arguments
        assert result.err.startswith("error: ") and message in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out").exists()


def test_make_target() -> None:
    """BASE takes the short name of a packaged model, as MODEL does elsewhere, or anything that --base takes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    given = ' --base="$LAB_BASE"'  # which make exports: the shell sees no name that it could take apart
    for base, option in (("minilm", given.replace('"', 'asset:"', 1)), ("some/model", given), ("", "")):
        command = ["make", "-n", "compare", "ADAPTERS=a b", f"BASE={base}", "RESULTS=r", "ARGS=--top 8"]
        made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert f"-m lora_lab compare a b{option} --runs r/runs --out r/compare --top 8" in " ".join(made.stdout.split())


def test_names_are_short_and_distinct() -> None:
    assert compare.distinct(["/a/b/adapter", "/a/c/adapter"]) == ["b/adapter", "c/adapter"]
    assert compare.distinct(["/a/b/adapter/", "/a/c"]) == ["adapter", "c"]
    assert compare.distinct(["x", "/y/x"]) == ["x", "y/x"]
    assert compare.distinct(["x", "x", "x"]) == ["x", "x (2)", "x (3)"]


def test_prefixes_are_the_same_module(sources: dict[str, Any], tmp_path: Path) -> None:
    """An adapter of a body and one of the body under a head are of the same modules."""
    tensors = load_file(sources["peft"] / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((sources["peft"] / "adapter_config.json").read_text())
    bare = {name.replace(".bert.", "."): tensor for name, tensor in tensors.items()}
    assert set(bare) != set(tensors)
    save_file(bare, tmp_path / "adapter_model.safetensors")
    modules = match([read(sources["own"]), read(tmp_path)])
    assert [set(module.updates) for module in modules] == 2 * [{0, 1}, {0, 1}, {1}]
    assert [(module.layer, module.weight_type) for module in modules][:3] == [("0", "q"), ("0", "v"), ("0", "up")]
    assert abbreviate(modules) == "q, v, up in layers 0–1"


@pytest.mark.parametrize("ranks", [(1, 1), (1, 8), (4, 6)])
def test_cosine_of_random_updates(ranks: tuple[int, int]) -> None:
    """Its standard deviation is 1 / sqrt(d k), and three of these hold at least 95% of draws, at any rank."""
    d, k, rng = 20, 30, np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        first, second = (rng.standard_normal((d, r)) @ rng.standard_normal((r, k)) for r in ranks)
        draws.append(np.vdot(first, second) / np.linalg.norm(first) / np.linalg.norm(second))
    chance = cosine_chance((d, k))
    assert np.std(draws) == pytest.approx(chance, rel=0.1)
    assert np.mean(np.abs(draws) < 3 * chance) > 0.95

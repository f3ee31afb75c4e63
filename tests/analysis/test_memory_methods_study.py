"""The study of memory methods on runs whose updates are known, and the runs that its config asks for."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file
from scipy.stats import entropy, ttest_rel
from tiny_models import randomise, tiny_model
from torch import nn

from analysis.kit import naming
from analysis.kit.data import Data
from analysis.studies.memory_methods import draw
from analysis.studies.memory_methods import study as memory_methods
from analysis.study import run_study
from lora import freeze, inject, io
from lora.config import InputError, LoRAConfig
from lora.tensor_files import open_tensors

STUDY = "memory_methods"
LORA: dict[str, Any] = {"name": "lora", "r": 2, "alpha": 16, "weight_types": "q+v"}
GALORE = {"name": "full", "optimizer": "galore", "r": 2, "refresh": 9, "scale": 2.0}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"name": "full"},
    "galore (r=2)": GALORE,
    "galore (r=4)": GALORE | {"r": 4},
    "badam": {"name": "full", "optimizer": "badam", "switch": 2, "order": "descending", "block": 1},
    "freeze": {"name": "freeze", "layers": 1},
    "lora": LORA,
}
MEMORY = {"full": 4e9, "galore (r=2)": 3e9, "galore (r=4)": 3.2e9, "badam": 2e9, "freeze": 1e9, "lora": 0.5e9}
QUALITY = {"full": 0.8, "galore (r=2)": 0.7, "galore (r=4)": 0.79, "badam": 0.81, "freeze": 0.75, "lora": 0.8}
WOBBLE = (0.0, 0.01, -0.012)
Store = Callable[..., str]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("bert").save_pretrained(folder)
    return folder


@torch.no_grad()
def _trained(name: str, method: dict[str, Any], seed: int) -> nn.Module:
    """A tiny BERT with an update as the method leaves it: where it trains, and of which rank."""
    model = tiny_model("bert")
    torch.manual_seed(100 + seed)
    if name == "lora":
        inject(model, LoRAConfig(r=2, alpha=16))
        freeze(model)
        randomise(model, seed=seed)
        return model
    for key, parameter in model.named_parameters():
        trained = name not in ("badam", "freeze") or "layer." in key
        if name == "freeze":
            trained = "layer.1." in key
        parameter.requires_grad_(trained)
        if trained and "galore" in name and parameter.ndim == 2 and "layer." in key:
            d, k = parameter.shape
            parameter += 0.01 * torch.randn(d, method["r"]) @ torch.randn(method["r"], k)
        elif trained:
            parameter += 0.01 * torch.randn_like(parameter)
    return model


@pytest.fixture
def store(make_run: Callable[..., str], runs_dir: Path, base: Path) -> Store:
    def make(name: str, seed: int, memory: bool = True, change: Callable[[nn.Module], None] | None = None) -> str:
        value = QUALITY[name] + (WOBBLE[seed] if name == "full" else WOBBLE[seed] / 2)
        run_id = make_run(seed=seed, method=METHODS[name], test=value, trainable_params=5)
        folder = runs_dir / run_id
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["model"]["path"] = str(base)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        metrics = json.loads((folder / "metrics.json").read_text()) | {"precision": "float32"}
        metrics["metrics"] += [{"split": "test", "metric": "loss", "value": 1.5 - value}]
        if memory:
            metrics["training_memory_bytes"] = int(MEMORY[name] * (1 + 0.01 * seed))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        model = _trained(name, METHODS[name], seed)
        if change:
            change(model)
        io.save(model, folder / "adapter")
        return run_id

    return make


@pytest.fixture
def runs(store: Store) -> dict[tuple[str, int], str]:
    return {(name, seed): store(name, seed) for seed in range(3) for name in METHODS}


def test_every_file_is_written_and_right(
    runs: dict[tuple[str, int], str], study_dir: Path, runs_dir: Path, base: Path
) -> None:
    outputs = run_study(study_dir, runs_dir)
    check_files(outputs, runs, study_dir, runs_dir, base)
    check_what_is_shared_with_lora(runs, study_dir, runs_dir)
    check_quality_memory_and_words(study_dir)


def test_the_picture_of_memory_shows_every_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    about = {"model": "tiny", "task": "reviews", "metric": "accuracy"}
    means = {"full": 0.6, "lora": 0.8}
    rows = [about | {"name": name, draw.MEMORY: 1e9, "mean": mean, "interval": 0.01} for name, mean in means.items()]
    runs = [row | {"value": row["mean"] + shift} for row in rows for shift in (-0.005, 0.005)]
    data = MagicMock(scores=pd.DataFrame(runs))
    data.__getitem__.return_value = pd.DataFrame(rows).assign(main=True)  # table.csv
    kept: list[Any] = []
    monkeypatch.setattr(draw.marks, "finish", lambda figure, *_: kept.append(figure))
    draw.memory(data, tmp_path / "memory.png")
    low, high = kept[0].axes[0].get_ylim()
    assert low < 60 and high > 80


def check_files(
    outputs: list[Path], runs: dict[tuple[str, int], str], study_dir: Path, runs_dir: Path, base: Path
) -> None:
    names = {"runs.csv", "table.csv", "ranks.csv", "table.md", "memory.png", "ranks.png", "provenance.json"}
    assert {path.name for path in outputs} == names
    assert all((study_dir / name).stat().st_size > 10_000 for name in ("memory.png", "ranks.png"))

    ranks = pd.read_csv(study_dir / "ranks.csv")
    key = "bert.encoder.layer.1.output.dense.weight"
    start = open_tensors(base / "model.safetensors").tensors([key])[key]
    for name in ("full", "galore (r=2)", "badam", "freeze"):
        run_id = runs[name, 1]
        trained = load_file(runs_dir / run_id / "adapter" / io.WEIGHTS)[key]
        S = np.linalg.svd((trained.double() - start.double()).numpy(), compute_uv=False)
        here = ranks[(ranks["run_id"] == run_id) & (ranks["layer"] == 1) & (ranks["weight_type"] == "down")]
        (row,) = here.to_dict("records")
        assert row["method"] == name
        assert row["stable_rank"] == pytest.approx((S**2).sum() / S[0] ** 2, rel=1e-4)
        assert row["effective_rank"] == pytest.approx(np.exp(entropy(S)), rel=1e-4)
        assert row["top_share"] == pytest.approx((S[:8] ** 2).sum() / (S**2).sum(), rel=1e-4)
        assert row["norm_delta_w"] == pytest.approx(np.linalg.norm(S), rel=1e-4)
        drawn = np.random.default_rng(7).standard_normal((200, *start.shape))
        chance = np.mean([np.exp(entropy(np.linalg.svd(one, compute_uv=False))) for one in drawn])
        assert row["random_effective_rank"] == pytest.approx(chance, rel=0.05)
    galore = ranks[ranks["method"] == "galore (r=2)"]
    assert (galore["effective_rank"] <= 2 + 1e-3).all() and galore["top_share"].min() > 0.9999
    assert set(ranks.loc[ranks["method"] == "freeze", "layer"]) == {1}
    assert set(ranks.loc[ranks["method"] == "lora", "weight_type"]) == {"q", "v"}


def check_what_is_shared_with_lora(runs: dict[tuple[str, int], str], study_dir: Path, runs_dir: Path) -> None:
    ranks = pd.read_csv(study_dir / "ranks.csv")
    assert ranks.loc[~ranks["weight_type"].isin(["q", "v"]), "phi_left"].isna().all()
    key = "bert.encoder.layer.0.attention.self.query"
    for seed, other in ((0, 1), (2, 0)):  # LoRA of the next seed; the last has the first
        own = runs["badam", seed]
        adapter = io.read(runs_dir / runs["lora", other] / "adapter")
        (target,) = (target for target in adapter.targets if target.module == key)
        A, B = adapter.matrices(target)
        left = np.linalg.svd((B @ A).double().numpy())[0][:, :2]
        trained = load_file(runs_dir / own / "adapter" / io.WEIGHTS)[f"{key}.weight"]
        delta_w = trained.double() - dict(tiny_model("bert").named_parameters())[f"{key}.weight"].detach().double()
        top = np.linalg.svd(delta_w.numpy())[0][:, :2]
        here = ranks[(ranks["run_id"] == own) & (ranks["layer"] == 0) & (ranks["weight_type"] == "q")]
        assert here["k"].item() == 2
        assert here["phi_left"].item() == pytest.approx(np.linalg.norm(left.T @ top) ** 2 / 2, rel=1e-3)
        assert here["chance_left"].item() == pytest.approx(2 / len(left), rel=0.1)


def check_quality_memory_and_words(study_dir: Path) -> None:
    table = pd.read_csv(study_dir / "table.csv")
    main = table[table["main"]].set_index("name")
    assert list(main.index) == list(METHODS)
    full = [QUALITY["full"] + wobble for wobble in WOBBLE]
    low = [QUALITY["galore (r=2)"] + wobble / 2 for wobble in WOBBLE]
    assert main.loc["galore (r=2)", "full_difference"] == pytest.approx(-0.1 - np.mean(WOBBLE) / 2)
    assert main.loc["galore (r=2)", "full_p"] == pytest.approx(ttest_rel(low, full).pvalue, rel=1e-3)
    assert main.loc["badam", "training_memory_bytes"] == pytest.approx(2e9 * 1.01)
    text = (study_dir / "table.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("- Memory of training"))
    assert line.startswith(
        "- Memory of training, least first: lora 0.51 GB (12% of full), freeze 1.01 GB (25% of full)"
    )
    (against,) = (line for line in text.splitlines() if line.startswith("- Against full"))
    assert "worse galore (r=2, refresh=9, scale=2), freeze; " in against
    ranked = next(line for line in text.splitlines() if line.startswith("- Effective rank"))
    assert "at the 2 matrices that all methods train (q+v)" in ranked  # of the last layer
    assert "below full galore (r=2) (" in ranked and "lora (" in ranked
    assert "not told apart badam (" in ranked
    assert "| random matrix |" in text and "| 100.0 ± 0.0 (3) " in text
    assert "### The update, rotten_tomatoes (minilm)" in text


def test_runs_that_are_older_than_the_measurement(store: Store, study_dir: Path, runs_dir: Path) -> None:
    for name in METHODS:
        store(name, 0, memory=name != "full")
    run_study(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "least first: lora 0.50 GB, freeze 1.00 GB" in text
    assert "Not measured, as the runs are older than this: full." in text
    assert "no test, which takes two seeds that both have" in text


def test_without_any_measurement_or_lora(store: Store, study_dir: Path, runs_dir: Path) -> None:
    for name in ("full", "badam"):
        store(name, 0, memory=False)
    run_study(study_dir, runs_dir)
    assert "not measured, as the runs are older than its measurement" in (study_dir / "table.md").read_text()
    assert pd.read_csv(study_dir / "ranks.csv")["phi_left"].isna().all()


def test_an_update_that_is_zero(store: Store, study_dir: Path, runs_dir: Path) -> None:
    @torch.no_grad()
    def undo(model: nn.Module) -> None:
        key = "bert.encoder.layer.1.attention.self.key.weight"
        model.get_parameter(key).copy_(tiny_model("bert").get_parameter(key))

    run_id = store("full", 0, change=undo)
    with pytest.raises(InputError, match=f"run {run_id}: the update of .*layer.1.attention.self.key, k, is zero"):
        run_study(study_dir, runs_dir)


def test_names() -> None:
    rows = [("m", "a", METHODS["full"]), ("m", "a", GALORE), ("m", "a", GALORE | {"r": 4}), ("m", "b", GALORE)]
    rows += [("m", "b", METHODS["badam"]), ("m", "b", METHODS["badam"] | {"switch": 3}), ("m", "b", LORA)]
    frame = pd.DataFrame(
        [(model, task, naming.label(of), naming.settings(of), of.get("r", np.nan)) for model, task, of in rows],
        columns=["model", "task", "label", "settings", "r"],
    )
    found = memory_methods.names(frame)
    assert [*found.values()][:: len(found) - 1] == ["full", "lora"]
    assert "badam (block=1, order=descending, switch=2)" in found.values()
    assert {"galore (r=4)"} <= set(found.values())


def test_rank_lines_without_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(
        {"model": ["m"], "task": ["t"], "method": ["lora"], "layer": [0], "weight_type": ["q"], "seed": 0}
    )
    monkeypatch.setattr(Data, "frame", lambda self, name: frame.assign(effective_rank=2.0))
    assert memory_methods.rank_lines(Data(memory_methods.STUDY, tmp_path, tmp_path)) == []


@functools.cache
def jobs(preset: str) -> list[dict[str, Any]]:
    """The configs of the study's runs of seed 0."""
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        overrides = ["study=memory_methods", f"preset={preset}"]
        sweeper = compose("config", overrides, return_hydra_config=True).hydra.sweeper
        params = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in sweeper.params.items()])
        (batch,) = instantiate(sweeper).split_arguments(params, None)
        found = [compose("config", [*overrides, *job]) for job in batch if "seed=0" in job]
    return [dict(OmegaConf.to_container(config, resolve=True)) for config in found]


@pytest.mark.parametrize(("preset", "turns"), [("smoke", 2), ("quick", 2), ("desk", 2)])
def test_badam_comes_to_each_block_twice_and_galore_has_several_subspaces(preset: str, turns: int) -> None:
    found = jobs(preset)
    labels = [naming.label(config["method"]) for config in found]
    assert {"full", "galore", "badam", "lora"} <= set(labels)
    for config, label in zip(found, labels, strict=True):
        training, method = config["training"], config["method"]
        steps = math.ceil(config["task"]["train_examples"] / training["batch_size"]) * training["epochs"]
        if label == "badam":
            layers = {"minilm": 6, "smollm2": 30}[config["model"]["name"]]
            assert turns * method["switch"] * math.ceil(layers / method["block"]) <= steps
        if label == "galore":
            assert 2 <= math.ceil(steps / method["refresh"]) <= 4
        if preset != "desk":
            assert training["lr"] != "tuned"


def test_every_rate_of_desk_is_tuned_among_three() -> None:
    for config in jobs("desk"):
        assert config["training"]["lr"] == "tuned"
        assert len(config["tuning"]["lr_grid"]) == 3


def test_known_rates_of_the_old_desk_and_equal_tuning_of_the_others() -> None:
    for config in jobs("desk1"):
        kind, lr = naming.label(config["method"]), config["training"]["lr"]
        if config["model"]["name"] == "smollm2" and kind in ("full", "lora", "ft_top2"):
            assert lr == {"full": 3e-4, "lora": 1e-2, "ft_top2": 1e-3}[kind]
            continue
        assert lr == "tuned"
        smollm2 = config["model"]["name"] == "smollm2"
        assert len(config["tuning"]["lr_grid"]) == (3 if smollm2 else 5)
        assert config["tuning"]["extend"] == (2 if smollm2 else 4)


def test_tables_and_figures_need_no_adapters(
    runs: dict[tuple[str, int], str], derive_again: Callable[..., None]
) -> None:
    derive_again(run_study, "ranks.png")

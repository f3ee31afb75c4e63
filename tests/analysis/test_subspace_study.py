import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from analysis.kit import phi as phi_grids
from analysis.kit.heat_maps import Panel, index_ticks
from analysis.kit.phi import SIDES
from analysis.kit.tables import load_runs
from analysis.maths.subspace import Baseline, phi
from analysis.studies.subspace import draw
from analysis.studies.subspace import study as subspace
from analysis.studies.subspace import tables as phi_tables
from analysis.study import run_study
from analysis.weights.sites import Site, sites_of
from lora.config import InputError
from lora.io import Target

STUDY = "subspace"
SHAPE = (14, 20)


def write_adapter(
    folder: Path, r: int, seed: int, modules: tuple[str, ...] = ("query", "value"), trained: bool = True
) -> None:
    """Two layers whose value updates share their top direction over all seeds and ranks; query updates are random."""
    generator = torch.Generator().manual_seed(seed + 1)
    d, k = SHAPE
    tensors: dict[str, torch.Tensor] = {}
    targets = []
    for layer in range(2):
        for module in modules:
            weight_type = module[0]
            name = f"bert.encoder.layer.{layer}.attention.self.{module}"
            a = torch.randn(r, k, generator=generator)
            b = torch.randn(d, r, generator=generator) * float(trained)
            if weight_type == "v":
                a[0] = 100 * torch.eye(k)[layer]
                b[:, 0] *= 100
            tensors |= {f"{name}.{weight_type}.lora_A": a, f"{name}.{weight_type}.lora_B": b}
            target = {
                "module": name,
                "weight_type": weight_type,
                "layer": layer,
                "r": r,
                "scaling": 2.0,
                "shape": SHAPE,
            }
            targets.append(target | {"w0_norm": 1.0})
    folder.mkdir()
    save_file(tensors, folder / "adapter.safetensors")
    (folder / "lora_config.json").write_text(json.dumps({"format": 1, "targets": targets, "trained_parameters": []}))


@pytest.fixture
def three_runs(make_run: Callable[..., str], runs_dir: Path) -> dict[tuple[int, int], str]:
    runs = {(r, seed): make_run(r=r, seed=seed) for r, seed in ((2, 0), (4, 0), (4, 1))}
    for (r, seed), run_id in runs.items():
        write_adapter(runs_dir / run_id / "adapter", r, seed)
    return runs


def test_every_file_is_written_and_shared_directions_are_found(
    three_runs: dict[tuple[int, int], str], study_dir: Path, runs_dir: Path
) -> None:
    outputs = {path.name for path in run_study(study_dir, runs_dir)} - {"provenance.json"}
    figures = {
        f"fig{number}{version}.png" for number in (3, 4, 6, 7) for version in ("", "_delta_w", "_B", "_delta_w_left")
    }
    grids = {"phi_r2_r4.csv", "phi_gaussian.csv"} | {
        f"phi_seeds_{side}.csv" for side in ("A", "delta_w_right", "B", "delta_w_left")
    }
    assert outputs == figures | grids | {"runs.csv", "table.csv", "table.md"}
    assert all((study_dir / name).stat().st_size for name in outputs)

    ranks = pd.read_csv(study_dir / "phi_r2_r4.csv")
    about = ["run_id", "other_run_id", "model", "task", "weight_type", "layer", "side", "dim", "i"]
    assert list(ranks.columns) == [*about, *(f"j{j}" for j in range(1, 5))]
    assert len(ranks) == 2 * 2 * 4 * 2
    seeds = pd.read_csv(study_dir / "phi_seeds_A.csv")
    assert list(seeds.columns) == [*about, *(f"j{j}" for j in range(1, 5))]
    gaussian = pd.read_csv(study_dir / "phi_gaussian.csv")
    assert set(gaussian["dim"]) == set(SHAPE)

    table = pd.read_csv(study_dir / "table.csv")
    top = table[(table["i"] == 1) & (table["j"] == 1) & (table["side"] == "A")].set_index(
        ["comparison", "weight_type", "layer"]
    )
    assert (top.xs("v", level="weight_type")["phi"] > 0.95).all()
    assert top.xs("v", level="weight_type")["above_chance"].all()
    assert (top.xs("q", level="weight_type")["phi"] < 0.7).all()
    text = (study_dir / "table.md").read_text()
    assert "r = 2 (seed 0) and r = 4 (seed 1)" in text
    assert "- v, right singular vectors of A, 2 layers: above chance phi(1, 1) in 2" in text


def test_every_model_and_task_has_its_files(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 48 of them: which, not what is on them.
    monkeypatch.setattr(draw, "phi_figure", lambda *drawn: drawn[-1].touch() or drawn[-1])
    places = [("minilm", "rotten_tomatoes"), ("minilm", "reuters_r8"), ("org/large", "rotten_tomatoes")]
    for place, (model, task) in enumerate(places):
        for r, seed in ((2, 0), (4, 0), (4, 1)):
            run_id = make_run(r=r, seed=seed, task=task, lr=1e-3 * (place + 1))
            config = runs_dir / run_id / "config.yaml"
            config.write_text(config.read_text().replace("name: minilm", f"name: {model}"))
            write_adapter(runs_dir / run_id / "adapter", r, seed, modules=("value",))
    outputs = {path.name for path in subspace.STUDY.build(study_dir, runs_dir)}
    for model, task in places:
        suffix = f"{model.replace('/', '_')}_{task}"
        assert {f"fig3_{suffix}.png", f"fig7_delta_w_left_{suffix}.png", f"phi_r2_r4_{suffix}.csv"} < outputs
    table = pd.read_csv(study_dir / "table.csv")
    assert set(zip(table["model"], table["task"], strict=True)) == set(places)
    text = (study_dir / "table.md").read_text()
    assert all(f"## {task} ({model}): r = 2 (seed 0) and r = 4 (seed 1)" in text for model, task in places)


def test_a_deep_model_is_drawn_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: dict[str, tuple[int, int]] = {}

    def record(maps: list[Panel | None], columns: int, title: str, path: Path) -> Path:
        drawn[path.stem] = len(maps), columns
        return path

    monkeypatch.setattr(draw, "phi_figure", record)
    grid = np.ones((2, 4))
    for layers in (draw.DEEP, draw.DEEP + 1):
        sites = [(side, Site(str(layer), name)) for side in SIDES for layer in range(layers) for name in "qv"]
        baselines = dict.fromkeys(sites, Baseline(8, grid, grid, grid, grid))
        found = draw.Comparison(("m", "t"), "seeds", "{symbol}", dict.fromkeys(sites, grid), baselines)
        draw.draw_ranks(found, tmp_path, f"_{layers}")
        draw.draw_seeds(found, tmp_path, f"_{layers}")
    assert drawn["fig6_12"] == (12 * 4, 4) and drawn["fig7_12"] == (12 * 2, 4)
    assert drawn["fig6_13"] == drawn["fig7_B_13"] == (13 * 2, 6)
    assert drawn["fig3_13"] == (4, 4) and drawn["fig4_13"] == (3, 3)


def test_large_grids_are_stored_in_part() -> None:
    assert phi_tables._doubling(64) == [*range(1, 9), 16, 32, 64]
    assert phi_tables._doubling(5) == [1, 2, 3, 4, 5]
    assert phi_grids.steps(18) == [*range(1, 9), 12, 16, 18]
    rng = np.random.default_rng(0)
    grid = phi(*(np.linalg.qr(rng.standard_normal((30, r)))[0] for r in (18, 20)))
    wide = phi_grids.thin(grid, {"side": "A"})
    assert list(wide.columns) == ["side", "i", *(f"j{j}" for j in (*range(1, 9), 12, 16, 20))]
    assert wide.loc[wide["i"] == 12, "j16"].item() == grid[11, 15]
    again = phi_grids.whole(wide)
    kept = np.ix_(np.subtract(phi_grids.steps(18), 1), np.subtract(phi_grids.steps(20), 1))
    np.testing.assert_array_equal(again[kept], grid[kept])
    # What i and j share, min(i, j) phi, never falls with i or j: between two that are stored, so is the truth.
    shared = again * np.minimum.outer(range(1, 19), range(1, 21))
    rows, columns = phi_grids.steps(18), phi_grids.steps(20)
    for i, j in itertools.product(range(18), range(20)):
        low = max(n for n in rows if n <= i + 1) - 1, max(n for n in columns if n <= j + 1) - 1
        high = min(n for n in rows if n > i) - 1, min(n for n in columns if n > j) - 1
        for found in (shared[i, j], grid[i, j] * min(i + 1, j + 1)):
            assert shared[low] - 1e-9 <= found <= shared[high] + 1e-9


def test_ranks_are_compared_between_different_seeds(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for r, seed in ((8, 1), (8, 2), (64, 1), (64, 2)):
        make_run(r=r, seed=seed)
    (choice,) = subspace.choose(load_runs(study_dir, runs_dir), study_dir)
    assert (choice.small[1], choice.large[1], choice.other[1]) == (1, 2, 1)


def test_seeds_of_the_large_rank_alone_leave_the_pairs_of_ranks_as_they_are(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    runs = {(r, seed): make_run(r=r, seed=seed) for r in (8, 64) for seed in range(5)}
    (before,) = subspace.choose(load_runs(study_dir, runs_dir), study_dir)
    runs |= {(64, seed): make_run(r=64, seed=seed) for seed in range(5, 10)}
    (choice,) = subspace.choose(load_runs(study_dir, runs_dir), study_dir)
    assert choice.more["r8_r64"] == before.more["r8_r64"]
    pairs = [(choice.small[0], choice.large[0]), *choice.more["r8_r64"]]
    assert pairs == [(runs[8, one], runs[64, other]) for one, other in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0))]
    assert choice.more["seeds"] == [(runs[64, seed], runs[64, seed + 1]) for seed in (2, 4, 6, 8)]


@pytest.mark.parametrize("present", [[(8, 0), (64, 0)], [(64, 0), (64, 1)], [(8, 0), (8, 1)]])
def test_missing_runs_are_named(
    present: list[tuple[int, int]], make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for r, seed in present:
        make_run(r=r, seed=seed)
    with pytest.raises(InputError, match=r"it has r = \d+: seeds .*`make subspace-plots PRESET=quick`"):
        run_study(study_dir, runs_dir)


def test_other_weight_types_are_refused(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(r=8)
    make_run(r=64, weight_types="q")
    with pytest.raises(InputError, match=r"one weight_types, but lists q\+v, q"):
        run_study(study_dir, runs_dir)


@pytest.mark.parametrize("damage", ["gone", "cut", "untrained", "modules"])
def test_an_adapter_that_cannot_be_compared_is_an_input_error(
    damage: str, three_runs: dict[tuple[int, int], str], study_dir: Path, runs_dir: Path
) -> None:
    folder = runs_dir / three_runs[4, 1] / "adapter"
    weights = folder / "adapter.safetensors"
    cut = weights.read_bytes()[:-9]
    for path in folder.iterdir():
        if damage != "cut":
            path.unlink()
    if damage == "cut":
        weights.write_bytes(cut)
    else:
        folder.rmdir()
    if damage == "untrained":
        write_adapter(folder, 4, 1, trained=False)
    if damage == "modules":
        write_adapter(folder, 4, 1, modules=("query",))
    with pytest.raises(InputError):
        run_study(study_dir, runs_dir)


def target(module: str, weight_type: str, layer: int) -> Target:
    return Target(module, weight_type, layer, 8, 1.0, (4, 4), 1.0)


def test_sites_are_layers_or_paths_where_layers_are_shared() -> None:
    fused = [target("h.0.attn.c_attn", "q", 0), target("h.0.attn.c_attn", "v", 0)]
    assert sites_of(fused) == [Site("0", "q"), Site("0", "v")]
    stacks = [target(f"{stack}.block.0.attention.{name}", name, 0) for stack in ("encoder", "decoder") for name in "qv"]
    assert sites_of(stacks)[2:] == [Site("decoder.block.0.attention", "q"), Site("decoder.block.0.attention", "v")]
    patterns = [target(f"h.0.mlp.{name}", "all", 0) for name in ("c_fc", "c_proj")]
    assert sites_of(patterns) == [Site("h.0.mlp.c_fc", "all"), Site("h.0.mlp.c_proj", "all")]


def test_ticks_are_the_papers() -> None:
    assert index_ticks(8).tolist() == list(range(1, 9))
    assert index_ticks(64).tolist() == [1, 6, 12, 18, 23, 29, 35, 40, 46, 52, 58]
    assert index_ticks(64, 5).tolist() == [1, 20, 39, 58]
    assert np.all(np.diff(index_ticks(13)) >= 1)


def test_tables_and_figures_need_no_adapters(
    three_runs: dict[tuple[int, int], str], derive_again: Callable[..., None]
) -> None:
    derive_again(run_study, "fig3.png", "fig4.png", "fig6.png", "fig7.png")

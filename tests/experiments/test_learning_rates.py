"""The choice of the learning rate, and the grids of the studies that compare methods."""

import importlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from grid import job_config, sweep_size
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments import method_settings, tuning
from lora.config import InputError

Cli = Callable[..., Any]  # conftest.cli
CONF = Path(__file__).parents[2] / "experiments" / "conf"
METHODS = sorted(path.stem for path in CONF.glob("method/*.yaml") if path.stem != "frozen")  # which trains nothing
PRESETS = sorted(path.stem for path in CONF.glob("preset/*.yaml"))
GRID = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]


def tuned(
    score: Callable[[float], float | None], grid: list[float] = GRID, extend: int = 4
) -> tuple[float, list[float], list[str]]:
    """What the search chooses, what it tried, in this order, and what it said. Scores: None where training diverges."""
    said: list[str] = []
    searching = tuning.search(grid, extend, said.append)
    tried: list[float] = []
    waiting = next(searching)
    while True:
        tried += waiting
        found = {lr: tuning.Tried(value) for lr in waiting if (value := score(lr)) is not None}
        try:
            waiting = searching.send(found)
        except StopIteration as best:
            return best.value, tried, said


def below(peak: float) -> Callable[[float], float]:
    """Scores that fall with the distance from `peak`."""
    return lambda lr: -abs(lr - peak)


def test_a_best_rate_inside_the_grid_ends_the_search() -> None:
    assert tuned(below(1e-2))[:2] == (1e-2, GRID)
    assert tuned(below(3e-2), grid=[1e-1, 1e-3, 3e-2, 3e-3, 1e-2])[:2] == (3e-2, GRID)


def test_the_grid_goes_on_upwards_until_the_best_is_inside() -> None:
    assert tuned(below(1e-1))[:2] == (1e-1, [*GRID, 0.3])
    assert tuned(below(1.0))[:2] == (1.0, [*GRID, 0.3, 1.0, 3.0])


def test_the_grid_goes_on_downwards_until_the_best_is_inside() -> None:
    assert tuned(below(3e-4))[:2] == (3e-4, [*GRID, 3e-4, 1e-4])


@pytest.mark.parametrize("extend", [0, 1, 2])
def test_it_goes_on_for_so_long_as_it_may(extend: int) -> None:
    further = [0.3, 1.0][:extend]
    assert tuned(below(1e9), extend=extend)[:2] == ([*GRID, *further][-1], [*GRID, *further])
    lower = [3e-4, 1e-4][:extend]
    assert tuned(below(0.0), extend=extend)[:2] == ([*GRID[:1], *lower][-1], [*GRID, *lower])


def test_rates_that_diverge_are_skipped_and_no_edge() -> None:
    def score(lr: float) -> float | None:
        return lr if lr < 5e-2 else None

    assert tuned(score)[:2] == (3e-2, GRID)
    # Beyond the grid too: 0.3 diverges, and 0.1, which was the last, is the best.
    assert tuned(lambda lr: lr if lr < 0.2 else None)[:2] == (1e-1, [*GRID, 0.3])
    # One that diverges in the middle is no reason to stop.
    assert tuned(lambda lr: None if lr == 1e-2 else lr, extend=1)[:2] == (0.3, [*GRID, 0.3])


def test_of_equals_the_one_nearest_to_the_middle_is_taken() -> None:
    assert tuned(lambda lr: 0.5)[:2] == (1e-2, GRID)
    assert tuned(lambda lr: 0.5 if lr in (1e-3, 3e-2) else 0.1)[:2] == (3e-2, GRID)
    assert tuned(lambda lr: 0.5 if lr >= 1e-1 else 0.1)[:2] == (1e-1, [*GRID, 0.3])


def test_it_is_said_which_rate_is_chosen_and_why() -> None:
    (said,) = tuned(lambda lr: 0.5 if lr in (1e-3, 3e-2) else 0.1)[2]
    assert said.startswith("lr=0.03 is chosen: the best validation score of 5 rates, 0.5000; lr=0.001 scored the same")


def chosen(worst: dict[float, int], extend: int = 1) -> tuple[float, list[float], list[str]]:
    """What is chosen of rates whose scores rise with the rate, and whose worst runs are as given, else sound."""
    said: list[str] = []
    searching = tuning.search(sorted(worst), extend, said.append)
    tried, waiting = list[float](), next(searching)
    while True:
        tried += waiting
        try:
            waiting = searching.send({lr: tuning.Tried(lr, worst.get(lr, 0)) for lr in waiting})
        except StopIteration as best:
            return best.value, tried, said


def test_a_rate_at_which_a_run_collapsed_is_out_and_no_edge() -> None:
    best, tried, said = chosen({1e-3: 0, 3e-3: 0, 1e-2: 2})
    assert (best, tried) == (3e-3, [1e-3, 3e-3, 1e-2])
    assert said[0] == "lr=0.01 is out: a run collapsed"
    # The best that is left is the first of those tried: the grid goes on below it.
    assert chosen({1e-3: 0, 3e-3: 1, 1e-2: 2})[1] == [1e-3, 3e-3, 1e-2, 3e-4]


def test_where_all_collapsed_the_lowest_is_taken_and_said() -> None:
    best, tried, said = chosen({1e-3: 2, 3e-3: 2, 1e-2: 2})
    assert (best, tried) == (1e-3, [1e-3, 3e-3, 1e-2])
    assert said == ["a run collapsed at every rate of 3: the lowest, lr=0.001, is taken"]


def test_where_none_is_better_than_the_head_alone_the_best_is_taken_all_the_same() -> None:
    best, _, said = chosen({1e-3: 1, 3e-3: 1, 1e-2: 2}, extend=0)
    assert best == 3e-3
    assert said[0] == "a run is no better than a head alone at every rate of 3: the best of them is taken all the same"
    assert said[1].startswith("lr=0.003 is chosen: the best validation score of 2 rates")


def test_no_rate_that_trains_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no learning rate of tuning.lr_grid = \[0.001, .*\] trains") as raised:
        tuned(lambda lr: None)
    assert "\n" not in str(raised.value)


def test_a_grid_of_one_or_two_does_not_go_on() -> None:
    assert tuned(below(1.0), grid=[1e-2])[:2] == (1e-2, [1e-2])
    assert tuned(below(1.0), grid=[1e-2, 3e-2])[:2] == (3e-2, [1e-2, 3e-2])


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_composes_and_all_are_tuned_equally(name: str) -> None:
    for preset in PRESETS:
        config = composed(f"method={name}", f"preset={preset}")
        method = OmegaConf.to_object(config.method)
        assert all((CONF.parent / "methods" / f"{part}.py").is_file() for part in method["name"].split("+"))
        grid = list(config.tuning.lr_grid)
        assert len(grid) == (3 if preset == "desk" else 5)
        ratios = [high / low for low, high in itertools.pairwise(grid)]
        assert all(2.9 < ratio < 3.4 for ratio in ratios)  # half a decade: 1, 3, 10
        assert config.tuning.extend == (1 if preset == "desk" else 4)
        assert OmegaConf.to_object(config.tuning.at) == {"seed": 0}
        if "alpha" in method:
            assert method["alpha"] == config.preset.alpha


def jobs_of(config: DictConfig, *user: str) -> list[list[str]]:
    """The overrides of each run of a study, as Hydra's sweeper and the user's words make them."""
    settings = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    # Hydra loads its plugins' modules itself: the class is the one that it has loaded.
    module, _, name = settings.pop("_target_").rpartition(".")
    sweeper = getattr(importlib.import_module(module), name)(**settings)
    params = [f"{key}={value}" for key, value in settings["params"].items()]
    overrides = OverridesParser.create().parse_overrides([*params, *user])
    return [job for batch in sweeper.split_arguments(overrides, None) for job in batch]


@pytest.mark.parametrize(
    ("study", "sizes"),
    [
        ("alpha", {"smoke": 2, "quick": 8, "desk": 8 * 2 * 8, "desk1": 8 * 2 * 3, "paper": 8 * 2 * 3}),
        ("scaling", {"smoke": 2, "quick": 8, "desk": 21 * 5, "desk1": 21 * 3, "paper": 21 * 3}),
        ("compare_methods", {"smoke": 2 * 2, "quick": 4, "desk": 13 * 3 * 8, "desk1": 13 * 3 * 5, "paper": 13 * 8 * 5}),
    ],
)
def test_sizes_of_the_grids(study: str, sizes: dict[str, int]) -> None:
    for preset, expected in sizes.items():
        config = composed(f"study={study}", f"preset={preset}")
        jobs = jobs_of(config)
        assert sweep_size(config) == expected == len({tuple(job) for job in jobs}), preset
        for job in jobs[:: max(1, len(jobs) // 12)]:
            each = job_config(f"preset={preset}", *job)
            assert OmegaConf.to_container(each.method, resolve=True)["name"]


def test_points_of_alpha_are_every_ratio_at_two_ranks() -> None:
    jobs = jobs_of(composed("study=alpha", "preset=desk"))
    found = Counter(tuple(float(x) for x in re.findall(r"method\.(?:r|alpha)=(\S+)", " ".join(job))) for job in jobs)
    ratios = (0.25, 1.0, 4.0, 16.0)
    assert found == {(r, r * ratio): 2 * 8 for r in (4.0, 64.0) for ratio in ratios}


def test_every_size_in_scaling_is_one_that_its_method_takes() -> None:
    config = composed("study=scaling", "preset=desk")
    for point in config.all_points:
        method = OmegaConf.to_container(job_config(*point.split()).method, resolve=True)
        assert isinstance(method, dict)
        method_settings.read({str(field): value for field, value in method.items()})


def test_a_word_of_the_user_wins_over_a_point() -> None:
    config = composed("study=alpha", "preset=smoke")
    assert [job_config(*job).method.alpha for job in jobs_of(config, "method.alpha=2")] == [2, 2]


def runs_of(folder: Path, study: str) -> list[tuple[str, dict[str, Any]]]:
    """(role, config) of the runs of a study, in order."""
    lines = (folder / "results" / "smoke" / f"{study}@tiny_reviews" / "sweep.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert not [entry for entry in entries if "error" in entry]
    runs = folder / "results" / "runs"
    return [(e["role"], yaml.safe_load((runs / e["run_id"] / "config.yaml").read_text())) for e in entries]


def on_tiny(tiny: list[str]) -> list[str]:
    """The tiny model and file in a study, whose own learning rate and task would else be swept."""
    return [override for override in tiny if not override.startswith("training.lr")]


def test_the_alpha_study_runs_its_points(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    result = cli(*on_tiny(tiny), "study=alpha")
    assert result.code == 0, result.err
    configs = runs_of(tmp_path, "alpha")
    assert [role for role, _ in configs] == ["study", "study"]
    assert [(c["method"]["r"], c["method"]["alpha"], c["training"]["lr"]) for _, c in configs] == [
        (4, 4, 3e-3),
        (4, 16, 3e-3),
    ]


def test_the_comparison_of_methods_runs_both_with_both_seeds(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    result = cli(*on_tiny(tiny), "study=compare_methods")
    assert result.code == 0, result.err
    configs = runs_of(tmp_path, "compare_methods")
    assert Counter((c["method"]["name"], c["seed"]) for _, c in configs) == {
        (name, seed): 1 for name in ("lora", "full") for seed in (0, 1)
    }
    # A method has its own fields and no others: they are part of what identifies a run.
    assert all(c["method"] == {"name": "full"} for _, c in configs if c["method"]["name"] == "full")
    assert all(c["task"]["train_examples"] == 96 for _, c in configs)


@pytest.mark.parametrize("name", ["adapter_h", "prefix_layer", "lora+prefix_embed", "bitfit"])
def test_a_method_from_the_command_line(cli: Cli, tiny: list[str], tmp_path: Path, name: str) -> None:
    result = cli(*tiny, f"method={name}")
    assert result.code == 0, result.err
    assert f" {name} " in result.out
    (folder,) = (path for path in (tmp_path / "results" / "runs").iterdir() if not path.name.startswith("."))
    d, layers, labels = 32, 2, 2
    body = {
        "adapter_h": 2 * layers * (2 * d * 8 + 8 + d),
        "prefix_layer": layers * d * 32,
        "lora+prefix_embed": 2 * layers * 2 * d * 8 + d * 16,
        # 4 d of q, k, v, o, the MLP's 64 and d, d each of two norms; the norm of the embeddings; the pooler
        "bitfit": layers * (4 * d + 64 + d + 2 * d) + d + d,
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["trainable_params"] == body[name] + d * labels + labels


def test_a_point_can_take_from_the_config_of_its_job() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        point = "hydra.sweeper.points=['method=lora method.r=@{preset.alpha}']"
        config = compose("config", ["study=scaling", "preset=smoke", point], return_hydra_config=True)
        (job,) = instantiate(config.hydra.sweeper).split_arguments([], None)[0]
        assert job == ["method=lora", "method.r=${preset.alpha}"]
        assert compose("config", [*job, "preset.alpha=5"]).method.r == 5

"""Every config composes, and says what DESIGN and the paper say."""

from pathlib import Path

import pytest
from grid import sweep_size
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from experiments import method_settings
from experiments.methods.lora import config as lora_config

CONF = Path(__file__).parents[2] / "experiments" / "conf"
STUDIES = [path.stem for path in CONF.glob("study/[!_]*.yaml") if path.stem != "none"]
TASKS = [str(path.relative_to(CONF / "task").with_suffix("")) for path in CONF.glob("task/**/[!_]*.yaml")]
PRESETS = [path.stem for path in CONF.glob("preset/*.yaml")]


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_tasks_and_presets(task: str, preset: str) -> None:
    config = composed(f"task={task}", f"preset={preset}")
    resolved = {key: OmegaConf.to_object(config[key]) for key in ("model", "task", "method", "training", "runtime")}
    assert resolved["task"]["family"]
    assert resolved["training"]["epochs"] >= 1
    adapters = method_settings.lora(resolved["method"])
    assert adapters is not None and lora_config(adapters).r == 8


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_study_has_a_grid_for_every_preset(study: str, preset: str) -> None:
    config = composed(f"study={study}", f"preset={preset}")
    assert config.study_dir == f"results/{preset}/{study}"
    assert sweep_size(config) >= 2


def test_sizes_of_the_rank_ablation() -> None:
    sizes = {preset: sweep_size(composed("study=rank_ablation", f"preset={preset}")) for preset in PRESETS}
    assert sizes == {"smoke": 2, "quick": 7, "desk": 2 * 3 * 7 * 8, "desk1": 2 * 3 * 7 * 3, "paper": 3 * 5 * 5}
    config = composed("study=rank_ablation", "preset=quick")
    config.hydra.overrides.task = ["method.r=4", "seed=0,1,2"]
    assert sweep_size(config) == 3

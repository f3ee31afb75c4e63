"""The ids of the runs behind the committed tables: what is composed today still names them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import budget
from experiments.checks import check
from experiments.store import definition, run_id

DESK = Path(__file__).parents[2] / "results" / "desk"


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    check(config := {str(key): value for key, value in config.items()})
    return budget.resolve(config)


def stored(study: str) -> pd.DataFrame:
    runs = pd.read_csv(DESK / study / "runs.csv")
    return runs.drop_duplicates("run_id")


@pytest.mark.parametrize(("task", "least"), [("rotten_tomatoes", 60), ("reuters_r8", 40)])
def test_every_run_of_the_rank_ablation(task: str, least: int) -> None:
    runs = stored("rank_ablation")
    runs = runs[(runs["task"] == task) & (runs["method"] == "lora")]
    base = composed("study=rank_ablation", "preset=desk", f"task={task}", "training.lr=1e-3")
    for row in runs.to_dict("records"):
        method = {**base["method"], "weight_types": row["weight_types"], "r": int(row["r"])}
        config = {**base, "method": method, "training": {**base["training"], "lr": row["lr"]}, "seed": int(row["seed"])}
        assert run_id(definition(config)) == row["run_id"]
    assert len(runs) >= least


def test_runs_of_language_models() -> None:
    runs = stored("table4")
    found = 0
    for row in runs[(runs["method"] == "lora") & (runs["model"] == "smollm2")].to_dict("records"):
        task = {"text_rotten_tomatoes": "text/rotten_tomatoes"}.get(row["task"], row["task"])
        config = composed(
            *("study=table4", "preset=desk1", "model=smollm2", f"task={task}", "method=lora", f"seed={row['seed']}"),
            f"method.weight_types={row['weight_types']}",
            *(f"method.{field}={row[field]:g}" for field in ("r", "alpha")),
            f"training.lr={row['lr']}",
        )
        found += run_id(definition(config)) == row["run_id"]
    assert found >= 3


def test_a_precision_counts_where_it_is_asked_for() -> None:
    ids = [
        run_id(definition(composed(f"runtime.precision={precision}", "preset=desk")))
        for precision in ("auto", "fp32", "bf16")
    ]
    assert len(set(ids)) == 3
    assert ids[0] == run_id(definition(composed("runtime.threads=2", "runtime.device=cpu", "preset=desk")))

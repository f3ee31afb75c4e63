"""What is found wrong with a command before anything is trained; and which learning rate is chosen."""

import importlib
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import checks, names, tuning
from experiments.config import RunConfig
from experiments.kinds import check_kind, kind_of
from experiments.tasks import TaskData, TextData
from lora.config import InputError

LOCAL: dict[str, Any] = {
    "family": "local", "name": None, "path": None, "text_column": "text", "prompt_column": "prompt",
    "completion_column": "completion",
}  # fmt: skip


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], dict[str, Any]]:
    """A task of the user's own file."""

    def make(name: str, text: str) -> dict[str, Any]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return LOCAL | {"path": str(tmp_path / name)}

    return make


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.csv", "text,label\nx,y\n", "labels"),
        ("a.csv", '\ufeff"label","text"\nx,y\n', "labels"),
        ("a.tsv", "prompt\tcompletion\nx\ty\n", "pairs"),
        ("a.jsonl", '\n{"prompt": "x", "completion": ["y"]}\n', "pairs"),
        ("a.jsonl", '{"text": "x", "label": 1}\n', "labels"),
        ("a.csv", "text,prompt,label\nx,y,z\n", "labels"),
        ("a.csv", "", None),
        ("a.jsonl", "no json", None),
        ("a.jsonl", "[1, 2]", None),
    ],
)
def test_the_kind_of_a_file(name: str, text: str, kind: str | None, file: Callable[[str, str], dict[str, Any]]) -> None:
    assert kind_of(file(name, text)) == kind


def test_what_cannot_be_told_is_left_to_the_reading(tmp_path: Path) -> None:
    assert kind_of(LOCAL) is None
    assert kind_of(LOCAL | {"path": str(tmp_path / "none.csv")}) is None


@pytest.mark.parametrize("task", [name for name in names.options("task") if name != "local"])
def test_the_kind_of_every_task_that_has_a_config(task: str) -> None:
    """It is what the module of its family says that it returns."""
    config = composed(f"task={task}")["task"]
    load = importlib.import_module(f"experiments.tasks.{config['family']}").load
    assert kind_of(config) == {TaskData: "labels", TextData: "pairs"}[typing.get_type_hints(load)["return"]]


def test_a_task_of_the_wrong_kind_is_refused_with_the_study_that_fits(
    file: Callable[[str, str], dict[str, Any]],
) -> None:
    labels = file("reviews.csv", "text,label\nx,y\n")
    with pytest.raises(InputError) as caught:
        check_kind({"name": "table3", "data": "pairs", "other": "compare-methods"}, labels)
    assert str(caught.value) == (
        "task reviews.csv has texts with labels, and table3 is a study of prompts with completions: "
        "`make compare-methods` is the study for these"
    )
    pairs = file("pairs.jsonl", json.dumps({"prompt": "x", "completion": "y"}))
    with pytest.raises(InputError, match="no study of prompts with completions answers its question"):
        check_kind({"name": "alpha", "data": "labels"}, pairs | {"name": "mine"})
    check_kind({"name": "subspace"}, pairs)
    check_kind({"name": "table3", "data": "pairs"}, pairs)


@pytest.mark.parametrize("study", [name for name in names.options("study") if name != "none"])
def test_what_studies_declare(study: str) -> None:
    """The other study is a make target, and is of the other kind."""
    own = yaml.safe_load((names.CONF / "study" / f"{study}.yaml").read_text())["study"]
    assert own.get("data") in (None, "labels", "pairs")
    if "other" not in own:
        return
    makefile = (Path(__file__).parents[2] / "Makefile").read_text().splitlines()
    recipe = makefile[next(i for i, line in enumerate(makefile) if line.startswith(f"{own['other']}:")) + 1]
    other = recipe.partition("$(call study,")[2].rstrip(")").partition(",")[0]
    theirs = yaml.safe_load((names.CONF / "study" / f"{other}.yaml").read_text())["study"]
    assert {own["data"], theirs["data"]} == {"labels", "pairs"}


@pytest.mark.parametrize("study", ["rank_ablation", "table3"])
def test_a_whole_config_is_checked(study: str) -> None:
    wrong = {"rank_ablation": "e2e", "table3": "rotten_tomatoes"}[study]
    checks.check(composed(f"study={study}"))
    with pytest.raises(InputError, match=f"{study} is a study of"):
        checks.check(composed(f"study={study}", f"task={wrong}"))


def test_models_that_are_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    checks.check_models(
        [RunConfig.of(composed()), RunConfig.of(composed("model=smollm2"))]
    )  # assets: nothing is fetched
    with pytest.raises(InputError, match="there is no model mnilm here; did you mean minilm"):
        checks.check_models([RunConfig.of(composed()), RunConfig.of(composed("model=hub", "model.path=mnilm"))])


def test_jobs_are_named_by_what_differs() -> None:
    jobs = [["method=lora", "method.r=1", "seed=0"], ["method=lora", "method.r=1", "seed=1"]]
    assert checks.short_names(jobs) == ["seed=0", "seed=1"]
    assert checks.short_names(jobs[:1]) == [""]
    assert checks.short_names([]) == []
    assert checks.short_names([*jobs, ["method=full", "seed=0"]])[0] == "method=lora method.r=1 seed=0"


def test_errors_that_are_the_same_are_one_line() -> None:
    errors = [(f"method.r={r}", "too large") for r in (1, 2, 3, 4, 5)] + [("seed=1", "gone"), ("", "alone")]
    assert checks.in_lines(errors) == [
        "method.r=1, method.r=2, method.r=3 and 2 more: too large",
        "seed=1: gone",
        "alone",
    ]


@pytest.mark.parametrize(
    ("scores", "best", "words"),
    [
        ({1e-3: 0.5, 3e-3: 0.7, 1e-2: 0.6}, 3e-3, "lr=0.003 is chosen: the best validation score of 3 rates, 0.7000"),
        ({3e-4: 0.7, 3e-3: 0.7, 1e-2: 0.6}, 3e-3, "; lr=0.0003 scored the same, and of equals the one nearest to"),
        ({3e-4: 0.7, 1e-3: 0.7, 3e-2: 0.7}, 1e-3, "; lr=0.0003 and 0.03 scored the same"),
        ({1e-3: -0.5, 1e-2: -0.4}, 1e-2, "0.4000"),
    ],
)
def test_which_rate_is_chosen_and_why(scores: dict[float, float], best: float, words: str) -> None:
    assert tuning.best_rate(scores, 3e-3) == best
    assert words in tuning.reason(scores, best)
    assert ("scored the same" in tuning.reason(scores, best)) == (list(scores.values()).count(scores[best]) > 1)

"""Overrides as nobody should write them: each ends in a run or in one line, before anything is trained."""

import copy
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzzing import cases, one_line, outcomes
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments.checks import check
from experiments.rules import is_number
from lora.config import InputError

Cli = Callable[..., Any]  # conftest.cli
BASES = [
    ["task=local", "task.path=a.csv"],
    ["task=text2sql", "method=lora+prefix_layer", "model=smollm2"],
    ["task=text/mnli", "method=galore"],
    ["task=glue/sst2", "method=badam", "study=compare_methods"],
    ["preset=paper", "study=table3", "method=adapter_d"],
]
VALUES: list[Any] = [
    *(0, -1, 1, 2, 1.5, -0.5, 1e308, 10**12, 10**400, float("nan"), float("inf"), True, False, None),
    *("", " ", "x", "1", "auto", "tuned", "null", "a\0b", "\u00fc", [], [1], [[]], ["x"], {}, {"a": 1}, {"a": None}),
]


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.fixture(scope="module")
def bases() -> list[dict[str, Any]]:
    return [composed(*overrides) for overrides in BASES]


def leaves(config: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in config.items():
        found.append((*above, key))
        if isinstance(value, dict):
            found += leaves(value, (*above, key))
    return found


def changed(random: Random, config: dict[str, Any]) -> str:
    """Changes one field in place: another value, none, or a new field beside it."""
    *groups, field = random.choice([leaf for leaf in leaves(config) if leaf[0] != "hydra"])
    place = config
    for group in groups:
        place = place[group]
    kind = random.choice(["value", "value", "value", "delete", "add"])
    if kind == "value":
        place[field] = random.choice(VALUES)
    elif kind == "delete":
        del place[field]
    else:
        place[random.choice(["foo", field + "s", "lr ", "\u00fc"])] = random.choice(VALUES)
    return ".".join([*groups, field])


def test_fuzz_settings(bases: list[dict[str, Any]]) -> None:
    for base in bases:
        check(base)

    def attempt(random: Random) -> str:
        config = copy.deepcopy(random.choice(bases))
        for _ in range(random.choice([1, 1, 2])):
            changed(random, config)
        try:
            check(config)
        except InputError as error:
            one_line(str(error))
            return "refused"
        # What is accepted is what training needs, whichever rule let it pass.
        training, runtime, task = config["training"], config["runtime"], config["task"]
        assert training["lr"] == "tuned" or (is_number(training["lr"]) and training["lr"] > 0)
        for size in (training["epochs"], training["batch_size"], runtime["eval_batch_size"], task["max_length"]):
            assert type(size) is int and size > 0
        assert all(type(task[f"{split}_examples"]) in (int, type(None)) for split in ("train", "validation", "test"))
        assert type(task["split_seed"]) is int and type(config["seed"]) is int and type(config["results_dir"]) is str
        return "accepted"

    counted = outcomes(attempt, share=5)
    assert set(counted) == {"refused", "accepted"} or sum(counted.values()) < 20


EVERY_FIELD = [
    *("training", "runtime", "tuning", "task", "model", "method", "seed", "results_dir", "study", "preset"),
    *(f"training.{field}" for field in ("lr", "head_lr", "epochs", "batch_size", "weight_decay", "max_grad_norm")),
    *("runtime.threads", "runtime.device", "task.metric", "task.split_seed", "task.name", "method.name", "model.path"),
]


@pytest.mark.parametrize("field", EVERY_FIELD)
def test_a_deleted_field_is_named(field: str, bases: list[dict[str, Any]]) -> None:
    config = copy.deepcopy(bases[0])
    *groups, name = field.split(".")
    del (config[groups[0]] if groups else config)[name]
    with pytest.raises(InputError, match=name):
        check(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("task.generation.beams", value) for value in (0, 1.5, "x", None)),
        *(("runtime.eval_batch_size", value) for value in (0, -1, "x", None)),
        *(("runtime.threads", value) for value in (-1, 0, "x", 10**6)),
        *(("task.split_seed", value) for value in (-1, 2**32, 1.5, None)),
        *(("task.train_examples", value) for value in (0, 1.5, float("nan"), "all")),
        *(("task.max_length", value) for value in (0, "x", None)),
        *(("task.path", value) for value in (5, ["a"], "", "a\0b")),
        *(("task.label_column", value) for value in (5, ["a"], None)),
        ("results_dir", [1, 2]),
        ("training.lr", 10**400),
        ("tuning.at", {"training.lrr": 1}),
        ("tuning.at", {"seed": -1}),
    ],
)
def test_what_no_run_can_have(field: str, value: object, bases: list[dict[str, Any]]) -> None:
    config = copy.deepcopy(bases[0])
    *groups, name = field.split(".")
    place = config
    for group in groups:
        place = place[group]
    place[name] = value
    with pytest.raises(InputError) as caught:
        check(config)
    assert (field if field != "tuning.at" else next(iter(config["tuning"]["at"]))) in one_line(str(caught.value))


WRITTEN = ["0", "-1", "1.5", "x", "null", "nan", "inf", "[]", "[1,2]", "{a: 1}", "''", "true", "1e400", "2", "???"]
FIELDS = [
    *(f"training.{field}" for field in ("lr", "head_lr", "epochs", "batch_size", "accumulate", "warmup_ratio")),
    *(
        f"training.{field}"
        for field in ("warmup_steps", "schedule", "weight_decay", "max_grad_norm", "label_smoothing")
    ),
    *(f"task.{field}" for field in ("path", "test_path", "text_column", "label_column", "metric", "more_metrics")),
    *(f"task.{field}" for field in ("max_length", "split_seed", "train_examples", "test_examples", "name", "family")),
    *(f"task.generation.{field}" for field in ("beams", "max_new_tokens", "no_repeat_ngram", "length_penalty")),
    *(f"runtime.{field}" for field in ("device", "precision", "eval_batch_size", "checkpointing")),
    *(f"method.{field}" for field in ("name", "r", "budget", "alpha", "dropout", "weight_types", "modules", "layers")),
    *(f"tuning.{field}" for field in ("lr_grid", "extend", "at")),
    *("model.path", "model.name", "model.dropout", "model.quantization", "seed", "results_dir", "study_dir", "head_lr"),
]


def test_fuzz_commands(cli: Cli, tiny: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same through Hydra, down to a tiny run; `make fuzz` tries many."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    codes = set()
    for seed, random in cases(share=0.06):
        overrides = []
        for field in random.sample(FIELDS, random.choice([1, 1, 2])):
            form = random.choice(
                [f"{field}={random.choice(WRITTEN)}"] * 4 + [f"~{field}", f"+{field}x=1", f"++{field}=[1,2]"]
            )
            overrides.append(form)
        result = cli(*tiny, "task.train_examples=24", "task.test_examples=8", "task.validation_examples=8", *overrides)
        lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert result.code in (0, 2) and "Traceback" not in result.err, (seed, overrides, result.err)
        assert (result.code == 2) == bool(lines), (seed, overrides, result.err)
        codes.add(result.code)
    assert codes

"""A part of a study: which runs `only.…` leaves, what it refuses, and what stays in the study's list."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from experiments import only
from experiments.sweep import Entry
from lora.config import InputError

Cli = Callable[..., Any]  # conftest.cli
METHODS = [
    {"name": "lora", "r": 1}, {"name": "lora", "r": 8}, {"name": "lora", "r": 8, "init": "pissa"},
    {"name": "full"}, {"name": "full", "optimizer": "galore", "r": 8},
]  # fmt: skip


def kept(**asked: Any) -> list[int]:
    """The jobs, by number, that are left of METHODS on a model each."""
    entries = []
    for number, method in enumerate(METHODS):
        model = {"name": "abcde"[number]}
        entries.append(Entry(str(number), OmegaConf.create({"model": model, "method": method, "only": asked})))
    found = only.keep(entries)
    assert all("only" not in entry.config for entry in found)
    return [int(entry.name) for entry in found]


def test_a_part_of_a_study() -> None:
    assert kept() == [0, 1, 2, 3, 4]
    assert kept(method={"r": [8]}) == [1, 2, 3, 4]  # full fine-tuning has no rank, and stays
    assert kept(method={"r": [None]}) == [3]
    assert kept(method={"name": ["lora"]}) == [0, 1]
    assert kept(method={"name": ["full", "pissa"]}) == [2, 3]
    assert kept(method={"name": ["lora"], "r": [8]}, model={"name": ["b"]}) == [1]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"model": {"name": ["f"]}}, "only.model=f is of no run here; there are a, b, c, d, e"),
        ({"method": {"rr": [None]}}, "only.method.rr=null is of no run here; none has this setting"),
        ({"method": {"rr": [3]}}, "only.method.rr=3 is of no run here; none has this setting"),
        ({"model": {"name": ["a", "b"]}, "method": {"r": [1]}}, "only.model=b is of no run here with the other"),
        ({"method": {"r": []}}, "only.method.r: give values"),
    ],
)
def test_what_leaves_nothing_is_one_line(asked: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        kept(**asked)


def test_what_is_typed_is_a_list_for_hydra() -> None:
    assert only.typed("only.model=minilm") == "++only.model.name=[minilm]"
    assert only.typed("only.method.r=1,8") == "++only.method.r=[1,8]"
    assert only.typed("only.method.r=[1,8]") == "++only.method.r=[1,8]"
    assert only.typed("seed=0,1") == "seed=0,1"


def test_the_other_runs_of_the_study_stay_listed(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    listed = tmp_path / "results" / "smoke" / "rank_ablation@tiny_reviews" / "sweep.jsonl"

    def runs() -> set[str]:
        return {json.loads(line)["run_id"] for line in listed.read_text().splitlines()}

    assert cli(*tiny, "study=rank_ablation", "only.method.r=1").code == 0
    first = runs()
    assert len(first) == 1
    assert cli(*tiny, "study=rank_ablation", "only.method.r=2").code == 0
    assert len(runs()) == 2 and first < runs()
    refused = cli(*tiny, "study=rank_ablation", "only.method.r=3")
    assert (refused.code, refused.err) == (2, "error: only.method.r=3 is of no run here; there are 1, 2\n")
    assert len(runs()) == 2

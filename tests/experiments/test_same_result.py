"""One id, one result: on one kind of processor, with as many threads, a run is the same bit for bit in any process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import processor
from experiments.store import RECIPE

Cli = Callable[..., Any]  # conftest.cli


def only_run(results: Path) -> Path:
    (folder,) = (path for path in (results / "runs").iterdir() if not path.name.startswith("."))
    return folder


def test_two_processes_have_the_same_result_to_the_bit(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny).code == 0
    there = tmp_path / "there"
    command = [sys.executable, "-m", "experiments.run", f"results_dir={there}", "engine.jobs=1", *tiny]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    ours, theirs = only_run(tmp_path / "results"), only_run(there)
    assert ours.name == theirs.name
    for name in ("adapter/adapter.safetensors", "items.json", "history.csv", "config.yaml"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    found = [json.loads((folder / "metrics.json").read_text()) for folder in (ours, theirs)]
    for field in ("metrics", "machine", "precision", "recipe", "device", "versions", "collapsed"):
        assert found[0][field] == found[1][field], field
    assert found[0]["recipe"] == RECIPE and found[0]["machine"]["threads"] == 1
    assert found[0]["machine"]["kind"]


def test_the_number_of_threads_is_recorded(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny, "runtime.threads=2").code == 0
    metrics = json.loads((only_run(tmp_path / "results") / "metrics.json").read_text())
    assert metrics["machine"]["threads"] == 2


def test_processors_that_multiply_bf16_by_other_instructions_are_of_other_kinds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = []
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for known in ({}, {"avx512_bf16": True, "amx_bf16": False}, {"avx512_bf16": True, "amx_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        kinds.append(processor.kind(torch.device("cpu")))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    kinds.append(processor.kind(torch.device("cpu")))
    assert len(set(kinds)) == 4 and kinds[2].endswith(", avx512_bf16, amx_bf16")

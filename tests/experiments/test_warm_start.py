"""`task.start_from`: the adapter of another run, and a head of its own where the task is another."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

Cli = Callable[..., Any]  # conftest.cli
STILL = ["training.lr=1e-12", "training.epochs=1"]  # what a run starts from is what it ends with, but for 1e-12


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another task: three labels, and words of other kinds."""
    file = tmp_path / "kinds.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        writer.writerows([f"item {row} of kind {row % 3}", "abc"[row % 3]] for row in range(90))
    return file


def run_of(result: Any) -> str:
    assert result.code == 0, result.err
    return str(re.findall(r"^([0-9a-f]{12})  ", result.out, re.M)[-1])


def tensors(tmp_path: Path, run: str) -> dict[str, Any]:
    return dict(load_file(tmp_path / "results" / "runs" / run / "adapter" / "adapter.safetensors"))


def on(tiny: list[str], file: Path) -> list[str]:
    return [part for part in tiny if not part.startswith(("task.path", "training.lr"))] + [f"task.path={file}"]


@pytest.mark.parametrize("method", ["lora", "adapter_h"])
def test_the_adapter_is_taken_over_and_the_head_is_new(
    cli: Cli, tiny: list[str], tmp_path: Path, other: Path, method: str
) -> None:
    first = run_of(cli(*tiny, f"method={method}"))
    cold = run_of(cli(*on(tiny, other), *STILL, f"method={method}"))
    warm = run_of(cli(*on(tiny, other), *STILL, f"method={method}", f"task.start_from={first}"))
    assert len({first, cold, warm}) == 3
    config = yaml.safe_load((tmp_path / "results" / "runs" / warm / "config.yaml").read_text())
    assert config["task"]["start_from"] == first
    assert (
        "start_from" not in yaml.safe_load((tmp_path / "results" / "runs" / cold / "config.yaml").read_text())["task"]
    )
    source, began, found = (tensors(tmp_path, run) for run in (first, cold, warm))
    assert set(source) == set(found) == set(began)
    head = [name for name in found if name.startswith("classifier.")]
    assert head
    for name, tensor in found.items():
        wanted = began if name in head else source
        assert tensor.shape == wanted[name].shape and (tensor - wanted[name]).abs().max() < 1e-9, name
    moved = [name for name in source if name not in head and not source[name].equal(began[name])]
    assert moved, "what was learnt differs from where a run begins"


def test_the_same_task_goes_on_with_its_head(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    first = run_of(cli(*tiny))
    again = run_of(cli(*(part for part in tiny if "training.lr" not in part), *STILL, f"task.start_from={first}"))
    source, found = tensors(tmp_path, first), tensors(tmp_path, again)
    assert all((found[name] - source[name]).abs().max() < 1e-9 for name in source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["task.start_from=0123456789ab"], "there is no such run in "),
        (["method.r=4"], "that run has another method: r is 8 there, 4 here"),
        (["method=bitfit"], "that run has another method: name is 'lora' there, 'bitfit' here"),
        (["model.dropout=0.1"], "that run has another model: dropout is "),
        (["task.start_from=5"], "task.start_from = 5: it must be a text"),
    ],
)
def test_a_run_that_does_not_fit_is_one_line(cli: Cli, tiny: list[str], change: list[str], message: str) -> None:
    first = run_of(cli(*tiny))
    result = cli(*tiny, f"task.start_from={first}", *change)
    assert result.code == 2
    (error,) = (line for line in result.err.splitlines() if line.startswith("error: "))
    assert message in error and "Traceback" not in result.err


def test_a_run_without_its_adapter_is_one_line(cli: Cli, tiny: list[str]) -> None:
    first = run_of(cli(*tiny, "runtime.keep_weights=none"))
    result = cli(*tiny, f"task.start_from={first}")
    assert result.code == 2 and "without its adapter: it has kept none, or it was pruned; train it again" in result.err


def test_a_start_that_changes_the_weights_is_refused(cli: Cli, tiny: list[str]) -> None:
    first = run_of(cli(*tiny, "method=pissa"))
    result = cli(*tiny, "method=pissa", f"task.start_from={first}")
    assert result.code == 2 and "method.init = pissa changes the weights under the adapter: give gaussian" in result.err

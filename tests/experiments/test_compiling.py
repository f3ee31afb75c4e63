"""runtime.compile: the same gradients from compiled layers, one compilation for all of them, and plain evaluation."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command import Cli
from networks import BATCH, METHODS, ROWS, adapted, network, padded, randomise_trained
from torch import Tensor
from torch._dynamo.utils import counters

from experiments import compiling, methods
from experiments.compute import checkpoint_activations
from experiments.prompts import contexts
from experiments.store import Store
from lora.config import InputError
from lora.model import trainable_parameters

TEXT = padded(ROWS)
WRITTEN = {**TEXT, "labels": TEXT["input_ids"].masked_fill(TEXT["attention_mask"] == 0, -100), "use_cache": False}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")  # what is captured; making code of it takes longest
    torch._dynamo.reset()
    counters.clear()


def compiled(model: Any) -> Any:
    """The problem of a model whose layers are compiled."""
    problem: Any = SimpleNamespace(model=model, evaluate=lambda: model.eval()(**BATCH).loss)
    compiling.compile_layers(problem, torch.device("cpu"))
    counters.clear()
    return problem


def gradients(model: Any, **inputs: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(5)
    model(**inputs).loss.backward()
    return {name: p.grad for name, p in trainable_parameters(model).items() if p.grad is not None}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and one
    for key, gradient in one.items():
        torch.testing.assert_close(other[key], gradient, atol=1e-6, rtol=1e-5)


def test_the_same_gradients_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # draws the same numbers again where activations are
    found = []
    for how in (lambda _: None, compiled):
        model = adapted("bert", METHODS["lora"], hidden_dropout_prob=0.2).train()
        randomise_trained(model)
        checkpoint_activations(model)
        how(model)
        found.append(gradients(model, **BATCH))
    same(*found)
    assert counters["frames"]["ok"] > 0


def test_a_language_model() -> None:
    found = []
    for how in (lambda _: None, compiled):
        model = network("llama", "ForCausalLM", attention_dropout=0.2).train()
        methods.apply(model, METHODS["lora+prefix_layer"], [])
        randomise_trained(model)
        how(model)
        with contexts(model, torch.tensor([3, 1, 2])):
            found.append(gradients(model, **WRITTEN))
    same(*found)
    assert counters["frames"]["ok"] > 0


def test_layers_and_lengths_share_graphs() -> None:
    model = network("bert", num_hidden_layers=4)
    methods.apply(model, METHODS["lora"], [])
    compiled(model.train())
    for length in (5, 6, 9):
        model(torch.ones(3, length, dtype=torch.long), labels=torch.tensor([0, 1, 1])).loss.backward()
    assert counters["stats"]["unique_graphs"] == 2  # the first layer, whose input needs no gradient, and all others


def test_a_run_is_compiled_whatever_was_before_it_in_the_process() -> None:
    with torch._dynamo.config.patch(recompile_limit=2):  # as many as a run takes, see above
        for rank in (2, 3):
            model = adapted("bert", {**METHODS["lora"], "r": rank}).train()
            compiled(model)
            model(**BATCH).loss.backward()
            assert counters["stats"]["unique_graphs"] == 2


def test_evaluation_is_not_compiled() -> None:
    model = adapted("bert", METHODS["lora"])
    assert torch.isfinite(compiled(model).evaluate())
    assert not counters["frames"]


def test_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("there is no g++\nand more")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(InputError, match=r"torch.compile fails here \(there is no g\+\+\); set it to false"):
        compiled(adapted("bert", METHODS["lora"]))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["runtime.compile=yes"], "runtime.compile = 'yes': it must be true or false"),
        (["runtime.parallel=fsdp"], "cannot be with runtime.parallel = fsdp"),
        (["runtime.offload=auto", "runtime.checkpointing=true"], "cannot be with runtime.offload"),
        (["method=badam", "method.switch=1", "method.block=1"], "cannot be with BAdam"),
    ],
)
def test_refused(cli: Cli, tiny: list[str], overrides: list[str], reason: str) -> None:
    result = cli(*tiny, "runtime.compile=true", *overrides)
    assert result.code == 2 and reason in result.err and result.err.count("\n") == 1


def test_a_run(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    results = {}
    for value in ("true", "false"):
        folder = tmp_path / value
        assert cli(*tiny, "runtime.precision=fp32", f"runtime.compile={value}", f"results_dir={folder}").code == 0
        (run,) = (path for path in (folder / "runs").iterdir() if path.name[0] != ".")
        results[value] = run.name, Store(folder / "runs").metrics(run.name)
    (name, compiled_run), (other, plain) = results.values()
    assert name == other
    assert (compiled_run["machine"].get("compile"), plain["machine"].get("compile")) == (True, None)
    for one, two in zip(compiled_run["metrics"], plain["metrics"], strict=True):
        assert one["value"] == pytest.approx(two["value"], abs=1e-3)

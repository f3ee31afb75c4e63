"""A training loop on a GPU asks it for nothing between blocks of steps: shown by a processor that plays one.

What is brought to the device, the parameters, and whatever is computed from them, is there; who asks for a value of it
would wait on a GPU, and is counted.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments import device, methods, training
from experiments.config import ModelSettings, TrainingSettings
from experiments.models import choose_runtime
from experiments.problems.base import Problem
from experiments.problems.classification import Classification
from experiments.problems.language import Language
from experiments.store import DivergedError
from experiments.tasks import TaskData, TextData

aten = torch.ops.aten
# What CUDA waits for: values, and shapes that depend on values.
ASKS = {aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten._unique2}
ASKED = ("tolist", "cpu", "numpy")  # of tensors, which no dispatched function tells of
EPOCHS, ROWS, BATCH = 2, 74, 4  # 19 steps an epoch: a block of 16, and one of the 3 that are left
LORA = {"name": "lora", "r": 2, "alpha": 4, "weight_types": "q+v"}
PREFIX = {"name": "lora+prefix_embed", "r": 2, "alpha": 4, "weight_types": "q+v", "l_p": 2, "l_i": 0}
TASK = {
    "max_length": 64, "format": "plain",
    "generation": {"beams": 1, "length_penalty": 1.0, "no_repeat_ngram": 0, "max_new_tokens": 2},
}  # fmt: skip


class Played(TorchDispatchMode):
    """Knows which storages are on the device; `waits` says what was asked of them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.there: dict[int, Any] = {}  # held, so that no other storage has the same address
        self.waits: list[str] = []

    def put(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.there[storage._cdata] = storage

    def has(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage()._cdata in self.there

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in tree_leaves((args, kwargs or {})) if isinstance(value, Tensor)]
        result = func(*args, **(kwargs or {}))
        if any(map(self.has, given)):
            masked = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
            if func.overloadpacket in ASKS or (masked and any(own.dtype == torch.bool for own in given[1:])):
                self.waits.append(str(func))
            for own in tree_leaves(result):
                if isinstance(own, Tensor):
                    self.put(own)
        return result


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """Within it the processor plays a GPU."""
    found = Played()
    monkeypatch.setattr(device, "queues", lambda place: True)

    def brought(batch: Mapping[str, Tensor], place: torch.device) -> dict[str, Tensor]:
        copies = {name: tensor.clone() for name, tensor in batch.items()}
        for copy in copies.values():
            found.put(copy)
        return copies

    monkeypatch.setattr(device, "brought", brought)

    def asking(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def ask(tensor: Tensor, *args: Any) -> Any:
            if found.has(tensor):
                found.waits.append(name)
            value = plain(tensor, *args)
            return value.clone() if name == "cpu" else value  # which is no longer there

        return ask

    for name in ASKED:
        monkeypatch.setattr(Tensor, name, asking(name, getattr(Tensor, name)))
    return found


def settings(**more: Any) -> TrainingSettings:
    fields: dict[str, Any] = {
        "lr": 1e-2, "head_lr": None, "epochs": EPOCHS, "batch_size": BATCH, "warmup_ratio": 0.06, "schedule": "linear",
        "weight_decay": 0.01, "max_grad_norm": 0.5,
    }  # fmt: skip
    return TrainingSettings(**{**fields, **more})


def problem(place: Path, method: dict[str, Any], choices: tuple[str, ...] = ()) -> Problem:
    """A classifier of a folder `tiny`, or a language model of another, with the attention that a GPU has."""
    texts = [f"a {('dull', 'warm')[row % 2]} film" + " indeed" * (row % 5) for row in range(ROWS)]
    model, runtime = ModelSettings(name="m", path=str(place), dropout=0.0), choose_runtime("cpu", "fp32", 1)
    torch.manual_seed(0)
    found: Problem
    if place.name == "tiny":
        rows = Dataset.from_dict({"text": texts, "label": [row % 2 for row in range(ROWS)]})
        found = Classification(model, TASK, method, TaskData(rows, rows, rows, ("bad", "good"), "accuracy"), runtime, 8)
    else:
        words = [" yes", " of course not"]
        pairs = [{"prompt": f"{text}:", "completion": words[row % 2]} for row, text in enumerate(texts)]
        train = Dataset.from_list(pairs)
        asked = Dataset.from_list([{"prompt": p["prompt"], "references": [p["completion"]]} for p in pairs])
        found = Language(model, TASK, method, TextData(train, asked, asked, "accuracy", (), choices), runtime, 8)
    found.model.set_attn_implementation("sdpa")
    methods.apply(found.model, method, found.heads)
    return found


def trained(found: Problem, method: dict[str, Any], given: TrainingSettings) -> list[dict[str, Any]]:
    groups = methods.parameter_groups(found.model, method, found.heads, given.lr)
    history: list[dict[str, Any]] = []
    training.train(found, groups, given, 0, history, progress=False, method=method)
    return history


CASES = {
    "bert": ("tiny", LORA, {}),
    "bert-in-parts": ("tiny", {"name": "full"}, {"accumulate": 2, "label_smoothing": 0.1}),
    "galore": ("tiny", {"name": "full", "optimizer": "galore", "r": 4, "refresh": 100, "scale": 0.25}, {}),
    "llama": ("llama", LORA, {}),
    "gpt2": ("gpt2", LORA, {"accumulate": 2}),
    "opt": ("opt", LORA, {}),
}


@pytest.fixture
def places(tiny_model: Path, decoders: dict[str, Path]) -> dict[str, Path]:
    return {**decoders, "tiny": tiny_model}


@pytest.mark.parametrize("case", CASES)
def test_a_gpu_is_asked_once_a_block_and_the_history_is_the_same(
    case: str, places: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    place, method, more = CASES[case]
    before = trained(problem(places[place], method), method, settings(**more))
    played: Played = request.getfixturevalue("played")
    found = problem(places[place], method)
    for parameter in found.model.parameters():
        played.put(parameter)
    evaluate, waits = found.evaluate, list[int]()

    def evaluated(split: str, generate: bool = True) -> Any:
        waits.append(len(played.waits))
        scores = evaluate(split, generate)
        played.waits.clear()
        return scores

    found.evaluate = evaluated  # type: ignore[method-assign]
    with played:
        history = trained(found, method, settings(**more))
    blocks = math.ceil(math.ceil(ROWS / BATCH) / training.BLOCK)
    assert waits[1:] == [blocks] * (EPOCHS - 1), played.waits
    assert waits[0] == blocks or case == "galore", "which takes its directions in the first step"
    assert [{**row, "loss": 0, "metric": 0} for row in history] == [{**row, "loss": 0, "metric": 0} for row in before]
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in before], abs=2e-6)


def test_what_asks_each_step_is_counted(
    places: dict[str, Path], played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "BLOCK", 1)
    found = problem(places["tiny"], LORA)
    for parameter in found.model.parameters():
        played.put(parameter)
    with played:
        trained(found, LORA, settings(epochs=1))
    assert len(played.waits) >= math.ceil(ROWS / BATCH)


@pytest.mark.parametrize(("place", "choices"), [("tiny", ()), ("llama", ()), ("llama", (" yes", " of course not"))])
def test_an_evaluation_asks_when_all_is_computed(
    place: str, choices: tuple[str, ...], places: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    before = problem(places[place], LORA, choices).evaluate("validation")
    played: Played = request.getfixturevalue("played")
    found: Any = problem(places[place], LORA, choices)
    for parameter in found.model.parameters():
        played.put(parameter)
    scored, waits = found._scored, list[int]()

    def watched(*arguments: Any) -> Any:
        result = scored(*arguments)
        waits.append(len(played.waits))
        return result

    found._scored = watched
    with played:
        after = found.evaluate("validation")
    assert waits == [0] * math.ceil(ROWS / 8), played.waits
    assert played.waits, "the scores are fetched in the end"
    assert after.scores == pytest.approx(before.scores, abs=2e-6)
    assert after.outputs == before.outputs


@pytest.mark.parametrize("at", [1, 5, 16, 17, 19, 20])
def test_the_step_that_diverged_is_named_and_the_last_of_the_history(
    at: int, places: dict[str, Path], played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, steps = problem(places["tiny"], LORA), 0
    loss = found.loss

    def breaking(*arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        return loss(*arguments) * (math.nan if steps >= at else 1.0)

    monkeypatch.setattr(found, "loss", breaking)
    history: list[dict[str, Any]] = []
    groups = methods.parameter_groups(found.model, LORA, found.heads, 1e-2)
    with pytest.raises(DivergedError, match=rf"^the loss is nan at step {at} of 38: training\.lr = 0\.01 is too high$"):
        training.train(found, groups, settings(), 0, history, progress=False, method=LORA)
    assert [row["step"] for row in history if row["split"] == "train"] == list(range(1, at + 1))
    assert math.isnan(history[-1]["loss"]) and not any(math.isnan(row["loss"]) for row in history[:-1])


def test_a_batch_goes_to_cuda_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: done.append("pinned") or tensor)
    monkeypatch.setattr(Tensor, "to", lambda tensor, *place, **how: done.append((*place, how)) or tensor)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    batch = {"ids": torch.zeros(2), "labels": torch.zeros(2)}
    assert device.brought(batch, cuda) == batch
    assert done == ["pinned", (cuda, {"non_blocking": True})] * 2
    done.clear()
    assert device.brought(batch, cpu) == batch
    assert done == [(cpu, {})] * 2

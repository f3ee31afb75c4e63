"""BAdam against a fresh AdamW on each block, what it leaves alone, and how it schedules, clips and accumulates."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_runs import composed, load
from networks import BATCH, BLOCK, KINDS, LAYERS, adapted, network
from steps import BADAM, kept
from torch import Tensor

from experiments import methods, optimizers
from experiments.config import TrainingSettings
from experiments.models import head_modules
from experiments.optimizers import badam
from experiments.optimizers.adamw import AdamW
from experiments.training import train
from lora.model import trainable_parameters


def backward(model: Any) -> None:
    model(**BATCH).loss.backward()


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_badam_is_a_fresh_adamw_on_each_block_in_turn(precision: str | None) -> None:
    model, twin = (adapted("bert", BADAM) for _ in range(2))
    heads = head_modules(model)
    groups = methods.parameter_groups(model, BADAM, heads, 1e-2, head_lr=1e-3)
    optimizer = optimizers.make(model, groups, BADAM, 0.1, precision, seed=0, steps=100)
    own = dict(twin.named_parameters())
    head = [own[name] for name in own if not name.startswith("bert.")]
    settings = {"weight_decay": 0.1} | ({"fused": True} if precision is None else {"state_dtype": torch.bfloat16})
    kind: Any = torch.optim.AdamW if precision is None else AdamW
    for_head = kind([{"params": head, "lr": 1e-3}], **settings)
    for turn in range(LAYERS + 1):
        layer = BLOCK["bert"].format((-1 - turn) % LAYERS) + "."
        block = [own[name] for name in own if name.startswith(layer)]
        for_block = kind([{"params": block, "lr": 1e-2}], **settings)
        for _ in range(BADAM["switch"]):
            asking = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            assert asking == {name for name in own if name.startswith(layer) or not name.startswith("bert.")}
            backward(model)
            held = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
            assert held == asking
            optimizer.step()
            optimizer.zero_grad()
            backward(twin)
            for_block.step()
            for_head.step()
            twin.zero_grad()
            if precision is None:
                assert all(torch.equal(parameter, own[name]) for name, parameter in model.named_parameters())
        named = {id(parameter): name for name, parameter in model.named_parameters()}
        after = BLOCK["bert"].format((-2 - turn) % LAYERS) + "."
        assert not any(named[id(p)].startswith((layer, after)) for p in optimizer.state)  # the next begins without
        assert len(optimizer.state) == len(head)
        assert {state["exp_avg_sq"].dtype for state in optimizer.state.values()} == {
            torch.bfloat16 if precision else torch.float32
        }


@pytest.mark.parametrize("kind", KINDS)
def test_what_badam_trains(kind: str) -> None:
    trained = set(trainable_parameters(adapted(kind, BADAM)))
    model = network(kind)
    prefix = BLOCK[kind].partition("{")[0]
    body = f"{model.base_model_prefix}."
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(prefix) or body not in name}


def test_orders_of_blocks() -> None:
    def turns(order: str, count: int, seed: int = 0) -> list[int]:
        found = badam._turns(4, order, seed)
        return [next(found) for _ in range(count)]

    assert turns("ascending", 6) == [0, 1, 2, 3, 0, 1]
    assert turns("descending", 6) == [3, 2, 1, 0, 3, 2]
    random = turns("random", 40)
    cycles = [random[first : first + 4] for first in range(0, 40, 4)]
    assert all(sorted(cycle) == [0, 1, 2, 3] for cycle in cycles)
    assert len({tuple(cycle) for cycle in cycles}) > 1
    assert random == turns("random", 40) != turns("random", 40, seed=1)


def test_blocks_of_several_layers() -> None:
    model = adapted("llama", BADAM)
    sizes = [len(block) for block in badam._blocks(model, 2)]
    assert sizes[0] == 2 * sizes[1]
    assert sum(map(len, badam._blocks(model, 1))) == sum(sizes)


def test_the_backward_pass_of_badam_ends_at_the_active_block() -> None:
    found = {}
    for order in ("ascending", "descending"):
        model = adapted("llama", BADAM)
        groups = methods.parameter_groups(model, BADAM, head_modules(model), 1e-3)
        optimizers.make(model, groups, BADAM | {"order": order}, 0.0, None, seed=0, steps=100)
        found[order] = kept(model)
    assert found["descending"] < 0.6 * found["ascending"]
    assert found["ascending"] < kept(adapted("llama", {"name": "full"}))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    rows = [(f"a {('dull', 'warm')[row % 2]} film number {row}", row % 2) for row in range(60)]
    file = tmp_path_factory.mktemp("data") / "reviews.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *rows])

    def make(model: Path, *overrides: str) -> dict[str, Any]:
        own = ["model=hub", f"model.path={model}", "task=local", f"task.path={file}", "preset=smoke"]
        own.append("model.dropout=0.0")
        return composed(*own, "task.train_examples=32", "training.batch_size=4", "training.lr=1e-3", *overrides)

    return make


def trained_weights(config: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    problem = load(config)
    methods.apply(problem.model, config["method"], problem.heads)
    training = TrainingSettings.of(config["training"])
    groups = methods.parameter_groups(problem.model, config["method"], problem.heads, training.lr, 1e-2)
    history: list[dict[str, Any]] = []
    found = train(problem, groups, training, 0, history, False, config["method"], memory=lambda: 5)
    assert found.memory == 5
    return {
        name: parameter.detach().clone() for name, parameter in trainable_parameters(problem.model).items()
    }, history


def test_schedule_clipping_and_parts_with_badam(config: Callable[..., dict[str, Any]], tiny_model: Path) -> None:
    fields = ["method=badam", "method.switch=2", "training.max_grad_norm=0.05", "training.warmup_steps=2"]
    whole, history = trained_weights(config(tiny_model, *fields))
    parts, _ = trained_weights(config(tiny_model, *fields, "training.accumulate=2"))
    rates = [row["lr"] for row in history if row["split"] == "train"]
    assert rates == pytest.approx([1e-3 * factor for factor in (0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)])
    layers = {name: weight for name, weight in whole.items() if ".layer." in name and name.endswith("dense.weight")}
    assert len(layers) == 6
    for name, weight in layers.items():
        # An element whose gradient is rounding moves by as much as any, in either direction.
        assert (weight - parts[name]).abs().median() < 1e-5

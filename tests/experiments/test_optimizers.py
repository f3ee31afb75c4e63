"""Settings of optimizers, AdamW with moments in bf16, and both through the command."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command import Cli
from made_up_runs import composed, load
from networks import adapted
from safetensors.torch import load_file
from steps import BADAM, GALORE, gradients, stepped
from torch import nn

from experiments import methods, optimizers
from experiments.optimizers.adamw import AdamW, stochastically_rounded
from experiments.optimizers.galore import GaLore
from experiments.store import Store
from lora import io
from lora.config import InputError
from lora.model import base_parameters


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (GALORE | {"r": 100}, "method.r = 100: the largest matrix that GaLore projects has 16 directions"),
        (GALORE | {"r": 0}, "method.r = 0"),
        (GALORE | {"refresh": None}, "method.refresh = None"),
        (GALORE | {"scale": -1}, "method.scale = -1: it must be a positive number"),
        (BADAM | {"switch": 2.5}, "method.switch = 2.5"),
        (BADAM | {"order": "upwards"}, "method.order = 'upwards': choose from ascending, descending, random"),
        (BADAM | {"switch": 4}, "3 blocks take 12 steps, but the run has 11"),
        (BADAM | {"optimizer": "sgd"}, "method.optimizer = 'sgd': choose galore, badam, or null"),
        (BADAM | {"r": 4}, "method.r is of optimizer galore, this one is badam"),
        ({"name": "full", "switch": 4}, "method.switch is of optimizer badam, this one is AdamW"),
    ],
)
def test_settings_that_cannot_be(method: dict[str, Any], match: str) -> None:
    def make() -> None:
        model = adapted("llama", method)
        groups = methods.parameter_groups(model, method, [], 1e-3)
        optimizers.make(model, groups, method, 0.0, None, seed=0, steps=11)

    with pytest.raises(InputError, match=match):
        make()


def test_one_parameter_at_a_time_is_torchs_adamw() -> None:
    one, other = (nn.Parameter(torch.ones(5, 7)) for _ in range(2))
    found = gradients(6, 5, 7)
    stepped(AdamW([{"params": [one], "lr": 1e-2}], 0.1), one, found)
    stepped(torch.optim.AdamW([other], lr=1e-2, weight_decay=0.1, fused=True), other, found)
    assert torch.equal(one, other)


@pytest.mark.parametrize("projected", [{}, {"r": 2, "refresh": 2, "scale": 1.0}])
def test_a_parameter_in_16_bits_takes_the_steps_of_one_in_32_rounded(projected: dict[str, Any]) -> None:
    """One step from the same start: the parameter in 16 bits is the other one, rounded."""
    exact, rounded = nn.Parameter(torch.ones(5, 7)), nn.Parameter(torch.ones(5, 7, dtype=torch.bfloat16))
    found = [gradients(1, 5, 7)[0].bfloat16()]
    stepped(GaLore([{"params": [exact], "lr": 1e-1, **projected}], 0.1), exact, [found[0].float()])
    stepped(GaLore([{"params": [rounded], "lr": 1e-1, **projected}], 0.1), rounded, found)
    torch.testing.assert_close(rounded.detach(), exact.detach().bfloat16(), rtol=1e-2, atol=0)
    assert not torch.equal(rounded, torch.ones_like(rounded))


def test_rounding_to_bf16_is_right_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([1.0, 1.001, 1.0037, -3.3e-9, 0.0, 6.1e12])
    drawn = torch.stack([stochastically_rounded(values, generator).float() for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), values, rtol=2e-4, atol=0)
    for column, value in zip(drawn.T, values, strict=True):
        neighbours = column.unique()
        assert len(neighbours) <= 2
        assert neighbours.min() <= value <= neighbours.max()
        assert (neighbours - value).abs().max() <= 2**-7 * value.abs()
    exact = values.bfloat16().float()
    assert torch.equal(stochastically_rounded(exact, generator).float(), exact)


def test_the_second_moment_in_bf16_falls_as_it_should() -> None:
    W = nn.Parameter(torch.zeros(400))
    optimizer = AdamW([{"params": [W], "lr": 0.0}], 0.0, torch.bfloat16)
    stepped(optimizer, W, [torch.ones(400)] + [torch.zeros(400)] * 700)
    second = optimizer.state[W]["exp_avg_sq"]
    assert second.dtype == optimizer.state[W]["exp_avg"].dtype == torch.bfloat16
    assert second.float().mean().item() == pytest.approx(1e-3 * 0.999**700, rel=0.03)
    nearest = torch.tensor(1e-3).bfloat16()
    for _ in range(700):
        nearest = (nearest.float() * 0.999).bfloat16()
    assert nearest.item() > 0.95e-3  # what rounding to the nearest comes to


@pytest.mark.parametrize(
    "method",
    ["method=galore method.r=4 method.refresh=3 training.state_precision=bf16", "method=badam method.switch=1"],
)
def test_the_command_trains_and_stores_every_layer(
    method: str, cli: Cli, tiny: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    result = cli(*tiny, "head_lr=1e-2", "runtime.keep_weights=all", *method.split())
    assert result.code == 0, result.err
    store = Store(tmp_path / "results" / "runs")
    (folder,) = (path for path in store.root.iterdir() if path.name[0] != ".")
    metrics = store.metrics(folder.name)
    assert 0 < metrics["training_memory_bytes"] <= metrics["peak_memory_bytes"]
    stored = io.read(folder / "adapter")
    tensors = load_file(stored.file.path)
    start = base_parameters(load(composed(*tiny, "method=full")).model)
    for layer in (0, 1):
        name = f"bert.encoder.layer.{layer}.output.dense.weight"
        assert (tensors[name] - start[name]).abs().max() > 1e-5
    assert metrics["trainable_params"] == sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["method=badam"], "error: method.switch = 12: 2 blocks take 24 steps, but the run has"),
        (["training.state_precision=fp8"], "error: training.state_precision = 'fp8': choose from bf16, or null"),
    ],
)
def test_errors_are_one_line(fields: list[str], message: str, cli: Cli, tiny: list[str]) -> None:
    result = cli(*tiny, *fields)
    lines = [line for line in (result.out + result.err).splitlines() if line.startswith("error")]
    assert result.code == 2
    assert len(lines) == 1 and lines[0].startswith(message)
    assert "Traceback" not in result.err

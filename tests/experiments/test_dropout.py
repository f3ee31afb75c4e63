"""training.dropout_masks: kept with the probability asked for, independently, and a function of torch's generator."""

from pathlib import Path

import pytest
import torch
from command import Cli
from networks import BATCH, METHODS, adapted, randomise_trained
from scipy import stats
from torch import Tensor
from torch.nn import functional

from experiments import dropout
from experiments.compute import checkpoint_activations
from experiments.store import Store
from lora.model import trainable_parameters

ROWS, COLUMNS = 500, 2000


def drawn(p: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Where ones are kept by functional.dropout with p."""
    torch.manual_seed(seed)
    return functional.dropout(torch.ones(ROWS, COLUMNS, dtype=dtype), p) != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_entries_are_kept_with_their_probability_and_independently(p: float, dtype: torch.dtype) -> None:
    with dropout.masks("fast"):
        first, second = drawn(p, dtype=dtype), drawn(p, seed=1, dtype=dtype)
    for kept in (first, second):
        assert stats.binomtest(int(kept.sum()), kept.numel(), 1 - p).pvalue > 1e-6
        by_column = kept.double().sum(0)  # of a binomial distribution each
        variance = by_column.var() / (ROWS * p * (1 - p))
        assert abs(variance - 1) < 6 * (2 / COLUMNS) ** 0.5
    pairs = [(first, second), (first[:, 1:], first[:, :-1]), (first[:, 4:], first[:, :-4]), (first[1:], first[:-1])]
    for one, other in pairs:  # four numbers are of one word
        both = (one & other).double().mean()
        assert abs(both - (1 - p) ** 2) < 6 * (p * (1 - p) / one.numel()) ** 0.5


def test_what_is_kept_is_divided_by_its_probability_as_torch_does() -> None:
    x = torch.randn(64, 64)
    with dropout.masks("fast"):
        torch.manual_seed(0)
        found = functional.dropout(x, 0.25)
        torch.testing.assert_close(found[found != 0], (x / 0.75)[found != 0])
        assert torch.equal(functional.dropout(x, 0.0), x)
        assert not functional.dropout(x, 1.0).any()
        assert torch.equal(functional.dropout(x, 0.5, training=False), x)
        turned = functional.dropout(torch.ones(40, 60).t()[:, ::3], 0.5)
        assert turned.shape == (60, 14) and set(turned.unique().tolist()) == {0.0, 2.0}


def test_masks_are_a_function_of_torchs_generator_and_torchs_own_come_back() -> None:
    plain = drawn(0.1)
    for _ in range(2):
        with dropout.masks("fast"):
            assert not torch.equal(drawn(0.1), plain)
            assert torch.equal(drawn(0.1), drawn(0.1)) and not torch.equal(drawn(0.1), drawn(0.1, seed=1))
        assert torch.equal(drawn(0.1), plain)
    with pytest.raises(KeyError), dropout.masks("fast"):
        raise KeyError
    with dropout.masks(None):
        assert torch.equal(drawn(0.1), plain)


def test_activations_that_are_computed_again_have_the_same_masks() -> None:
    found = []
    for again in (False, True):
        model = adapted("bert", METHODS["lora"], hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
        randomise_trained(model)
        if again:
            checkpoint_activations(model)
        torch.manual_seed(3)
        with dropout.masks("fast"):
            model(**BATCH).loss.backward()
        found.append([one.grad for one in trainable_parameters(model).values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_run_with_other_masks_is_another_run_with_another_loss(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    store = Store(tmp_path / "results" / "runs")
    for masks in ("null", "fast"):
        assert cli(*tiny, "model.dropout=0.2", f"training.dropout_masks={masks}").code == 0
    runs = [run.name for run in (tmp_path / "results" / "runs").iterdir() if not run.name.startswith(".")]
    losses = {store.validation_score(run, by_loss=True) for run in runs}
    assert len(runs) == len(losses) == 2
    assert "choose from fast, or null" in cli(*tiny, "training.dropout_masks=slow").err

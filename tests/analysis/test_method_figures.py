"""Learning rates drawn: one that fails does not squeeze the others, and the note tells what is in the picture alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.kit import figures, method_figures
from analysis.kit.tuning import CELL

LORA, FULL, PREFIX = ("lora", "r=4, q+v"), ("full", ""), ("prefix_layer", "l_p=8, l_i=5")


def grid(values: dict[tuple[str, str], dict[float, float]], metric: str = "loss", task: str = "e2e") -> pd.DataFrame:
    """Tuning runs by method and rate (NaN: failed); the best of each is the one chosen."""
    rows = []
    for (label, settings), cell in values.items():
        best = (min if metric == "loss" else max)(v for v in cell.values() if not np.isnan(v))
        for lr, value in cell.items():
            cells = dict(zip(CELL, ("smollm2", task, metric, label, settings), strict=True))
            rows.append(cells | {"lr": lr, "value": value, "n": int(not np.isnan(value)), "chosen": value == best})
    return pd.DataFrame(rows)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Figure]:
    kept: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        figure.savefig(path)
        kept.append(figure)
        return path

    monkeypatch.setattr(figures, "save", keep)
    return kept


def draw(rates: pd.DataFrame, drawn: list[Figure], folder: Path) -> tuple[Axes, str, Any]:
    """The first panel, the note, and the panels."""
    path = method_figures.draw_rates(rates, folder / "learning_rates.png")
    assert path.stat().st_size > 10_000
    [figure] = drawn
    return figure.axes[0], str(figure.get_supxlabel()), figure.axes


def test_a_rate_of_very_high_loss_is_off_the_scale(drawn: list[Figure], tmp_path: Path) -> None:
    rates = grid({LORA: {1e-3: 1.579, 3e-3: 1.449, 1e-2: 1.437, 3e-2: 6.275}})
    axis, note, _ = draw(rates, drawn, tmp_path)
    low, high = axis.get_ylim()
    assert low < 1.437 and 1.579 < high < 1.7
    [text] = axis.texts
    assert (text.get_text(), text.xy) == ("6.28 ▴", (3e-2, high))
    assert note == "stars: the rates chosen; triangles: off the scale; one run a point"


def test_scores_far_below_are_off_the_scale_too(drawn: list[Figure], tmp_path: Path) -> None:
    rates = grid({LORA: {1e-3: 0.90, 3e-3: 0.91, 1e-2: 0.89, 3e-2: 0.44, 1e-1: 0.45}}, metric="accuracy")
    axis, _, _ = draw(rates, drawn, tmp_path)
    low, high = axis.get_ylim()
    assert 85 < low < 89 and 91 < high < 95
    assert [text.get_text() for text in axis.texts] == ["44 ▾", "45 ▾"]
    assert {text.xy[1] for text in axis.texts} == {low}


def test_ordinary_rates_are_all_on_the_scale(drawn: list[Figure], tmp_path: Path) -> None:
    rates = grid({FULL: {1e-5: 1.42, 1e-4: 1.25, 1e-3: 1.30}, LORA: {1e-3: 2.07, 1e-2: 1.35, 1e-1: np.nan}})
    axis, note, axes = draw(rates, drawn, tmp_path)
    low, high = axis.get_ylim()
    assert low < 1.25 and high > 2.07
    assert not any(panel.texts for panel in axes)
    assert note == "stars: the rates chosen; crosses: training failed; grey: LoRA; one run a point"
    [cross] = [line for line in axes[1].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert cross.get_ydata()[0] > 2.07, "on the side of high losses"


def test_a_chosen_rate_is_always_shown(drawn: list[Figure], tmp_path: Path) -> None:
    rates = grid({LORA: {1e-3: 0.90, 3e-3: 0.91, 1e-2: 0.89}, PREFIX: {1.0: 0.5, 3.0: 0.4}}, metric="accuracy")
    axis, _, axes = draw(rates, drawn, tmp_path)
    assert 40 < axis.get_ylim()[0] < 50
    assert [text.get_text() for panel in axes for text in panel.texts] == ["40 ▾"]


def test_small_differences_are_no_reason_to_leave_a_rate_out(drawn: list[Figure], tmp_path: Path) -> None:
    rates = grid({LORA: {1e-4: 0.91, 1e-3: 0.91, 3e-3: 0.91, 1e-2: 0.88}}, metric="accuracy")
    axis, _, _ = draw(rates, drawn, tmp_path)
    assert axis.get_ylim()[0] < 88 and not axis.texts

"""advice.png: what a panel says can be read."""

from types import SimpleNamespace
from typing import Any

import pytest

from analysis.advise import picture
from analysis.advise.rates import GRID, Tried
from analysis.kit import figures

HIGH = (0.65, 0.64, 0.57, 0.58, 0.68, 0.68)
TRIED = {
    "the losses are high at both ends": [
        *(Tried(lr, 0.25, loss) for lr, loss in zip(GRID, HIGH, strict=True)),
        *(Tried(lr, 0.5, loss) for lr, loss in zip(GRID[1:4], (0.57, 0.49, 0.53), strict=True)),
        *(Tried(lr, 1.0, loss) for lr, loss in zip(GRID[2:4], (0.46, 0.6), strict=True)),
    ],
    "two rates": [Tried(1e-2, 0.25, 0.4), Tried(3e-2, 0.25, 0.7), Tried(1e-2, 1.0, 0.3), Tried(3e-2, 1.0, 0.69)],
    "one of them diverged": [Tried(1e-2, 0.25, 0.4), Tried(3e-2, 0.25, None), Tried(1e-2, 1.0, 0.3)],
}


@pytest.mark.parametrize("tried", TRIED.values(), ids=TRIED)
def test_the_legend_of_rates_covers_no_line(tried: list[Tried]) -> None:
    figure, axes = figures.panels(1, 3, 1.35 * figures.PAGE_WIDTH, 3.3, width_ratios=(1.5, 1.1, 1))
    axis, advice = axes[0, 2], SimpleNamespace(rate=SimpleNamespace(tried=tried, lr=tried[-1].lr))
    picture._rates(axis, advice)  # type: ignore[arg-type]
    figure.canvas.draw()
    covered: Any = axis.get_legend().get_window_extent()
    lines = [line.get_transform().transform_path(line.get_path()) for line in axis.get_lines()]
    assert len(lines) == len({one.share for one in tried}) + 1
    assert not any(line.intersects_bbox(covered, filled=False) for line in lines)
    figures.plt.close(figure)

import re
from pathlib import Path

import pytest
from pages import Page, draw

from analysis.report import pictures
from analysis.report.section import Figure
from lora.config import InputError


def decoded(picture: pictures.Picture) -> tuple[int, int]:
    (image,) = Page(f'<img src="{picture.uri}">').pictures()
    return image.size


@pytest.mark.parametrize(
    ("size", "expected", "share"),
    [
        ((1500, 900), (600, 360), 1.0),
        ((750, 600), (300, 240), 0.5),  # as large as in a figure of the page
        ((3000, 1000), (600, 200), 1.0),
        ((300, 200), (120, 80), 0.2),
        ((1500, 15000), (150, 1500), 1.0),  # TALL
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int], share: float, tmp_path: Path) -> None:
    draw(tmp_path / "a.png", *size)
    picture = pictures.encode(tmp_path / "a.png", 600, 30)
    assert (picture.width, picture.height) == expected == decoded(picture)
    assert picture.share == share


def test_no_picture_is_enlarged(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1500, 100)
    assert decoded(pictures.encode(tmp_path / "a.png", 2000, 30)) == (1500, 100)


def test_the_best_level_that_fits_is_taken(tmp_path: Path) -> None:
    shows = ("large", "small", "extra")
    figures = [Figure(tmp_path / f"{show}.png", "", show) for show in shows]
    for seed, figure in enumerate(figures):
        draw(figure.path, 1500, 300, seed)

    def taken(level: pictures.Level) -> int:
        widths = {"large": level.width, "small": level.small, "extra": level.small}
        shown = [figure for figure in figures if level.extra or figure.show != "extra"]
        return sum(len(pictures.encode(figure.path, widths[figure.show], level.quality).uri) for figure in shown)

    sizes = [taken(level) for level in pictures.LEVELS]
    assert sizes == sorted(sizes, reverse=True)
    for budget in [*sizes, sizes[-1] + 1, sizes[0] + 1, (sizes[2] + sizes[3]) // 2]:
        level, shown = pictures.fit(figures, budget)
        assert level == next(level for level, size in zip(pictures.LEVELS, sizes, strict=True) if size <= budget)
        assert len(shown) == (3 if level.extra else 2)
    with pytest.raises(InputError, match=re.escape(f"{sizes[-1]:,} bytes at their smallest, and {sizes[-1] - 1:,}")):
        pictures.fit(figures, sizes[-1] - 1)


def test_no_figures_fit_into_nothing() -> None:
    assert pictures.fit([], 0) == (pictures.LEVELS[0], {})

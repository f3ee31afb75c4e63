"""Figures as data URIs, re-encoded so that all of them fit into a number of bytes."""

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from analysis.report.section import Figure
from lora.config import InputError

PAGE = 1500  # pixels of a figure as wide as the page: analysis.kit.figures' 7.5 inches at 200 dots an inch

TALL = 2.5  # height of a picture in widths of the page, at most


class Level(NamedTuple):
    """How figures are encoded: width in pixels of a large one as wide as the page, and of a small one, AVIF quality;
    and whether extra ones are among them."""

    width: int
    small: int
    quality: int
    extra: bool = False


LEVELS = (
    Level(1500, 600, 35, True), Level(1500, 560, 30, True), Level(1500, 560, 30), Level(1300, 520, 28),
    Level(1100, 480, 26), Level(900, 420, 24), Level(760, 360, 22), Level(640, 300, 20), Level(520, 240, 16),
    Level(400, 160, 10),
)  # fmt: skip


class Picture(NamedTuple):
    """A figure in the page: its data URI, its size in pixels, and which share of the page's width it is to take."""

    uri: str
    width: int
    height: int
    share: float


def encode(path: Path, width: int, quality: int) -> Picture:
    """The figure as AVIF, `width` pixels wide if it is as wide as the page and in proportion if not; a tall one is TALL
    times `width` high, and narrower. AVIF takes two thirds of WebP's bytes for lines and text."""
    with Image.open(path) as original:
        picture = original.convert("RGB")
    share = min(1.0, picture.width / PAGE)
    factor = min(1.0, share * width / picture.width, TALL * width / picture.height)
    if factor < 1:
        size = (max(1, round(factor * picture.width)), max(1, round(factor * picture.height)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "avif", quality=quality, speed=8)
    uri = f"data:image/avif;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, *picture.size, share)


def blank(figures: Sequence[Figure]) -> dict[Path, Picture]:
    """Pictures without data, for the page's size without them, which they make no larger."""
    return {figure.path: Picture("", 9999, 9999, 0.999) for figure in figures}


def fit(figures: Sequence[Figure], budget: int) -> tuple[Level, dict[Path, Picture]]:
    """The best level at which the data URIs of the figures together have at most `budget` bytes, and the pictures.

    Raises InputError if even the last level takes more.
    """
    encoded = cache(encode)

    def at(level: Level) -> dict[Path, Picture]:
        shown = [figure for figure in figures if figure.show != "extra" or level.extra]
        widths = {figure.path: level.width if figure.show == "large" else level.small for figure in shown}
        return {path: encoded(path, width, level.quality) for path, width in widths.items()}

    def taken(level: Level) -> int:
        return sum(len(picture.uri) for picture in at(level).values())

    found = next((level for level in LEVELS if taken(level) <= budget), None)
    if found is None:
        raise InputError(
            f"the report's figures take {taken(LEVELS[-1]):,} bytes at their smallest, and {max(budget, 0):,} are left "
            "for them: give a larger --limit"
        )
    return found, at(found)

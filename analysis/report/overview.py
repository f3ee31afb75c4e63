"""The picture of README, of stored figures: rank, directions and advice. `python -m analysis.report.overview`."""

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
OVERVIEW = ROOT / "docs" / "overview.png"
DESK = ROOT / "results" / "desk"
ROWS = (
    (DESK / "rank_ablation" / "rank_ablation.png", DESK / "subspace" / "fig4_minilm_rotten_tomatoes.png"),
    (DESK / "advice" / "minilm_rotten_tomatoes" / "advice.png",),
)
WIDTH = 2000  # pixels


def picture() -> Image.Image:
    """The figures, a row each of ROWS, as wide as the picture."""
    rows = [[_scaled(path, WIDTH // len(row)) for path in row] for row in ROWS]
    made = Image.new("RGB", (WIDTH, sum(max(figure.height for figure in row) for row in rows)), "white")
    top = 0
    for row in rows:
        height = max(figure.height for figure in row)
        for place, figure in enumerate(row):
            made.paste(figure, (place * WIDTH // len(row), top + (height - figure.height) // 2))
        top += height
    return made


def _scaled(path: Path, width: int) -> Image.Image:
    with Image.open(path) as figure:
        size = (width, round(width * figure.height / figure.width))
        return figure.convert("RGB").resize(size, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    picture().save(OVERVIEW, optimize=True)
    print(OVERVIEW)

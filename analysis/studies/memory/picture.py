"""A plan in a picture: bytes by kind, a bar a method.

python -m analysis.studies.memory.picture FOLDER     where `python -m experiments.measure.memory … --out FOLDER` left it
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.studies.memory.draw import draw_bytes
from experiments.arguments import Parser, finish
from experiments.measure.memory.schemas import PLAN
from lora.config import InputError


def draw(folder: Path) -> Path:
    """Draws folder/plan.png. Raises InputError if its plan is missing or damaged."""
    path = folder / PLAN.file
    try:
        frame = PLAN.read(path)
        first = frame.iloc[0]
        title = f"{first['model']}, {first['batch']} × {first['length']} tokens"
        return draw_bytes({title: frame}, folder / "plan.png")
    except (OSError, ValueError, IndexError) as error:
        raise InputError(
            f"{path} is no plan ({' '.join(str(error).split())}): `python -m experiments.measure.memory … --out "
            f"{folder}` writes one"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, or 2 with one line on stderr if there is no plan."""
    parser = Parser(prog="python -m analysis.studies.memory.picture", description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path, help=f"with {PLAN.file}")
    return finish(lambda: print(draw(parser.parse_args(arguments).folder)))


if __name__ == "__main__":
    sys.exit(main())

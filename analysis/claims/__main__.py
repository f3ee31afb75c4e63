"""Judge all claims on the studies of a preset: `python -m analysis.claims results/desk`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.claims.board import CLAIMS
from analysis.claims.engine import judge
from analysis.claims.report import summary, write
from analysis.claims.sources import read
from experiments.arguments import Parser, program
from lora.config import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, or 2 with one line on stderr if the input cannot work."""
    parser = Parser(prog=program("analysis.claims"), description=__doc__)
    parser.add_argument("folder", type=Path, help="results/<preset>, where the study folders are")
    try:
        args = parser.parse_args(arguments)
        if not args.folder.is_dir():
            raise InputError(f"{args.folder} is no folder; a study makes it, such as `make ablate-rank`")
        judged = judge(CLAIMS, read(args.folder, dict.fromkeys(name for claim in CLAIMS for name in claim.files)))
        paths = write(judged, args.folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.folder}: {', '.join(path.name for path in paths)} ({summary(judged)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

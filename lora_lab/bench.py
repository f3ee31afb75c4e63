"""`lora-lab bench NAME …`: the benchmarks of `bench/`, which need the packages of the extra `dev`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from experiments import names

BENCHES = ("training", "sweep", "phases", "section7", "extract")


def main(arguments: Sequence[str]) -> int:
    """NAME OPTIONS: the exit code of the benchmark, 2 with one line on stderr if there is none of that name."""
    name, rest = arguments[0] if arguments else "", list(arguments[1:])
    if name in ("-h", "--help"):
        print(f"usage: lora-lab bench {'|'.join(BENCHES)} [--help]")
        return 0
    if name not in BENCHES:
        print(f"error: unknown benchmark {name!r}{names.did_you_mean(name, BENCHES)}", file=sys.stderr)
        return 2
    sys.argv = [f"lora-lab bench {name}", *rest]
    try:
        bench = importlib.import_module(f"bench.{name}")
    except ModuleNotFoundError as error:
        print(f"error: {sys.argv[0]} needs the package {error.name}: pip install 'lora-lab[dev]'", file=sys.stderr)
        return 2
    code: int = bench.main(rest)
    return code

"""One study, from its runs to its figures: trains what is missing, measures what is missing, derives the rest.

python -m analysis.lab rank_ablation preset=quick method.r=2,4
python -m analysis.lab forgetting --measure forgetting preset=quick
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

if __name__ == "__main__":  # Ctrl-C while the rest is imported: nothing was begun
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from experiments import own, run


def main(arguments: Sequence[str]) -> int:
    """STUDY [--measure NAME [OPTIONS OF THE MEASUREMENT] --] OVERRIDES. 0; 2 if a run failed or the input cannot work,
    130 after an interruption: nothing is derived then from a list of runs that this command has not made."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted: what was finished is stored, the same command continues", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    study, rest = arguments[0], list(arguments[1:])
    measure: list[str] = []
    if rest[:1] == ["--measure"]:
        end = rest.index("--")
        measure, rest = rest[1:end], rest[end + 1 :]
    sys.argv = ["analysis.lab", f"study={study}", *rest]
    done = run.command()
    if done.study_dir is None:
        return done.code
    named = [one for one in rest if one.startswith(("--model", "--task"))]
    others = [one for one in rest if one not in named]
    if measure:
        # Where the user's own model and data are, for what measures stored runs, which do not say so.
        name, *options = measure
        given = [str(done.study_dir), *options, *named, "--among", *others]
        code: int = importlib.import_module(f"experiments.measure.{name}").main(given)
        if code:
            return code
    from analysis import study as studies

    model = next((one.partition("=")[2] for one in named if one.startswith("--model=")), "")
    base = own.places(model, "", others, ["model.path"]).get("model.path")
    return studies.show(done.study_dir, base=base) or done.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

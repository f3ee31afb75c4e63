"""One study, from its runs to its figures: trains what is missing, measures what is missing, derives the rest.

python -m analysis.lab rank_ablation preset=quick method.r=2,4
python -m analysis.lab forgetting --text notes.txt -- preset=quick     options of its measurement, then settings
python -m analysis.lab latency preset=quick --threads 1                a study of measurements alone
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C while the rest is imported: nothing was begun
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from analysis.report import entries
from analysis.report.entries import Entry
from experiments import names, own, run
from lora.config import InputError


def main(arguments: Sequence[str]) -> int:
    """STUDY [OPTIONS OF ITS MEASUREMENT --] OVERRIDES. 0; 2 if a run failed or the input cannot work, 130 after an
    interruption: nothing is derived then from a list of runs that this command has not made."""
    try:
        study = _entry(arguments[0] if arguments else "")
        trains = own.is_config("study", study.folder)
        return (_trained if trains else _measured)(study, _joined(arguments[1:]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was finished is stored, the same command continues", file=sys.stderr)
        return 130


def _entry(name: str) -> Entry:
    """A study's YAML. Raises InputError if there is no such study, with the nearest name."""
    known = {entry.folder: entry for entry in entries.load() if entry.folder != "bench"}
    if name not in known:
        targets = {entry.make: entry.folder for entry in known.values()}
        meant = f"; did you mean {targets[name]}?" if name in targets else names.did_you_mean(name, [*known])
        raise InputError(f"unknown study {name!r}{meant}")
    return known[name]


def _trained(study: Entry, rest: list[str]) -> int:
    """A study of runs, and of what is measured on them."""
    options: list[str] = []
    if "--" in rest:
        end = rest.index("--")
        options, rest = rest[:end], rest[end + 1 :]
    if options and not study.measure:
        raise InputError(f"{' '.join(options)}: {study.folder} measures nothing after its runs; leave it and -- out")
    sys.argv = ["analysis.lab", f"study={study.folder}", *rest]
    done = run.command()
    if done.study_dir is None:
        return done.code
    model, others = _model(rest)
    # Where the user's own model and data are, for what measures stored runs, which do not say so.
    asked = study.measure_options.get(_preset(rest), ())
    for measure in study.measure:
        given = [str(done.study_dir), *asked, *options, *_named(rest), "--among", *others]
        if code := _measure(measure, given):
            return code
    base = own.places(model, "", others, ["model.path"]).get("model.path")
    return _show(done.study_dir, base) or done.code


def _measured(study: Entry, rest: list[str]) -> int:
    """A study of measurements on a model, with no run behind it. What is no setting is an option of its commands."""
    if any(one.startswith(("--task", "task=")) for one in rest):
        raise InputError(f"{study.folder} measures a model, not a task: leave the task out")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    model, others = _model(rest)
    preset = _preset(others)
    folder = Path(own.places("", "", others, ["results_dir"]).get("results_dir", "results")) / preset / study.folder
    known = f"asset:{model}" if own.is_config("model", model) else model
    options = [one for one in others if not one.startswith(("preset=", "results_dir=", "engine.jobs="))]
    for measure in study.measure:
        named = [f"--model={known}"] if model else []
        if code := _measure(measure, ["--preset", preset, "--out", str(folder), *named, *options]):
            return code
    return _show(folder, None)


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--model NAME` as `--model=NAME`, and so of the task: one argument each."""
    waiting = iter(arguments)
    return [f"{one}={next(waiting, '')}" if one in ("--model", "--task") else one for one in waiting]


def _named(rest: Sequence[str]) -> list[str]:
    return [one for one in rest if one.startswith(("--model", "--task"))]


def _model(rest: Sequence[str]) -> tuple[str, list[str]]:
    """What `--model` says, and the arguments that are neither it nor `--task`."""
    named = _named(rest)
    model = next((one.partition("=")[2] for one in named if one.startswith("--model=")), "")
    return model, [one for one in rest if one not in named]


def _preset(rest: Sequence[str]) -> str:
    return own.places("", "", rest, ["preset"]).get("preset", "quick")


def _measure(name: str, arguments: Sequence[str]) -> int:
    code: int = importlib.import_module(f"experiments.measure.{name}").main(arguments)
    return code


def _show(study_dir: Path, base: str | None) -> int:
    from analysis import study as studies

    return studies.show(study_dir, base=base)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

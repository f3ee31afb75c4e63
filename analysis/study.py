"""Tables and figures of a study, or of all studies of a preset.

python -m analysis.study results/quick/rank_ablation
python -m analysis.study results/desk
"""

import argparse
import importlib
import itertools
import multiprocessing
import pkgutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import analysis.studies
from analysis.kit import stamp, table_md
from experiments import own, places
from experiments.arguments import Parser, program
from experiments.engines.sizing import cores
from lora.config import InputError


def run_study(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Writes tables, figures and provenance.json of a study into its folder; returns their paths.

    The folder's name says which study it is. It is derived from stored runs and from what was measured on them, or from
    measurements alone, as its `kit.study.Study` says. `base`: where the pretrained weights are, should that be a folder
    of the user's own; not all studies read them. Work is skipped when every output is there, as it was written, and
    `kit.stamp` finds the same sources and the same code. Raises InputError if the study is unknown or its runs or files
    are missing.
    """
    study = places.study_of(study_dir)
    if study not in known():
        raise InputError(f"{study_dir}: no study is called {study!r}; the studies are {', '.join(known())}")
    outputs = stamp.current(study, study_dir, runs_dir)
    if not outputs:
        outputs = _build(study, study_dir, runs_dir, base)
    return [*outputs, study_dir / stamp.STAMP]


def known() -> list[str]:
    """The names of all studies."""
    return sorted(module.name for module in pkgutil.iter_modules(analysis.studies.__path__))


def studies_in(folder: Path) -> list[Path]:
    """The study folders of results/<preset>; any other folder by itself."""
    if places.study_of(folder) in known() or not folder.is_dir():
        return [folder]
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and places.study_of(path) in known()]
    return found or [folder]


def _build(study: str, study_dir: Path, runs_dir: Path, base: str | None) -> list[Path]:
    from analysis.kit.safe import make_safe
    from analysis.kit.study import Study
    from analysis.kit.tables import make_command, provenance  # with pandas, which a study that is current spares
    from experiments.records.source import Runs

    package = importlib.import_module(f"analysis.studies.{study}")
    module = importlib.import_module(f"{package.__name__}.study") if hasattr(package, "__path__") else package
    found: Study = module.STUDY
    runs = list(Runs(study_dir, runs_dir)) if found.runs else []
    for name in () if found.runs else found.reads:
        if not (study_dir / name).is_file():
            raise InputError(f"{study_dir} has no {name}; `{make_command(study_dir)}` makes it")
    stamp.remove(study_dir)
    outputs = found.build(study_dir, runs_dir, base if found.base else None)
    make_safe(outputs)
    files = (*found.reads, *found.measures)
    mark = stamp.fingerprint(study, study_dir, runs_dir, files)
    stamp.write(study_dir, outputs, mark, files, provenance(runs))
    return outputs


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, or 2 with one line on stderr if the input cannot work."""
    description = (__doc__ or "").splitlines()[0]
    parser = Parser(prog=program("analysis.study"), description=description)
    parser.add_argument("folder", type=Path, nargs="+", help="results/<preset>/<study>, or results/<preset>")
    parser.add_argument("--runs", type=Path, help="folder of the stored runs (default: STUDY_DIR/../../runs)")
    parser.add_argument("--base", help="the pretrained model, where it is a folder: runs store its content alone")
    parser.add_argument("--model", default="", help="as of experiments.run, from which --base is taken")
    parser.add_argument("--among", nargs=argparse.REMAINDER, default=[], help="a command line of experiments.run")
    try:
        args = parser.parse_args(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    base = args.base or own.places(args.model, "", args.among, ["model.path"]).get("model.path")
    folders = [study_dir for folder in args.folder for study_dir in studies_in(folder)]
    if len(folders) == 1:
        return show(folders[0], args.runs, base)
    # Processes: what takes long is drawing, which holds Python's lock.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores(), len(folders)), spawn, _typed, (sys.orig_argv,)) as pool:
        return max(pool.map(show, folders, itertools.repeat(args.runs), itertools.repeat(base)))


def _typed(line: list[str]) -> None:
    """In a worker: what its provenance.json gives as the command is what the user typed, not how the worker began."""
    sys.orig_argv = line


def show(study_dir: Path, runs_dir: Path | None = None, base: str | None = None) -> int:
    """Derive a study and print what there is: 0, or 2 with one line on stderr if the input cannot work."""
    place = study_dir.resolve()
    try:
        outputs = run_study(place, runs_dir or place.parent.parent / "runs", base)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or place}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(f"{study_dir}: {', '.join(path.name for path in outputs)}", flush=True)
    for answer in table_md.read_answers(place / "table.md") if place / "table.md" in outputs else ():
        print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())

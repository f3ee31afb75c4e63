"""Tables and figures of one study folder: `python -m analysis.study results/quick/rank_ablation`."""

import argparse
import hashlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import analysis.studies
from analysis.safe import make_safe
from analysis.tables import make_command, provenance, read_sweep
from experiments import own
from lora.config import InputError


class Sources(NamedTuple):
    """What a study is derived from: the ids of its runs, what else of its list of runs matters, and files."""

    run_ids: list[str]
    listed: Any
    files: list[Path]


def run_study(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Writes tables, figures and provenance.json of a study into its folder; returns their paths.

    The folder's name says which study it is. It is derived from stored runs and, if its module has MEASURED, from files
    of these names in its folder, what was measured on the runs; or, if it has INPUTS, from the files of these names
    alone. A module with BASE reads the pretrained weights too; `base` is where they are, should that be a folder of
    the user's own. Work is skipped when every output is there and provenance.json records the same sources and the
    same analysis code. Raises InputError if the study is unknown or its runs or files are missing.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(analysis.studies.__path__))
    if study_dir.name not in known:
        raise InputError(f"{study_dir}: no study is called {study_dir.name!r}; the studies are {', '.join(known)}")
    module = importlib.import_module(f"analysis.studies.{study_dir.name}")
    inputs = getattr(module, "INPUTS", None)
    if inputs is None:
        sources = _of_runs(study_dir, runs_dir, getattr(module, "MEASURED", ()))
    else:
        sources = _of_files(study_dir, inputs)
    stamp = study_dir / "provenance.json"
    fingerprint = _fingerprint(sources)
    outputs = _outputs_of(stamp, fingerprint)
    if not outputs:
        more = {"base": base} if getattr(module, "BASE", False) else {}
        outputs = module.build(study_dir, runs_dir, **more)
        make_safe(outputs)
        record = {"fingerprint": fingerprint, "outputs": [path.name for path in outputs]}
        stamp.write_text(json.dumps(provenance(runs_dir, sources.run_ids) | record, indent=2) + "\n", encoding="utf-8")
    return [*outputs, stamp]


def _of_runs(study_dir: Path, runs_dir: Path, measured: Sequence[str]) -> Sources:
    sweep = read_sweep(study_dir)
    runs = sorted((run_id, sorted(roles)) for run_id, roles in sweep.roles.items())
    results = ("metrics.json", "history.csv")  # every training makes new ones
    files = [runs_dir / run_id / name for run_id, _ in runs for name in results]
    files += [study_dir / name for name in measured]
    return Sources(list(sweep.roles), [runs, sweep.failed], files)


def _of_files(study_dir: Path, names: Sequence[str]) -> Sources:
    for name in names:
        if not (study_dir / name).is_file():
            raise InputError(f"{study_dir} has no {name}; `{make_command(study_dir)}` makes it")
    return Sources([], list(names), [study_dir / name for name in names])


def _fingerprint(sources: Sources) -> str:
    """Hash of what the outputs depend on: the sources, by content, and the code of this package."""
    digest = hashlib.sha256(json.dumps(sources.listed).encode())
    code = sorted(Path(__file__).parent.rglob("*.py"))
    for path in [*code, *sources.files]:
        digest.update(path.read_bytes() if path.is_file() else b"missing")
    return digest.hexdigest()


def _outputs_of(stamp: Path, fingerprint: str) -> list[Path]:
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    outputs = [stamp.parent / name for name in record.get("outputs", [])]
    current = record.get("fingerprint") == fingerprint and all(path.exists() for path in outputs)
    return outputs if current else []


def main() -> int:
    """Command line entry: 0, or 2 with one line on stderr if the input cannot work."""
    parser = argparse.ArgumentParser(prog="python -m analysis.study", description=__doc__)
    parser.add_argument("study_dir", type=Path, help="results/<preset>/<study>")
    parser.add_argument("--runs", type=Path, help="folder of the stored runs (default: STUDY_DIR/../../runs)")
    parser.add_argument("--base", help="the pretrained model, where it is a folder: runs store its content alone")
    parser.add_argument("--model", default="", help="as of experiments.run, from which --base is taken")
    parser.add_argument("--among", nargs=argparse.REMAINDER, default=[], help="a command line of experiments.run")
    args = parser.parse_args()
    base = args.base or own.places(args.model, "", args.among, ["model.path"]).get("model.path")
    study_dir = args.study_dir.resolve()
    try:
        outputs = run_study(study_dir, args.runs or study_dir.parent.parent / "runs", base)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.study_dir}: {', '.join(path.name for path in outputs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

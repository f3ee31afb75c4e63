"""Tables and figures of one study folder: `python -m analysis.study results/quick/rank_ablation`."""

import argparse
import hashlib
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import analysis.studies
from analysis.tables import Sweep, provenance, read_sweep
from lora.config import InputError


def run_study(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes tables, figures and provenance.json of a study into its folder, from the stored runs; returns their paths.

    The folder's name says which study it is. Work is skipped when every output is there and provenance.json records
    the same runs and the same analysis code. Raises InputError if the study is unknown or its runs are missing.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(analysis.studies.__path__))
    if study_dir.name not in known:
        raise InputError(f"{study_dir}: no study is called {study_dir.name!r}; the studies are {', '.join(known)}")
    sweep = read_sweep(study_dir)
    stamp = study_dir / "provenance.json"
    fingerprint = _fingerprint(sweep, runs_dir)
    outputs = _outputs_of(stamp, fingerprint)
    if not outputs:
        outputs = importlib.import_module(f"analysis.studies.{study_dir.name}").build(study_dir, runs_dir)
        record = {"fingerprint": fingerprint, "outputs": [path.name for path in outputs]}
        stamp.write_text(
            json.dumps(provenance(runs_dir, list(sweep.roles)) | record, indent=2) + "\n", encoding="utf-8"
        )
    return [*outputs, stamp]


def _fingerprint(sweep: Sweep, runs_dir: Path) -> str:
    """Hash of what the outputs depend on: the list of runs, their results, and the code of this package."""
    runs = sorted((run_id, sorted(roles)) for run_id, roles in sweep.roles.items())
    digest = hashlib.sha256(json.dumps([runs, sweep.failed]).encode())
    code = sorted(Path(__file__).parent.rglob("*.py"))
    results = [
        runs_dir / run_id / name for run_id, _ in runs for name in ("metrics.json", "adapter/adapter.safetensors")
    ]
    for path in [*code, *results]:
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
    args = parser.parse_args()
    study_dir = args.study_dir.resolve()
    try:
        outputs = run_study(study_dir, args.runs or study_dir.parent.parent / "runs")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.study_dir}: {', '.join(path.name for path in outputs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""provenance.json: what the tables and figures of a study were derived from, and whether they still are.

It is taken away before they are made and written when all are there, with their hashes: a build that is killed, and a
file that is cut, are seen. It is read without pandas or torch, since it is looked at each time that a study is asked
for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.kit import code
from experiments import listing
from experiments.records.archive import ARCHIVE
from experiments.store import RECORD

STAMP = "provenance.json"
RESULTS = ("metrics.json", "history.csv")  # of a run: every training makes new ones


def current(study: str, study_dir: Path, runs_dir: Path) -> list[Path]:
    """The outputs of a study, if they are as they were written and derived from what is there now; else none."""
    try:
        record = json.loads((study_dir / STAMP).read_text(encoding="utf-8"))
        outputs = {study_dir / name: digest for name, digest in record["outputs"].items()}
        if record["fingerprint"] != fingerprint(study, study_dir, runs_dir, record["files"]):
            return []
        whole = all(_digest(path) == digest for path, digest in outputs.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [*outputs] if whole else []


def remove(study_dir: Path) -> None:
    """What is there is no longer whole, until `write`."""
    (study_dir / STAMP).unlink(missing_ok=True)


def write(study_dir: Path, outputs: Sequence[Path], mark: str, files: Sequence[str], about: dict[str, Any]) -> Path:
    """Say that `outputs` are whole, made from what had the fingerprint `mark`; returns the file's path."""
    hashes = {path.name: _digest(path) for path in outputs}
    record = {**about, "files": list(files), "fingerprint": mark, "outputs": hashes}
    temporary = study_dir / f".{STAMP}"
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return temporary.replace(study_dir / STAMP)


def fingerprint(study: str, study_dir: Path, runs_dir: Path, files: Sequence[str]) -> str:
    """Hash of what the outputs depend on: the list of runs, what each has measured, files of the study's own folder
    (names or patterns), and the study's code, of `kit.code`."""
    digest = hashlib.sha256()
    if listing.exists(study_dir):
        entries = [json.loads(line) for line in listing.text(study_dir).splitlines() if line.strip()]
        listed = sorted({(entry["run_id"], entry["role"], entry.get("error", "")) for entry in entries})
        digest.update(json.dumps(listed).encode())
        folders = [runs_dir / run_id for run_id, _, error in listed if not error]
        for path in (folder / name for folder in folders for name in RESULTS):
            digest.update(_content(path))
    if not listing.exists(study_dir) or any(not folder.is_dir() or (folder / RECORD).exists() for folder in folders):
        digest.update(_content(study_dir / ARCHIVE))
    for path in (path for name in files for path in sorted(study_dir.glob(name)) or [study_dir / name]):
        digest.update(_content(path))
    digest.update(code.digest(study).encode())
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b"missing"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

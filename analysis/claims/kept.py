"""What runs keep of their test items, and whether they have collapsed: in a study's records, or in the runs' folders.

Runs of before there were items have none; a claim's error is then of seeds alone.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.maths.svd import Array
from lora.config import InputError

ARCHIVE = "records.jsonl.gz"
COLUMNS = ["run_id", "items_of", "items", "losses", "collapsed"]
_MARKS = ('"items":', '"collapsed":')


def read(study_dir: Path, runs_dir: Path, run_ids: Iterable[str]) -> pd.DataFrame:
    """COLUMNS, a row for each of the runs that says any of it: items_of, which test items they were (runs of others
    cannot be paired); items, (n,) right or wrong; losses, (n,) nats, in parts of the mean over target tokens: their
    mean is the loss of all tokens; None where they are not kept.

    Raises InputError if what is kept is damaged.
    """
    wanted = set(run_ids)
    rows = [row for row in _archived(study_dir / ARCHIVE) if row["run_id"] in wanted]
    known = {row["run_id"] for row in rows}
    rows += [row for run_id in sorted(wanted - known) for row in _stored(runs_dir / run_id)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _archived(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if any(mark in line for mark in _MARKS):
                    record = json.loads(line)
                    yield _row(record["run_id"], record.get("items"), record.get("metrics"))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}); pack the study again") from error


def _stored(folder: Path) -> Iterator[dict[str, Any]]:
    parts = {}
    for name in ("items", "metrics"):
        path = folder / f"{name}.json"
        try:
            parts[name] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); delete the folder, the study computes it again") from error
    if parts["items"] is not None or (parts["metrics"] or {}).get("collapsed") is not None:
        yield _row(folder.name, parts["items"], parts["metrics"])


def _row(run_id: str, packed: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": run_id, "collapsed": (metrics or {}).get("collapsed")}
    if packed is not None:
        n = int(packed["n"])
        row["items_of"] = f"{packed['of']} {n}"
        if "correct" in packed:
            row["items"] = np.unpackbits(np.frombuffer(base64.b64decode(packed["correct"]), np.uint8), count=n).astype(
                float
            )
        if "loss" in packed:
            weight = _bytes(packed["weight"], "<u2").astype(float) if "weight" in packed else np.ones(n)
            row["losses"] = _bytes(packed["loss"], "<f2").astype(float) * weight / weight.mean()
    return row


def _bytes(text: str, kind: str) -> Array:
    found: Array = np.frombuffer(base64.b64decode(text), np.dtype(kind))
    return found

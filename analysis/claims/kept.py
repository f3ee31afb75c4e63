"""What runs keep of their test items: in a study's records, or in the runs' folders.

Runs of before there were items have none; a claim's error is then of seeds alone.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import items
from experiments.records.archive import ARCHIVE
from lora.config import InputError

COLUMNS = ["run_id", "items_of", "items", "losses"]
_MARK = '"items":'
_BAD = (OSError, EOFError, ValueError, KeyError, TypeError)


def read(study_dir: Path, runs_dir: Path, run_ids: Iterable[str]) -> pd.DataFrame:
    """COLUMNS, a row for each of the runs that has kept them: items_of, which test items they were (runs of others
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
    """Of a study's records, read line by line: most are of runs that keep nothing of this."""
    try:
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    if _MARK in line and (record := json.loads(line)).get("items") is not None:
                        yield _row(record["run_id"], record["items"])
    except _BAD as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}); pack the study again") from error


def _stored(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / items.FILE
    try:
        if path.is_file():
            yield _row(folder.name, json.loads(path.read_text(encoding="utf-8")))
    except _BAD as error:
        raise InputError(f"{folder} is damaged ({error}); delete it, the study computes it again") from error


def _row(run_id: str, packed: dict[str, Any]) -> dict[str, Any]:
    found = items.unpack(packed)
    row: dict[str, Any] = {"run_id": run_id, "items_of": f"{packed['of']} {len(found)}"}
    if found.correct is not None:
        row["items"] = found.correct.astype(float)
    if found.loss is not None:
        weight = 1.0 if found.weight is None else found.weight / found.weight.mean()
        row["losses"] = found.loss.astype(float) * weight
    return row

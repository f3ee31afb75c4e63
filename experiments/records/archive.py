"""The file records.jsonl.gz: read whole, written whole, the same bytes for the same records."""

from __future__ import annotations

import functools
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from experiments.paths import write as put
from experiments.records.schema import Record
from lora.config import InputError

ARCHIVE = "records.jsonl.gz"
_BEGINNING = re.compile(r'\{"run_id":"((?:[^"\\]|\\.)*)"')


def read(path: Path) -> list[Record]:
    """The records of a file, in its order; none if there is no such file. Raises InputError if it is damaged."""
    if not path.is_file():
        return []
    records, faults = scan(path)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{more}; get the file anew, or pack the study again")
    return records


def scan(path: Path) -> tuple[list[Record], list[str]]:
    """The sound records of a file, and a line for each that is not: which run, and what is wrong.

    Do not change the records: they are read once for all who ask. Raises InputError if the file cannot be opened.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            f"there is no file {path}; `python -m experiments.records pack {path.parent}` makes it"
        ) from error
    return _scan(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _scan(path: Path, size: int, changed: int) -> tuple[list[Record], list[str]]:
    records: list[Record] = []
    faults: list[str] = []
    seen: set[str] = set()
    try:
        with gzip.open(path, "rb") as file:
            for number, content in enumerate(file, start=1):
                text = content.decode("utf-8", "replace")
                beginning = _BEGINNING.match(text)
                name = f"{path}, line {number}" + (f", run {beginning[1]}" if beginning else "")
                try:
                    record = Record.parse(text)
                    fault = "it is listed twice" if record.run_id in seen else record.fault()
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    fault = f"the line is damaged ({' '.join(f'{type(error).__name__}: {error}'.split())})"
                else:
                    seen.add(record.run_id)
                    records += [] if fault else [record]
                if fault:
                    faults.append(f"{name}: {fault}")
    except (OSError, EOFError, zlib.error) as error:
        after = f" after run {records[-1].run_id}" if records else ""
        faults.append(f"{path} is cut short or damaged{after} ({' '.join(str(error).split())})")
    if not records and not faults:
        faults.append(f"{path} has no record")
    return records, faults


def write(path: Path, records: Sequence[Record]) -> None:
    """Writes a file of records, whole or not at all."""
    text = "".join(f"{record.line()}\n" for record in records)
    # No name and no time in the header: the same records are the same bytes.
    put(path, gzip.compress(text.encode(), compresslevel=9, mtime=0))

"""A file of results that is never begun anew: a CSV that is written whole after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.csv_schema import Schema
from experiments.paths import write as write
from lora.config import InputError


class Results:
    """The rows of a CSV file of a schema in `folder`, which is written whole whenever they change.

    Raises InputError if the file is there and is damaged.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.path, self.columns, self.key = folder / schema.file, schema.types, schema.key
        try:
            self.rows = schema.read(self.path)
        except FileNotFoundError:
            self.rows = pd.DataFrame(columns=schema.names).astype(schema.types)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is damaged; delete it, the same command measures anew") from error

    def keep(self, wanted: Sequence[bool]) -> None:
        """Drops the other rows."""
        if not all(wanted):
            self.rows = self.rows[list(wanted)]
            self._store()

    def keys(self, *names: str) -> list[tuple[Any, ...]]:
        """The values of some columns, a tuple a row."""
        return list(self.rows[list(names)].itertuples(index=False, name=None))

    def add(self, new: Sequence[Mapping[str, Any]], *by: str) -> None:
        """Adds rows; rows with the same values in the columns `by`, the schema's key by default, are replaced."""
        by = by or self.key
        replaced = {tuple(row[name] for name in by) for row in new}
        kept = self.rows[[key not in replaced for key in self.keys(*by)]]
        added = pd.DataFrame(new)[list(self.columns)].astype(self.columns)
        self.rows = pd.concat([kept, added], ignore_index=True)
        self._store()

    def _store(self) -> None:
        write(self.path, self.rows.to_csv(index=False, na_rep="nan"))


def make_folder(path: Path) -> None:
    """Makes a folder of results. Raises InputError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be a folder ({error.strerror}): choose another") from error

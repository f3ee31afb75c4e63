"""What a CSV file of results has: columns with types and units, a key, and the command that makes it.

Who writes a file, who reads it and the data dictionary (docs/data.md) take it from one schema. No cell is empty but of
text; a number that is not there is nan.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

Type = type[str] | type[int] | type[float] | type[bool]


@dataclass(frozen=True)
class Column:
    """A column: its type, what it says, and the unit of a number that has one."""

    name: str
    type: Type
    what: str
    unit: str = ""


@dataclass(frozen=True)
class Schema:
    """A CSV file below results/<preset>/<study>. No two rows have the same values in the columns of `key`."""

    study: str
    file: str
    row: str  # what a row is of
    key: tuple[str, ...]
    command: str  # that makes it, below `make …`
    columns: tuple[Column, ...]

    @property
    def types(self) -> dict[str, Type]:
        """The type of each column, by name, in their order."""
        return {column.name: column.type for column in self.columns}

    @property
    def names(self) -> list[str]:
        """The columns, in their order."""
        return list(self.types)

    def read(self, path: Path) -> pd.DataFrame:
        """The rows of a file, each column of its type: text is text, whatever it looks like.

        Raises OSError if it cannot be read, and ValueError, which says why, if it lacks a column, a line is cut short
        or a value is not of its type.
        """
        content = path.read_text(encoding="utf-8")
        try:
            header, *lines = list(csv.reader(io.StringIO(content))) or [[]]
        except csv.Error as error:
            raise ValueError(str(error)) from error
        lacking = [name for name in self.names if name not in header]
        if lacking:
            raise ValueError(f"no {', '.join(lacking)}")
        if any(len(line) != len(header) for line in lines) or not content.endswith("\n"):
            raise ValueError("a line is cut short")
        text = pd.DataFrame(lines, columns=header, dtype=str)
        return pd.DataFrame({name: _typed(text[name], kind) for name, kind in self.types.items()})


def _typed(column: pd.Series, kind: Type) -> pd.Series:
    if kind is bool:
        if not column.isin(["True", "False"]).all():
            raise ValueError(f"{column.name} is neither True nor False")
        return column == "True"
    return column.astype(kind)

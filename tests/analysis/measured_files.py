"""Files of measurements, made up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.csv_schema import Schema

EMPTY = {str: "", int: 0, float: 0.0, bool: False}


def write(rows: pd.DataFrame | Sequence[Mapping[str, Any]], folder: Path, schema: Schema) -> None:
    """The file of a schema with these rows; columns that no row has are filled, those that it has not are an error."""
    frame = pd.DataFrame(rows)
    assert set(frame.columns) <= set(schema.names)
    filled = {name: EMPTY[kind] for name, kind in schema.types.items() if name not in frame}
    frame.assign(**filled)[schema.names].to_csv(folder / schema.file, index=False)

"""What `python -m experiments.<measurement>` has left in a study's folder, as CSV files."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from analysis import tables
from lora.config import InputError


def whole(study_dir: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The file `name` of a measurement that no stored run is behind; empty cells are empty strings.

    Raises InputError if the file is missing, is damaged, lacks one of `columns`, or has no rows.
    """
    path, advice = study_dir / name, f"`{tables.make_command(study_dir)}` makes it"
    try:
        frame = pd.read_csv(path, keep_default_na=False)
        lacking = [column for column in columns if column not in frame]
        if lacking:
            raise ValueError(f"no {', '.join(lacking)}")
    except OSError as error:
        raise InputError(f"{path} cannot be read; {advice}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}); delete it, {advice} again") from error
    if frame.empty:
        raise InputError(f"{path} has no rows; delete it, {advice} again")
    return frame


def read(study_dir: Path, name: str, columns: Sequence[str], run_ids: Collection[str]) -> pd.DataFrame:
    """`columns` of the file `name`, results on stored runs: the rows of those in `run_ids`.

    Raises InputError if the file is missing, is damaged, or lacks one of these runs.
    """
    path, command = study_dir / name, tables.make_command(study_dir)
    if not path.is_file():
        raise InputError(f"{study_dir} has no {name}; `{command}` measures it")
    try:
        table = pd.read_csv(path)[list(columns)]
        lacking = sorted(set(run_ids) - set(table["run_id"]))
        if table.isna().to_numpy().any():
            raise ValueError("a value is missing")
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({reason}); delete it, `{command}` measures anew") from error
    if lacking:
        raise InputError(f"{path} lacks {len(lacking)} runs of the study, as {lacking[0]}; `{command}` measures them")
    return table[table["run_id"].isin(run_ids)].reset_index(drop=True)

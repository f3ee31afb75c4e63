"""What the task families share: from files to pandas frames (text, [text_pair], label) to a TaskData."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from sklearn.model_selection import train_test_split

from experiments.tasks import TaskData
from lora.config import InputError


def require_columns(frame: pd.DataFrame, columns: list[str], path: Path) -> None:
    """Raises InputError, listing the columns there are, if one is missing."""
    missing = [column for column in columns if column not in frame]
    if missing:
        raise InputError(f"{path} has no column '{missing[0]}'; its columns are: {', '.join(map(str, frame.columns))}")


def require_classes(frame: pd.DataFrame, path: Path) -> None:
    """Raises InputError if a training frame has no rows, or one label only."""
    labels = frame["label"].unique()
    if len(labels) == 0:
        raise InputError(f"{path} has no rows")
    if len(labels) == 1:
        raise InputError(
            f"{path} has one class only, '{labels[0]}': two or more are needed to learn to tell them apart"
        )


def split(frame: pd.DataFrame, size: float, seed: int, stratified: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut `size` rows (a number, or a fraction below 1) off a frame; returns (rest, cut).

    Stratified by label: the classes are in both parts in proportion, but a class with a single row stays in the rest.
    Raises InputError if there are too few rows.
    """
    single = ~frame["label"].duplicated(keep=False) & stratified
    common = frame[~single]
    try:
        rest, cut = train_test_split(
            common, test_size=size, random_state=seed, stratify=common["label"] if stratified else None
        )
    except ValueError as error:
        raise InputError(
            f"too few rows to split: {len(frame)} rows, {frame['label'].nunique()} classes, {size} held out ({error})"
        ) from error
    return pd.concat([rest, frame[single]]), cut


def tenths(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Train, validation and test of 80, 10 and 10%, stratified. Raises InputError as `split`."""
    tenth = len(frame) // 10
    rest, test = split(frame, tenth, seed)
    return *split(rest, tenth, seed), test


def task_data(
    train: pd.DataFrame, validation: pd.DataFrame, test: pd.DataFrame, label_names: tuple[str, ...], metric: str
) -> TaskData:
    """Frames to a TaskData, as `dataset` makes each."""
    splits = [dataset(frame, label_names) for frame in (train, validation, test)]
    return TaskData(splits[0], splits[1], splits[2], label_names, metric)


def dataset(frame: pd.DataFrame, label_names: tuple[str, ...]) -> Dataset:
    """A frame as a dataset; labels become indices into label_names, or floats where there are no label names."""
    index = {name: i for i, name in enumerate(label_names)}
    columns = [column for column in ("text", "text_pair", "label") if column in frame]
    labels = frame["label"].map(index).astype("int64") if label_names else frame["label"].astype("float64")
    return Dataset.from_pandas(frame[columns].assign(label=labels), preserve_index=False)


def columns(rows: Iterable[tuple[Any, ...]], *names: str) -> Dataset:
    """Rows as a dataset with columns of these names."""
    found = list(rows)
    return Dataset.from_dict({name: [row[index] for row in found] for index, name in enumerate(names)})

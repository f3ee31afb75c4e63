"""The user's own prompts and completions, as `local` reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import train_test_split

from experiments.tasks import TextData
from experiments.tasks._frames import columns, require_columns
from lora.config import InputError


def load(task: Mapping[str, Any], files: Mapping[str, Path], tables: Mapping[str, pd.DataFrame]) -> TextData:
    """Task fields: prompt_column, completion_column, split_seed, metric (null: rouge_lf). Tables go by field: path, …

    A completion may be a list: a training pair each, and the references of a test prompt. Rows with one prompt are one
    input. Each of validation and test that has no table is a tenth of the training table's prompts. The completion
    follows the prompt as both are written. Raises InputError for what `inputs` finds wrong, and too few prompts.
    """
    frames = {field: inputs(table, task, files[field]) for field, table in tables.items()}
    train = frames.pop("path")
    open_splits = [field for field in ("test_path", "validation_path") if field not in frames]
    if len(train) <= len(open_splits):
        raise InputError(f"{files['path']}: too few prompts to hold some out: there are {len(train)} different ones")
    tenth = max(1, len(train) // 10)
    for field in open_splits:
        train, frames[field] = train_test_split(train, test_size=tenth, random_state=task["split_seed"])
    validation, test = (
        columns(frames[field].itertuples(index=False, name=None), "prompt", "references")
        for field in ("validation_path", "test_path")
    )
    pairs = columns(train.explode("references").itertuples(index=False, name=None), "prompt", "completion")
    return TextData(pairs, validation, test, task["metric"] or "rouge_lf")


def inputs(table: pd.DataFrame, task: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Columns prompt and references, a row a prompt: its completions in the table's order, each once.

    Raises InputError, with the line, for a missing column, a table without rows, and a prompt or completion that is
    empty or no text.
    """
    names = [task["prompt_column"], task["completion_column"]]
    require_columns(table, names, path)
    if table.empty:
        raise InputError(f"{path} has no rows")
    references: dict[str, dict[str, None]] = {}  # a dict for each prompt's: it keeps their order and has each once
    for line, prompt, completion in table[names].itertuples(name=None):
        completions = completion if isinstance(completion, list) else [completion]
        for column, texts in zip(names, ([prompt], completions), strict=True):
            if not all(isinstance(text, str) for text in texts):
                kind = "a text" if column == names[0] else "a text or a list of texts"
                raise InputError(f"{path}: line {line}: '{column}' should be {kind}")
            if not texts or not all(text.strip() for text in texts):
                raise InputError(f"{path}: line {line} has an empty '{column}'")
        references.setdefault(prompt, {}).update(dict.fromkeys(completions))
    return pd.DataFrame({"prompt": list(references), "references": [list(texts) for texts in references.values()]})

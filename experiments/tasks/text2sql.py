"""text2sql: made-up questions about made-up tables, with the SQL that answers them, in WikiSQL's shape.

It asks for what WikiSQL asks for (the paper's Table 4), of models and machines that are small: eighteen topics, tables
of five or six columns, and questions whose words for columns, aggregates and comparisons vary. The tables of validation
and test have sets of columns that no table of train has; topics, columns and values recur.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from experiments.tasks import SPLITS, TextData
from experiments.tasks._sql_data import inputs, pairs
from experiments.tasks._sql_tables import examples
from lora.config import InputError


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: pool (of each split, how many examples are made), {split}_examples, split_seed, metric.

    tasks.load takes its examples from the pool, so that fewer are the first of more. Raises InputError for a pool below
    1, or below the number of examples asked for.
    """
    for split in SPLITS:
        size, wanted = task["pool"][split], task[f"{split}_examples"]
        if not isinstance(size, int) or size < 1:
            raise InputError(f"task.pool.{split} must be 1 or more; got {size}")
        if wanted is not None and wanted > size:
            raise InputError(f"task.{split}_examples = {wanted}, but task.pool.{split} = {size} are made: raise it")
    train, validation, test = (islice(examples(split, task["split_seed"]), task["pool"][split]) for split in SPLITS)
    return TextData(pairs(train), inputs(validation), inputs(test), task["metric"])

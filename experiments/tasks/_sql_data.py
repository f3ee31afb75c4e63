"""Questions about tables with their queries, as data for a language model: what text2sql and wikisql share."""

from collections.abc import Iterable
from typing import NamedTuple

from datasets import Dataset

from experiments.tasks._frames import columns
from experiments.tasks._sql_query import Query, Table, identifier, sql


class Example(NamedTuple):
    """A question about a table, and the query that answers it."""

    table: Table
    question: str
    query: Query


def prompt(table: Table, question: str) -> str:
    """The context: the columns as SQL names them, which of them are numbers, and the question."""
    marks = {"text": "", "number": " (number)"}
    names = [identifier(name) + marks[type] for name, type in zip(table.columns, table.types, strict=True)]
    return f"table: {', '.join(names)}\nquestion: {question}\nSQL:"


def pairs(examples: Iterable[Example]) -> Dataset:
    """Training data: columns prompt and completion."""
    rows = ((prompt(table, question), f" {sql(query, table)}") for table, question, query in examples)
    return columns(rows, "prompt", "completion")


def inputs(examples: Iterable[Example]) -> Dataset:
    """Validation or test data: columns prompt, references, and schema: the table for the metrics."""
    rows = ((prompt(table, question), [f" {sql(query, table)}"], table.schema()) for table, question, query in examples)
    return columns(rows, "prompt", "references", "schema")

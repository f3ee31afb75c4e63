"""Questions about tables with their queries, as data for a language model: what text2sql and wikisql share."""

from collections.abc import Iterable
from typing import NamedTuple

from datasets import Dataset

from experiments.tasks._sql_query import Query, Table, identifier, sql


class Example(NamedTuple):
    """A question about a table, and the query that answers it."""

    table: Table
    question: str
    query: Query


def prompt(table: Table, question: str) -> str:
    """The context: the columns as SQL names them, which of them are numbers, and the question."""
    marks = {"text": "", "number": " (number)"}
    columns = [identifier(name) + marks[type] for name, type in zip(table.columns, table.types, strict=True)]
    return f"table: {', '.join(columns)}\nquestion: {question}\nSQL:"


def pairs(examples: Iterable[Example]) -> Dataset:
    """Training data: columns prompt and completion."""
    found = [(prompt(table, question), f" {sql(query, table)}") for table, question, query in examples]
    return Dataset.from_dict({"prompt": [p for p, _ in found], "completion": [c for _, c in found]})


def inputs(examples: Iterable[Example]) -> Dataset:
    """Validation or test data: columns prompt, references, and schema: the table for the metrics."""
    found = [
        (prompt(table, question), [f" {sql(query, table)}"], table.schema()) for table, question, query in examples
    ]
    columns = ("prompt", "references", "schema")
    return Dataset.from_dict({name: [row[index] for row in found] for index, name in enumerate(columns)})

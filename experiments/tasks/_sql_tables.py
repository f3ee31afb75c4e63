"""text2sql's examples without end: a table of a topic, a few queries on it, a question for each."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from experiments.tasks._sql_columns import Column, Topic
from experiments.tasks._sql_data import Example
from experiments.tasks._sql_query import AGGREGATES, Condition, Query, Table, Value
from experiments.tasks._sql_questions import question
from experiments.tasks._sql_topics import TOPICS
from experiments.tasks._sql_values import Words

QUESTIONS = 4  # of a table, about as many as in WikiSQL
COLUMNS, ROWS = (5, 6), (10, 16)  # the fewest and the most
CONDITIONS = (0.08, 0.42, 0.30, 0.14, 0.06)  # share of queries with none to four conditions
SHARES = dict(zip(AGGREGATES, (0.5, 0.1, 0.1, 0.14, 0.08, 0.08), strict=True))  # WikiSQL's, with fewer plain ones


def examples(split: str, seed: int) -> Iterator[Example]:
    """The examples of a split: no prompt comes twice, and no set of column names is in two splits.

    Topics are in all splits, and so are values.
    """
    rng, seen = Random(f"{seed} {split}"), set[tuple[tuple[str, ...], str]]()
    while True:
        topic = rng.choice(TOPICS)
        columns, headers = _columns(rng, topic)
        while _split(headers, seed) != split:
            columns, headers = _columns(rng, topic)
        table = _table(rng, topic, columns, headers)
        choices = {aggregate: _selectable(aggregate, columns) for aggregate in AGGREGATES}
        for _ in range(QUESTIONS):
            query = _query(rng, topic, columns, choices, table)
            text = question(rng, topic, columns, query)
            if (headers, text) not in seen:
                seen.add((headers, text))
                yield Example(table, text, query)


def _split(headers: tuple[str, ...], seed: int) -> str:
    """The split of a set of column names: a tenth of the sets for each of validation and test."""
    part = zlib.crc32(" ".join([str(seed), *sorted(headers)]).encode()) % 10
    return ("validation", "test")[part] if part < 2 else "train"


def _columns(rng: Random, topic: Topic) -> tuple[list[Column], tuple[str, ...]]:
    """Some columns of a topic in any order, mostly with the one that names the row, and a header for each."""
    key, *others = topic.columns
    columns = rng.sample(others, rng.randint(*COLUMNS) - 1)
    columns.insert(rng.randrange(len(columns)), key if rng.random() < 0.9 else _other(rng, others, columns))
    return columns, tuple(rng.choice(column.headers) for column in columns)


def _other(rng: Random, others: Sequence[Column], taken: Sequence[Column]) -> Column:
    return rng.choice([column for column in others if column not in taken])


def _table(rng: Random, topic: Topic, columns: Sequence[Column], headers: tuple[str, ...]) -> Table:
    rows = rng.randint(*ROWS)
    cells = [_cells(rng, column, rows, column is topic.columns[0]) for column in columns]
    return Table(headers, tuple(column.type for column in columns), tuple(zip(*cells, strict=True)))


def _cells(rng: Random, column: Column, rows: int, different: bool) -> list[Value]:
    """Numbers of any kind; texts that are all different, or a few, so that a condition holds for several rows."""
    if not isinstance(column.values, Words):
        return [column.values.draw(rng) for _ in range(rows)]
    texts: dict[str, None] = {}  # a set that keeps the order
    size = rows if different else rng.randint(2, min(5, column.values.size))
    while len(texts) < size:
        texts[column.values.draw(rng)] = None
    return list(texts) if different else rng.choices(list(texts), k=rows)


def _query(
    rng: Random, topic: Topic, columns: Sequence[Column], choices: Mapping[str, list[int]], table: Table
) -> Query:
    """A query whose conditions hold for one row of the table at least, drawn first; `choices` by aggregate."""
    possible = [aggregate for aggregate in AGGREGATES if choices[aggregate]]
    (aggregate,) = rng.choices(possible, [SHARES[name] for name in possible])
    selected = rng.choice(choices[aggregate])
    # Of the single row that has a name there is nothing to count or to sum up.
    free = [i for i, column in enumerate(columns) if i != selected and not (aggregate and column is topic.columns[0])]
    (count,) = rng.choices(range(5), CONDITIONS)
    row = rng.randrange(len(table.rows))
    conditions = tuple(_condition(rng, table, i, row) for i in rng.sample(free, min(count, len(free))))
    return Query(selected, aggregate, conditions)


def _selectable(aggregate: str, columns: Sequence[Column]) -> list[int]:
    """The columns that it makes sense to select with an aggregate."""
    indices = range(len(columns))
    if not aggregate:
        return list(indices)
    if aggregate == "SUM":
        return [index for index in indices if columns[index].total]
    return [index for index in indices if columns[index].type == ("text" if aggregate == "COUNT" else "number")]


def _condition(rng: Random, table: Table, index: int, row: int) -> Condition:
    """A condition that holds for the row; a number is compared with another row's."""
    cells = [cell for cells in table.rows if (cell := cells[index]) is not None]  # there are no empty ones
    value, operator = cells[row], rng.choice(("=", ">", ">", "<", "<"))
    if not isinstance(value, str) and operator != "=":
        numbers = [number for number in cells if not isinstance(number, str)]
        bounds = [number for number in numbers if (number < value if operator == ">" else number > value)]
        if bounds:
            return Condition(index, operator, rng.choice(bounds))
    return Condition(index, "=", value)

"""Text to SQL: is it the same query (logical form), and does it give the same result (execution)? Zhong et al. 2017.

Both follow WikiSQL's evaluate.py but for this. A model writes SQL here, not indices of columns and operators, so that
an output must first be SQL, and what is executed is what it wrote. Values of number columns are compared as numbers
('1998' is 1998.0), others without regard to case, as there, and to the amount of white space. Results are compared as
multisets of rows; there, as lists.

What a model writes is untrusted: see `database`.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from experiments.tasks._sql_query import AGGREGATES, OPERATORS, TABLE, Condition, Query, Table, Value, identifier
from lora.config import InputError

STEPS = 1_000_000  # instructions of SQLite's machine that a query may take, and this many more for each of the rows:
STEPS_PER_ROW = 100
LONGEST_QUERY, LONGEST_VALUE = 10_000, 1_000_000  # bytes

NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
TOKEN = re.compile(
    rf"""\s*(?:
        (?P<text>'(?:[^']|'')*') | (?P<quoted>"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]) | (?P<number>{NUMBER.pattern}(?![\w.]))
        | (?P<word>[^\W\d]\w*) | (?P<sign>[=<>();])
    )""",
    re.VERBOSE,
)


def logical_form(outputs: list[str], rows: list[Mapping[str, Any]]) -> float:
    """Share of the outputs with a reference's column, aggregate and set of conditions, in any order.

    Rows have `references` and `schema`. Raises InputError for a reference that is no query of WikiSQL's shape.
    """

    def same(output: str, row: Mapping[str, Any]) -> bool:
        table = _table(row)
        wanted = [parse(reference, table) for reference in row["references"]]
        if None in wanted:
            raise InputError(f"the data are broken: no query of WikiSQL's shape: {row['references'][0].strip()}")
        written = parse(output, table)
        return written is not None and _normal(written, table) in [_normal(query, table) for query in wanted if query]

    return _share([same(*pair) for pair in zip(outputs, rows, strict=True)])


def execution(outputs: list[str], rows: list[Mapping[str, Any]]) -> float:
    """Share of the outputs that give a reference's result on the row's table; what fails or takes too long does not.

    Rows have `references` and `schema`. Raises InputError for a reference that SQLite does not run.
    """

    def same(output: str, row: Mapping[str, Any]) -> bool:
        with closing(database(table := _table(row))) as connection:
            wanted = [run(connection, reference, table) for reference in row["references"]]
            if None in wanted:
                raise InputError(f"the data are broken: SQLite does not run: {row['references'][0].strip()}")
            written = run(connection, output, table)
            return written is not None and written in wanted

    return _share([same(*pair) for pair in zip(outputs, rows, strict=True)])


def _share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def _table(row: Mapping[str, Any]) -> Table:
    if "schema" not in row:
        raise InputError("the metrics logical_form and execution are for the tasks text2sql and wikisql alone")
    table = json.loads(row["schema"])
    return Table(tuple(table["columns"]), tuple(table["types"]), tuple(map(tuple, table["rows"])))


def parse(text: str, table: Table) -> Query | None:
    """The query that a text is; None if it is not one of WikiSQL's shape with columns of the table.

    Names may be quoted as SQLite allows, texts also in double quotes, keywords in any case, and a semicolon may end it.
    """
    kinds, tokens = _tokens(text)
    upper = [token.upper() if kind == "word" else token for kind, token in zip(kinds, tokens, strict=True)]
    columns = {_folded(name): index for index, name in enumerate(table.columns)}
    place = 0

    def accept(*wanted: str) -> bool:
        nonlocal place
        found = upper[place : place + len(wanted)] == list(wanted)
        place += len(wanted) * found
        return found

    def take(*allowed: str) -> str | None:
        nonlocal place
        if place == len(tokens) or kinds[place] not in allowed:
            return None
        place += 1
        return tokens[place - 1]

    def column() -> int | None:
        name = take("word", "quoted")
        return None if name is None else columns.get(_folded(_unquoted(name)))

    def condition() -> Condition | None:
        index, operator, value = column(), take("sign"), take("text", "quoted", "number")
        if index is None or operator not in OPERATORS or value is None:
            return None
        return Condition(index, operator, _value(value, kinds[place - 1]))

    if not accept("SELECT"):
        return None
    aggregate = next((name for name in AGGREGATES if name and accept(name, "(")), "")
    selected = column()
    if selected is None or (aggregate and not accept(")")) or not accept("FROM", TABLE.upper()):
        return None
    conditions = [condition()] if accept("WHERE") else []
    while conditions and accept("AND"):
        conditions.append(condition())
    accept(";")
    found = [item for item in conditions if item is not None]
    return Query(selected, aggregate, tuple(found)) if len(found) == len(conditions) and place == len(tokens) else None


def _tokens(text: str) -> tuple[list[str], list[str]]:
    """Kinds and texts of the tokens; a character that begins no token is one of the kind "other"."""
    kinds, tokens, place, text = list[str](), list[str](), 0, text.strip()
    while place < len(text):
        match = TOKEN.match(text, place)
        kinds.append(match.lastgroup or "" if match else "other")
        tokens.append(match[match.lastgroup or 0] if match else text[place])
        place = match.end() if match else place + 1
    return kinds, tokens


def _unquoted(token: str) -> str:
    mark = token[0]
    inner = token[1:-1] if mark in "'\"`[" else token
    return inner.replace(mark * 2, mark) if mark in "'\"" else inner


def _value(token: str, kind: str) -> Value:
    if kind != "number":
        return _unquoted(token)
    return int(token) if token.lstrip("-").isdecimal() else float(token)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _normal(query: Query, table: Table) -> tuple[int, str, frozenset[Condition]]:
    """What two queries have in common if they are the same one."""

    def normal(condition: Condition) -> Condition:
        text = _folded(str(condition.value))
        number = table.types[condition.column] == "number" and NUMBER.fullmatch(text)
        return condition._replace(value=float(text) if number else text)

    return query.column, query.aggregate, frozenset(map(normal, query.conditions))


def database(table: Table) -> sqlite3.Connection:
    """The table in memory, in a database on which an output can do nothing but read that table.

    Of all that SQLite can do, its authorizer allows to select, to read the table's columns, and the five aggregates: no
    file, no other table, no recursion, no extension. Length and number of steps are limited. Raises InputError if the
    table cannot be built.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.create_collation("folded", _compare)
    kinds = {"text": "TEXT COLLATE folded", "number": "REAL"}
    columns = [f"{identifier(name)} {kinds[type]}" for name, type in zip(table.columns, table.types, strict=True)]
    try:
        connection.execute(f"CREATE TABLE {TABLE} ({', '.join(columns)})")
        places = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {TABLE} VALUES ({places})", table.rows)
    except (sqlite3.Error, ValueError, OverflowError) as error:
        connection.close()
        raise InputError(
            f"the data are broken: SQLite cannot hold the table {', '.join(table.columns)}: {error}"
        ) from error
    for pragma in ("temp_store = MEMORY", "query_only = ON"):
        connection.execute(f"PRAGMA {pragma}")
    for limit, most in (
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, LONGEST_QUERY),
        (sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    ):
        connection.setlimit(limit, most)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(lambda: 1, STEPS + STEPS_PER_ROW * len(table.rows))
    return connection


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    allowed = (
        action == sqlite3.SQLITE_SELECT
        or (action == sqlite3.SQLITE_READ and first == TABLE)
        or (action == sqlite3.SQLITE_FUNCTION and str(second).upper() in AGGREGATES)
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _compare(one: str, other: str) -> int:
    one, other = _folded(one), _folded(other)
    return (one > other) - (one < other)


def run(connection: sqlite3.Connection, text: str, table: Table) -> Counter[tuple[Any, ...]] | None:
    """The rows of a result, as a multiset: texts folded, numbers to 9 digits. None if it fails or has too many."""
    most = len(table.rows) + 1  # a query of WikiSQL's shape gives a row for each of the table's, or one for all
    try:
        cursor = connection.execute(text)
        rows = cursor.fetchmany(most + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError):  # Warning: several statements; ValueError: a null character
        return None
    if cursor.description is None or len(rows) > most:  # without description there was no query, but a comment, say
        return None
    return Counter(tuple(map(_cell, row)) for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _folded(value)
    return float(f"{value:.9g}") if isinstance(value, int | float) else value

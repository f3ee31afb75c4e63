"""SQLite as a place where an untrusted query can do nothing but read one table, within limits.

The limits here are of what SQLite counts: steps, lengths, memory. Sorting and comparing are no steps: a process with a
deadline, `_sql_worker`, holds what is run here.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

from experiments.tasks._sql_query import AGGREGATES, TABLE, Table, identifier
from lora.config import InputError

STEPS = 1_000_000  # instructions of SQLite's machine that a query may take, and this many more for each of the rows:
STEPS_PER_ROW = 100
LONGEST_QUERY, LONGEST_VALUE = 10_000, 1_000_000  # bytes
HEAP = 2**27  # bytes that SQLite may hold, tables that it sorts included


def folded(text: str) -> str:
    """A text as texts are compared: without regard to case and to the amount of white space."""
    return " ".join(text.lower().split())


def database(table: Table) -> sqlite3.Connection:
    """The table in memory, in a database on which an output can do nothing but read that table.

    Of all that SQLite can do, its authorizer allows to select, to read the table's columns, and the five aggregates: no
    file, no other table, no recursion, no extension. Length, memory and number of steps are limited. Raises InputError
    if the table cannot be built.
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
    for pragma in ("temp_store = MEMORY", f"hard_heap_limit = {HEAP}", "query_only = ON"):
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
    one, other = folded(one), folded(other)
    return (one > other) - (one < other)


def run(connection: sqlite3.Connection, text: str, table: Table) -> Counter[tuple[Any, ...]] | None:
    """The rows of a result, as a multiset: texts folded, numbers to 9 digits. None if it fails or has too many."""
    most = len(table.rows) + 1  # a query of WikiSQL's shape gives a row for each of the table's, or one for all
    try:
        cursor = connection.execute(text)
        rows = cursor.fetchmany(most + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
        return None  # Warning: several statements; ValueError: a null character
    if cursor.description is None or len(rows) > most:  # without description there was no query, but a comment, say
        return None
    return Counter(tuple(map(_cell, row)) for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return folded(value)
    return float(f"{value:.9g}") if isinstance(value, int | float) else value

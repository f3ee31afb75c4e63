"""Text to SQL: is it the same query (logical form), and does it give the same result (execution)? Zhong et al. 2017.

Both follow WikiSQL's evaluate.py but for this. A model writes SQL here, not indices of columns and operators, so that
an output must first be SQL, and what is executed is what it wrote. Values of number columns are compared as numbers
('1998' is 1998.0), others without regard to case, as there, and to the amount of white space. Results are compared as
multisets of rows; there, as lists.

What a model writes is untrusted: it is executed by a process of its own, see `_sandbox` and `tasks._sql_engine`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from experiments.metrics.text_metrics._sandbox import Sandbox
from experiments.tasks._sql_engine import folded
from experiments.tasks._sql_query import AGGREGATES, OPERATORS, TABLE, Condition, Query, Table, Value
from lora.config import InputError

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

    with Sandbox() as sandbox:
        return _share(
            [sandbox.same(output, row["references"], _table(row)) for output, row in zip(outputs, rows, strict=True)]
        )


def _share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def _table(row: Mapping[str, Any]) -> Table:
    if "schema" not in row:
        raise InputError("the metrics logical_form and execution are for the tasks text2sql and wikisql alone")
    return Table.of(json.loads(row["schema"]))


def parse(text: str, table: Table) -> Query | None:
    """The query that a text is; None if it is not one of WikiSQL's shape with columns of the table.

    Names may be quoted as SQLite allows, texts also in double quotes, keywords in any case, and a semicolon may end it.
    """
    kinds, tokens = _tokens(text)
    upper = [token.upper() if kind == "word" else token for kind, token in zip(kinds, tokens, strict=True)]
    columns = {folded(name): index for index, name in enumerate(table.columns)}
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
        return None if name is None else columns.get(folded(_unquoted(name)))

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


def _normal(query: Query, table: Table) -> tuple[int, str, frozenset[Condition]]:
    """What two queries have in common if they are the same one."""

    def normal(condition: Condition) -> Condition:
        text = folded(str(condition.value))
        number = table.types[condition.column] == "number" and NUMBER.fullmatch(text)
        return condition._replace(value=float(text) if number else text)

    return query.column, query.aggregate, frozenset(map(normal, query.conditions))

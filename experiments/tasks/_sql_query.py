"""A table, a query of WikiSQL's shape on it, and how a language model reads and writes them (Zhong et al. 2017).

SELECT [aggregate] column FROM t [WHERE column = | > | < value AND …], of one table.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

Value = str | int | float

TABLE = "t"
TYPES = ("text", "number")
AGGREGATES = ("", "MAX", "MIN", "COUNT", "SUM", "AVG")  # in the order of WikiSQL's Query.agg_ops
OPERATORS = ("=", ">", "<")  # in the order of WikiSQL's Query.cond_ops

# SQLite's keywords (sqlite.org/lang_keywords.html): a column of such a name is quoted.
_KEYWORDS = (
    "ABORT ACTION ADD AFTER ALL ALTER ALWAYS ANALYZE AND AS ASC ATTACH AUTOINCREMENT BEFORE BEGIN BETWEEN BY "
    "CASCADE CASE CAST CHECK COLLATE COLUMN COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT CURRENT_DATE "
    "CURRENT_TIME CURRENT_TIMESTAMP DATABASE DEFAULT DEFERRABLE DEFERRED DELETE DESC DETACH DISTINCT DO DROP EACH "
    "ELSE END ESCAPE EXCEPT EXCLUDE EXCLUSIVE EXISTS EXPLAIN FAIL FALSE FILTER FIRST FOLLOWING FOR FOREIGN FROM "
    "FULL GENERATED GLOB GROUP GROUPS HAVING IF IGNORE IMMEDIATE IN INDEX INDEXED INITIALLY INNER INSERT INSTEAD "
    "INTERSECT INTO IS ISNULL JOIN KEY LAST LEFT LIKE LIMIT MATCH MATERIALIZED NATURAL NO NOT NOTHING NOTNULL "
    "NULL NULLS OF OFFSET ON OR ORDER OTHERS OUTER OVER PARTITION PLAN PRAGMA PRECEDING PRIMARY QUERY RAISE RANGE "
    "RECURSIVE REFERENCES REGEXP REINDEX RELEASE RENAME REPLACE RESTRICT RETURNING RIGHT ROLLBACK ROW ROWS "
    "SAVEPOINT SELECT SET TABLE TEMP TEMPORARY THEN TIES TO TRANSACTION TRIGGER TRUE UNBOUNDED UNION UNIQUE "
    "UPDATE USING VACUUM VALUES VIEW VIRTUAL WHEN WHERE WINDOW WITH WITHIN WITHOUT"
)
KEYWORDS = frozenset(_KEYWORDS.split())


@dataclass(frozen=True)
class Table:
    """Columns with their types, text or number, and rows of cells: texts, numbers, None where there is nothing."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Value | None, ...], ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Table":
        """The table of the fields of `schema`."""
        return cls(tuple(fields["columns"]), tuple(fields["types"]), tuple(map(tuple, fields["rows"])))

    def schema(self) -> str:
        """The table as JSON, from which the metrics build it."""
        return json.dumps(asdict(self), ensure_ascii=False)


class Condition(NamedTuple):
    """The column's index, one of OPERATORS, and what the cell is compared with."""

    column: int
    operator: str
    value: Value


@dataclass(frozen=True)
class Query:
    """The index of the selected column, one of AGGREGATES, and the conditions, all of which must hold."""

    column: int
    aggregate: str
    conditions: tuple[Condition, ...]


def identifier(name: str) -> str:
    """A column's name as SQL: in double quotes unless it is a word of ASCII letters, digits and _, and no keyword."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.upper() not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def literal(value: Value) -> str:
    """A value as SQL: a text in single quotes, a number without, and without decimals where it is whole."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(int(value)) if float(value).is_integer() else repr(value)


def sql(query: Query, table: Table) -> str:
    """The query in the one form that a model learns to write."""
    names = [identifier(name) for name in table.columns]
    selected = names[query.column]
    text = f"SELECT {query.aggregate}({selected})" if query.aggregate else f"SELECT {selected}"
    conditions = [f"{names[column]} {operator} {literal(value)}" for column, operator, value in query.conditions]
    return f"{text} FROM {TABLE}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")

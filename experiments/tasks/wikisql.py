"""WikiSQL: 81k questions about 24k tables of Wikipedia (Zhong et al. 2017, arXiv:1709.00103), the paper's Table 4.

The official splits, from the hub or from the JSONL files of github.com/salesforce/WikiSQL. A query is written as SQL
(`_sql_query`): columns by name, where two columns of a table have one name the later ones numbered, and the value of a
number column as the number that WikiSQL's dbengine makes of it. So are the tables' cells.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from experiments.tasks import TextData
from experiments.tasks._official import PARQUET, folder, from_hub
from experiments.tasks._reading import json_lines
from experiments.tasks._sql_data import Example, inputs, pairs
from experiments.tasks._sql_query import AGGREGATES, OPERATORS, Condition, Query, Table, Value
from lora.errors import InputError, is_count

HUB = "Salesforce/wikisql"
FILES = {"train": "train", "validation": "dev", "test": "test"}
TYPES = {"text": "text", "real": "number"}


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: data_dir (a folder with WikiSQL's JSONL files; null: the hub), metric.

    Raises InputError, with file and line, for files that are missing or not in WikiSQL's format, and where the hub
    cannot be reached.
    """
    splits = _from_hub() if task["data_dir"] is None else _from_folder(folder(task["data_dir"]))
    for split, examples in splits.items():
        if not examples:
            raise InputError(f"WikiSQL has no {split} questions")
    validation, test = inputs(splits["validation"]), inputs(splits["test"])
    return TextData(pairs(splits["train"]), validation, test, task["metric"])


def _from_hub() -> dict[str, list[Example]]:
    files = "WikiSQL's train.jsonl, train.tables.jsonl, and so on for dev and test"
    data = from_hub(HUB, files, revision=PARQUET)

    def examples(split: str) -> Iterator[Example]:
        for number, row in enumerate(data[split], start=1):
            conds = row["sql"]["conds"]
            triples = zip(conds["column_index"], conds["operator_index"], conds["condition"], strict=True)
            where = f"{HUB}, {split}: row {number}"
            yield example(row["question"], row["sql"] | {"conds": list(triples)}, table(row["table"], where), where)

    return {split: list(examples(split)) for split in FILES}


def _from_folder(place: Path) -> dict[str, list[Example]]:
    def examples(name: str) -> Iterator[Example]:
        file = place / f"{name}.tables.jsonl"
        tables = {str(raw.get("id")): table(raw, where) for where, raw in _lines(file)}
        for where, raw in _lines(place / f"{name}.jsonl"):
            if str(raw.get("table_id")) not in tables:
                raise InputError(f"{where}: there is no table '{raw.get('table_id')}' in {file}")
            yield example(raw.get("question"), raw.get("sql"), tables[str(raw["table_id"])], where)

    return {split: list(examples(name)) for split, name in FILES.items()}


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with its place."""
    for number, raw in json_lines(path):
        if not isinstance(raw, dict):
            raise InputError(f"{path}: line {number} is not a JSON object")
        yield f"{path}: line {number}", raw


def table(raw: Mapping[str, Any], where: str) -> Table:
    """A table of WikiSQL: header, types (text or real) and rows."""
    header, types, rows = raw.get("header"), raw.get("types"), raw.get("rows")
    if not _texts(header) or not _texts(types) or not isinstance(rows, list):
        raise InputError(f"{where}: a table should have the lists header, types and rows")
    if len(header) != len(types) or not set(types) <= set(TYPES):
        raise InputError(f"{where}: types should be 'text' or 'real' for each of the {len(header)} columns")
    if any(not isinstance(row, list) or len(row) != len(header) for row in rows):
        raise InputError(f"{where}: each row should have {len(header)} cells, as the header has")
    kinds = tuple(TYPES[type] for type in types)
    cells = tuple(tuple(map(_cell, row, kinds)) for row in rows)
    return Table(_distinct(header), kinds, cells)


def _texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _cell(raw: Any, kind: str) -> Value | None:
    if raw is None:
        return None
    number = _number(raw) if kind == "number" else None
    return " ".join(str(raw).split()) if number is None else number


def _distinct(header: list[str]) -> tuple[str, ...]:
    """Names on one line, none of them empty, and no two the same for SQL, which ignores case."""
    names: dict[str, str] = {}
    for raw in header:
        first = name = " ".join(raw.split()) or "column"
        count = 1
        while name.lower() in names:
            count += 1
            name = f"{first} {count}"
        names[name.lower()] = name
    return tuple(names.values())


def example(question: Any, query: Any, on: Table, where: str) -> Example:
    """A question with its query: sel is a column, agg one of AGGREGATES, conds a list of [column, operator, value]."""
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: there is no question")
    if not isinstance(query, dict) or not isinstance(query.get("conds"), list):
        raise InputError(f"{where}: sql should have sel, agg and the list conds")
    column = _index(query.get("sel"), len(on.columns), f"{where}: sql.sel")
    aggregate = AGGREGATES[_index(query.get("agg"), len(AGGREGATES), f"{where}: sql.agg")]
    conditions = tuple(_condition(raw, on, f"{where}: sql.conds") for raw in query["conds"])
    return Example(on, " ".join(question.split()), Query(column, aggregate, conditions))


def _condition(raw: Any, on: Table, where: str) -> Condition:
    if not isinstance(raw, list | tuple) or len(raw) != 3 or not isinstance(raw[2], str | int | float):
        raise InputError(f"{where}: {raw!r} should be [column, operator, value]")
    column = _index(raw[0], len(on.columns), f"{where}: the column")
    operator = OPERATORS[_index(raw[1], len(OPERATORS), f"{where}: the operator")]
    text = " ".join(str(raw[2]).split())
    return Condition(column, operator, _first_number(text) if on.types[column] == "number" else text)


def _first_number(text: str) -> Value:
    """The number that a text is, or else, as in dbengine, the first one in it; a text without numbers as it is."""
    number, found = _number(text), re.search(r"[-+]?\d*\.\d+|\d+", text)
    return number if number is not None else float(found[0]) if found else text


def _number(raw: Any) -> float | None:
    """The number that a text is, commas between thousands included; None if it is not one."""
    text = str(raw).strip().replace(",", "")
    return float(text) if re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", text) else None


def _index(value: Any, size: int, what: str) -> int:
    if not is_count(value, 0) or value >= size:
        raise InputError(f"{what} is {value!r}: it should be one of 0 to {size - 1}")
    return value

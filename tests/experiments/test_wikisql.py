"""WikiSQL in its own files, and from the hub; its metrics against an evaluation written as WikiSQL's is."""

import json
import sqlite3
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import tasks
from experiments.metrics.text_metrics import sql as metrics
from experiments.tasks import _sql_engine as engine
from experiments.tasks._sql_query import Query, Table, sql
from experiments.tasks._sql_tables import examples
from experiments.tasks.wikisql import example, table
from lora.config import InputError

PLATES = {
    "id": "1-1000181-1",
    "header": ["State/territory", "Format", "Current\nslogan", "Series", "series", "No.", "order", ""],
    "types": ["text", "text", "text", "text", "text", "real", "real", "text"],
    "rows": [
        ["Australian  Capital Territory", "Yaa·nna", 'It\'s "ours"', "YIL·00A", "a", "1,200", 1, "x"],
        ["New South Wales", "aa·nn·aa", "NSW", "BX·99·HI", "b", 900.5, 2.0, "x"],
        ["New South Wales", "aaa·nna", "NSW", "CPX·12A", "c", "n/a", 3, "y"],
    ],
}
POINTS = {"id": "2-1", "header": ["Name", "Year"], "types": ["text", "real"], "rows": [["Ann", 1998], ["Bob", 1980]]}
QUESTIONS = [
    (
        "1-1000181-1",
        "What is the  series of new south wales?",
        {"sel": 4, "agg": 0, "conds": [[0, 0, "new south wales"]]},
    ),
    ("1-1000181-1", "How many over 1,000?", {"sel": 2, "agg": 3, "conds": [[5, 1, "1,000"], [2, 0, 'It\'s "ours"']]}),
    ("1-1000181-1", "Order below 2.5?", {"sel": 6, "agg": 1, "conds": [[6, 2, 2.5]]}),
    ("2-1", "Who was there in the year 1998?", {"sel": 0, "agg": 0, "conds": [[1, 0, "Year 1998"]]}),
    ("2-1", "All the names", {"sel": 0, "agg": 0, "conds": []}),
]
PROMPT = (
    'table: "State/territory", Format, "Current slogan", Series, "series 2", "No." (number), "order" (number), "column"'
)
GOLD = [
    'SELECT "series 2" FROM t WHERE "State/territory" = \'new south wales\'',
    'SELECT COUNT("Current slogan") FROM t WHERE "No." > 1000 AND "Current slogan" = \'It\'\'s "ours"\'',
    'SELECT MAX("order") FROM t WHERE "order" < 2.5',
    "SELECT Name FROM t WHERE Year = 1998",
    "SELECT Name FROM t",
]
RESULTS: list[list[Any]] = [["b", "c"], [1], [2], ["ann"], ["ann", "bob"]]


def load(**fields: Any) -> tasks.TextData:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        task = OmegaConf.to_container(compose(overrides=["+task=wikisql"]).task, resolve=True)
    assert isinstance(task, dict) and set(fields) <= set(task)
    data = tasks.load({**{str(key): value for key, value in task.items()}, **fields})
    assert isinstance(data, tasks.TextData)
    return data


def lines(path: Path, objects: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in objects), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    asked = [{"phase": 1, "table_id": i, "question": text, "sql": query} for i, text, query in QUESTIONS]
    for name, part in (("train", asked), ("dev", asked[:2]), ("test", asked)):
        lines(tmp_path / f"{name}.jsonl", part)
        lines(tmp_path / f"{name}.tables.jsonl", [PLATES, POINTS])
    return tmp_path


def check(data: tasks.TextData) -> None:
    assert (data.metric, data.more_metrics, data.choices) == ("logical_form", ("execution",), ())
    assert [len(part) for part in (data.train, data.validation, data.test)] == [5, 2, 5]
    assert Counter(data.train["completion"]) == Counter(f" {gold}" for gold in GOLD)
    assert f"{PROMPT}\nquestion: What is the series of new south wales?\nSQL:" in data.train["prompt"][:]
    rows = {row["references"][0].strip(): row for row in data.test}
    assert set(rows) == set(GOLD)
    for gold, result in zip(GOLD, RESULTS, strict=True):
        on = metrics._table(rows[gold])
        connection = engine.database(on)
        assert engine.run(connection, gold, on) == Counter((value,) for value in result)
        connection.close()
    ordered = [rows[gold] for gold in GOLD]
    assert metrics.logical_form(GOLD, ordered) == metrics.execution(GOLD, ordered) == 1
    same = 'select max("ORDER") from t where "order"<\'2.5\''
    wrong = "SELECT Series FROM t WHERE \"State/territory\" = 'New South Wales'"
    outputs = [wrong, GOLD[1], same, "SELECT Name FROM t WHERE Year > 1990", "SELECT Name"]
    assert metrics.logical_form(outputs, ordered) == 0.4
    assert metrics.execution(outputs, ordered) == 0.6


def test_from_a_folder(folder: Path) -> None:
    check(load(data_dir=str(folder)))
    assert len(load(data_dir=str(folder), test_examples=3).test) == 3
    with initialize_config_module("experiments.conf", version_base="1.3"):
        task = OmegaConf.to_container(compose(overrides=["+task=wikisql"]).task, resolve=True)
    assert isinstance(task, dict)
    named = {**{str(key): value for key, value in task.items()}, "data_dir": str(folder)}
    before = tasks.resolve(named)["data_sha256"]
    lines(folder / "dev.tables.jsonl", [POINTS, PLATES])
    assert tasks.resolve(named)["data_sha256"] != before


def test_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parquet files: the table with each question, cells and values as texts, conditions as three lists."""
    tables = {
        raw["id"]: {**raw, "rows": [[str(cell) for cell in row] for row in raw["rows"]]} for raw in (PLATES, POINTS)
    }

    def row(identifier: str, question: str, query: dict[str, Any]) -> dict[str, Any]:
        names = ("column_index", "operator_index", "condition")
        conds = {name: [cond[i] for cond in query["conds"]] for i, name in enumerate(names)}
        conds["condition"] = [str(value) for value in conds["condition"]]
        return {"phase": 1, "question": question, "table": tables[identifier], "sql": {**query, "conds": conds}}

    rows = [row(*asked) for asked in QUESTIONS]
    parts = {"train": rows, "validation": rows[:2], "test": rows}
    hub = DatasetDict({split: Dataset.from_list(part) for split, part in parts.items()})
    asked = []

    def load_dataset(*args: str, **options: str) -> DatasetDict:
        asked.append((args, options))
        return hub

    monkeypatch.setattr("experiments.tasks._official.load_dataset", load_dataset)
    check(load())
    assert asked == [(("Salesforce/wikisql",), {"revision": "refs/convert/parquet"})]


def test_without_the_hub_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: str, **__: str) -> None:
        raise ConnectionError("Couldn't reach the Hub\nat all")

    monkeypatch.setattr("experiments.tasks._official.load_dataset", offline)
    with pytest.raises(
        InputError, match="cannot load Salesforce/wikisql .* set task.data_dir to a folder with"
    ) as caught:
        load()
    assert "\n" not in str(caught.value)


ASKED = {"table_id": "2-1", "question": "Who?", "sql": {"sel": 0, "agg": 0, "conds": [[1, 0, 1998]]}}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dev.jsonl", None, "cannot read .*dev.jsonl: No such file"),
        ("test.tables.jsonl", None, "cannot read .*test.tables.jsonl: No such file"),
        ("dev.jsonl", "\n", "WikiSQL has no validation questions"),
        ("dev.jsonl", [ASKED, "{"], "dev.jsonl: line 2 is not JSON: Expecting property"),
        ("dev.jsonl", [ASKED, "[1]"], "dev.jsonl: line 2 is not a JSON object"),
        ("dev.jsonl", b'{"a": "\xff"}', "dev.jsonl is not UTF-8"),
        (
            "dev.jsonl",
            [ASKED, {**ASKED, "table_id": "9"}],
            "dev.jsonl: line 2: there is no table '9' in .*dev.tables.jsonl",
        ),
        ("dev.jsonl", [{**ASKED, "question": " "}], "dev.jsonl: line 1: there is no question"),
        ("dev.jsonl", [{**ASKED, "sql": None}], "dev.jsonl: line 1: sql should have sel, agg and the list conds"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": 0, "agg": 0}}], "line 1: sql should have sel, agg and the list conds"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": 2, "agg": 0, "conds": []}}], "line 1: sql.sel is 2: .* one of 0 to 1"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": 0, "agg": 6, "conds": []}}], "line 1: sql.agg is 6: .* one of 0 to 5"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": "0", "agg": 0, "conds": []}}], "line 1: sql.sel is '0': it should be"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": 0, "agg": 0, "conds": [[0, 3, "x"]]}}], "sql.conds: the operator is 3"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": 0, "agg": 0, "conds": [[-1, 0, "x"]]}}], "sql.conds: the column is -1"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": 0, "agg": 0, "conds": [[0, 0]]}}], r"sql.conds: \[0, 0\] should be"),
        ("dev.jsonl", [{**ASKED, "sql": {"sel": 0, "agg": 0, "conds": [[0, 0, None]]}}], "None\\] should be"),
        ("dev.tables.jsonl", [POINTS, "x"], "dev.tables.jsonl: line 2 is not JSON"),
        ("dev.tables.jsonl", [{**POINTS, "rows": 3}], "line 1: a table should have the lists header, types and rows"),
        ("dev.tables.jsonl", [{**POINTS, "header": ["a", 1]}], "line 1: a table should have the lists header, types"),
        (
            "dev.tables.jsonl",
            [{**POINTS, "types": ["text", "int"]}],
            "types should be 'text' or 'real' for each of the 2",
        ),
        ("dev.tables.jsonl", [{**POINTS, "types": ["text"]}], "types should be 'text' or 'real' for each of the 2"),
        ("dev.tables.jsonl", [{**POINTS, "rows": [["x"]]}], "line 1: each row should have 2 cells, as the header has"),
    ],
)
def test_bad_files_are_one_line(file: str, content: Any, message: str, folder: Path) -> None:
    (folder / file).unlink()
    if isinstance(content, list):
        texts = [item if isinstance(item, str) else json.dumps(item) for item in content]
        (folder / file).write_text("\n".join(texts))
    elif content is not None:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        load(data_dir=str(folder))
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task.data_dir: there is no folder"):
        load(data_dir=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["A", "a", "A"], ("A", "a 2", "A 3")),
        (["A 2", "A", "a"], ("A 2", "A", "a 3")),
        (["", " ", "column"], ("column", "column 2", "column 3")),
        (["É", "é"], ("É", "é 2")),
    ],
)
def test_column_names_are_told_apart(header: list[str], names: tuple[str, ...]) -> None:
    raw = {"header": header, "types": ["text"] * len(header), "rows": [["x"] * len(header)]}
    assert table(raw, "here").columns == names


@pytest.mark.parametrize(
    ("raw", "value"),
    [("1,234.5", 1234.5), ("-5", -5), (7, 7), ("12%", 12), ("about 3.5 or 4", 3.5), ("none", "none"), ("1e3", 1000)],
)
def test_values_of_number_columns(raw: str | float, value: float | str) -> None:
    on = Table(("n",), ("number",), ((1.0,),))
    _, _, query = example("?", {"sel": 0, "agg": 0, "conds": [[0, 0, raw]]}, on, "here")
    assert query.conditions[0].value == value
    assert metrics.parse(sql(query, on), on) == query


# An oracle that evaluates as evaluate.py does: indices, never SQL of a model's; everything in lower case.
def official_result(on: Table, query: Query) -> list[Any]:
    connection = sqlite3.connect(":memory:")
    kinds = {"text": "text", "number": "real"}
    names = [f"col{i} {kinds[type]}" for i, type in enumerate(on.types)]
    connection.execute(f"CREATE TABLE table_1 ({', '.join(names)})")
    lower = [[cell.lower() if isinstance(cell, str) else cell for cell in row] for row in on.rows]
    connection.executemany(f"INSERT INTO table_1 VALUES ({','.join('?' * len(names))})", lower)
    select = f"{query.aggregate}(col{query.column})" if query.aggregate else f"col{query.column}"
    values = [value.lower() if isinstance(value, str) else value for _, _, value in query.conditions]
    where = " AND ".join(f"col{column} {operator} ?" for column, operator, _ in query.conditions)
    found = connection.execute(
        f"SELECT {select} FROM table_1" + (f" WHERE {where}" if where else ""), values
    ).fetchall()
    connection.close()
    return [value for (value,) in found]


def official_form(query: Query) -> tuple[int, str, set[tuple[int, str, str]]]:
    return query.column, query.aggregate, {(column, op, str(value).lower()) for column, op, value in query.conditions}


@pytest.mark.usefixtures("one_sandbox")
def test_as_the_official_evaluation() -> None:
    """Pairs of queries on one table, most of them near to each other: same form, same result, as the oracle says."""
    rng, found = Random(0), Counter[tuple[bool, bool]]()
    for on, _, gold in islice(examples("train", 3), 400):
        conditions = list(gold.conditions)
        rng.shuffle(conditions)
        if rng.random() < 0.3:
            conditions = conditions[:-1]
        if conditions and rng.random() < 0.3:
            value = conditions[0].value
            other = value.swapcase() if isinstance(value, str) else rng.choice([value, value + 1])
            conditions[0] = conditions[0]._replace(value=other)
        if rng.random() < 0.3:
            aggregate = rng.choice(["", "MAX", "MIN", "COUNT"])
            written = Query(gold.column, aggregate, tuple(conditions))
        else:
            written = Query(gold.column, gold.aggregate, tuple(conditions))
        row = [{"references": [sql(gold, on)], "schema": on.schema()}]
        form, result = official_form(written) == official_form(gold), False
        expected, given = official_result(on, gold), official_result(on, written)
        result = sorted(map(str, expected)) == sorted(map(str, given))
        assert metrics.logical_form([sql(written, on)], row) == form, (sql(gold, on), sql(written, on))
        assert metrics.execution([sql(written, on)], row) == result, (sql(gold, on), sql(written, on))
        found[form, result] += 1
    assert min(found[key] for key in ((True, True), (False, True), (False, False))) > 20
    assert found[True, False] == 0

"""text2sql: generated questions, their queries, and the two metrics, for which what a model writes is untrusted."""

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzzing import outcomes
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import tasks
from experiments.metrics.text_metrics import sql as metrics
from experiments.metrics.text_metrics._sandbox import Sandbox
from experiments.tasks import _sql_engine as engine
from experiments.tasks._sql_data import Example, inputs
from experiments.tasks._sql_query import (
    AGGREGATES,
    KEYWORDS,
    OPERATORS,
    Condition,
    Query,
    Table,
    identifier,
    literal,
    sql,
)
from experiments.tasks._sql_tables import examples
from experiments.tasks._sql_topics import TOPICS
from lora.config import InputError

SAMPLE = {
    split: list(islice(examples(split, 0), size))
    for split, size in (("train", 3000), ("validation", 600), ("test", 600))
}
EVERY = [example for part in SAMPLE.values() for example in part]


def load(**fields: Any) -> tasks.TextData:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        task = OmegaConf.to_container(compose(overrides=["+task=text2sql"]).task, resolve=True)
    assert isinstance(task, dict) and set(fields) <= set(task)
    task["pool"] = {"train": 300, "validation": 40, "test": 60}
    data = tasks.load({**{str(key): value for key, value in task.items()}, **fields})
    assert isinstance(data, tasks.TextData)
    return data


# The generated data.
def test_the_task() -> None:
    data = load()
    assert (data.metric, data.more_metrics, data.choices) == ("logical_form", ("execution",), ())
    assert [len(part) for part in (data.train, data.validation, data.test)] == [300, 40, 60]
    assert data.train.column_names == ["prompt", "completion"]
    assert data.test.column_names == ["prompt", "references", "schema"]
    for prompt, completion in zip(data.train["prompt"], data.train["completion"], strict=True):
        assert re.fullmatch(r"table: \w+( \(number\))?(, \w+( \(number\))?){4,5}\nquestion: \S.*\S\nSQL:", prompt)
        assert completion.startswith(" SELECT ")
    rows, gold = data.test.to_list(), [row["references"][0] for row in data.test]
    assert metrics.logical_form(gold, rows) == metrics.execution(gold, rows) == 1.0
    assert metrics.logical_form(gold[1:] + gold[:1], rows) == 0.0


def test_fewer_examples_are_the_first_of_more_and_the_seed_decides() -> None:
    data = load()
    few = load(train_examples=7, test_examples=5)
    assert few.train[:] == data.train[:7]
    assert few.test[:] == data.test[:5]
    assert load().train[:] == data.train[:]
    other = load(split_seed=1)
    assert not set(other.train["prompt"]) & set(data.train["prompt"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_examples": 301}, "task.train_examples = 301, but task.pool.train = 300 are made: raise it"),
        ({"pool": {"train": 0, "validation": 1, "test": 1}}, "task.pool.train must be 1 or more; got 0"),
        ({"pool": {"train": 1, "validation": None, "test": 1}}, "task.pool.validation must be 1 or more; got None"),
    ],
)
def test_bad_sizes(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(**fields)


def test_no_table_is_in_two_splits_and_no_prompt_comes_twice() -> None:
    tables = {split: {frozenset(example.table.columns) for example in part} for split, part in SAMPLE.items()}
    assert not (tables["train"] & tables["validation"] or tables["train"] & tables["test"])
    assert not tables["validation"] & tables["test"]
    asked = Counter((example.table.columns, example.question) for example in EVERY)
    assert max(asked.values()) == 1
    for part in SAMPLE.values():  # what differs is the table: topics are in all splits
        used = {name for example in part for name in example.table.columns}
        assert all(used & set(topic.columns[0].headers) for topic in TOPICS)


def test_queries_are_of_every_kind() -> None:
    """WikiSQL's six aggregates, three operators and up to four conditions."""
    assert {example.query.aggregate for example in EVERY} == set(AGGREGATES)
    assert {operator for example in EVERY for _, operator, _ in example.query.conditions} == set(OPERATORS)
    counts = Counter(len(example.query.conditions) for example in EVERY)
    assert set(counts) == {0, 1, 2, 3, 4}
    assert min(counts.values()) > 0.03 * len(EVERY)
    for table, _, query in EVERY:
        used = [condition.column for condition in query.conditions]
        assert len({query.column, *used}) == len(used) + 1
        assert query.aggregate not in ("MAX", "MIN", "SUM", "AVG") or table.types[query.column] == "number"
        assert all(operator == "=" or table.types[index] == "number" for index, operator, _ in query.conditions)


def test_what_is_compared_is_in_the_question_word_for_word_and_in_order() -> None:
    for example in EVERY:
        places = []
        for _, _, value in example.query.conditions:
            text = re.escape(literal(value) if not isinstance(value, str) else value)
            found = [match.start() for match in re.finditer(rf"(?<!\w){text}(?![\w.]*\d)", example.question)]
            assert found, (example.question, value)
            places.append(found)
        assert all(min(before) < max(after) for before, after in pairwise(places))


def test_questions_vary() -> None:
    """The words around the values: hundreds of forms, and none that is common."""
    forms = Counter(
        re.sub("|".join([re.escape(str(c.value)) for c in e.query.conditions] or ["$^"]), "#", e.question)
        for e in EVERY
    )
    assert len(forms) > 0.9 * len(EVERY)
    starts = Counter(" ".join(example.question.lower().split()[:2]) for example in EVERY)
    assert len(starts) > 100 and max(starts.values()) < 0.15 * len(EVERY)


def test_gold_queries_run_and_say_something() -> None:
    for table, _, query in EVERY[::4]:
        with closing(engine.database(table)) as connection:
            result = engine.run(connection, sql(query, table), table)
        assert result is not None
        assert sum(result.values()) >= 1 and (None,) not in result
        if query.aggregate:
            assert sum(result.values()) == 1


def test_a_wrong_condition_mostly_changes_the_result() -> None:
    """Else execution would tell nothing: the same queries without their last condition."""
    asked = [example for example in SAMPLE["test"] if example.query.conditions]
    rows = inputs(asked).to_list()
    shorter = [sql(Query(q.column, q.aggregate, q.conditions[:-1]), table) for table, _, q in asked]
    assert metrics.logical_form(shorter, rows) == 0
    assert metrics.execution(shorter, rows) < 0.35


def test_topics_are_sound() -> None:
    assert len(TOPICS) >= 12
    for topic in TOPICS:
        for names in ("headers", "phrases"):
            all_names = [name for column in topic.columns for name in getattr(column, names)]
            assert len(set(all_names)) == len(all_names), topic.one  # a name means one column of a topic
        for column in topic.columns:
            assert column.phrases
            assert all(identifier(header) == header for header in column.headers)
            assert all(form.count("{}") == 1 for form in (*column.equal, *column.more, *column.less))
            assert (column.type == "text") == bool(column.many)
            assert column.type == "number" or not (column.more or column.less or column.total)


# Logical form.
@pytest.mark.parametrize("example", [SAMPLE["test"][i] for i in range(0, 600, 60)])
def test_the_order_of_conditions_does_not_matter(example: Example) -> None:
    row = inputs([example]).to_list()
    table, _, query = example
    turned = sql(Query(query.column, query.aggregate, query.conditions[::-1]), table)
    assert metrics.logical_form([turned], row) == metrics.execution([turned], row) == 1


def test_thousands_of_queries_come_back_as_they_were() -> None:
    for table, _, query in EVERY:
        assert metrics.parse(sql(query, table), table) == query
        assert metrics.parse(f" {sql(query, table)}\n", table) == query


TABLE = Table(
    ("club", "Home team", "max", "year", 'of "note"', "order"),
    ("text", "text", "number", "number", "text", "text"),
    (
        ("Ajax", "FC  Ajax", 3, 1998, "it's", "a"),
        ("PSV", "Eindhoven", 2.5, 1999, 'say "x"', "b"),
        ("Ajax", "Ajax", 1, 2001, "", None),
    ),
)
GOLD = "SELECT MAX(max) FROM t WHERE club = 'Ajax' AND year > 1998"


def row(*references: str) -> dict[str, Any]:
    return {"references": [f" {text}" for text in references], "schema": TABLE.schema()}


def both(output: str, *references: str) -> tuple[float, float]:
    rows = [row(*(references or (GOLD,)))]
    return metrics.logical_form([output], rows), metrics.execution([output], rows)


@pytest.mark.parametrize(
    "output",
    [
        GOLD,
        GOLD + ";",
        GOLD.lower(),
        GOLD.upper().replace("T WHERE", "t WHERE"),
        "select  MAX ( max )\nfrom t where club='AJAX'and year>1998",
        "SELECT MAX(max) FROM t WHERE year > 1998 AND club = 'Ajax'",
        "SELECT MAX(max) FROM t WHERE year > 1998 AND club = 'Ajax' AND year > 1998.0",
        'SELECT MAX("max") FROM T WHERE `club` = "ajax" AND [year] > \'1998\'',
        "SELECT MAX(max) FROM t WHERE club = ' Ajax ' AND year > 1.998e3",
    ],
)
def test_the_same_query(output: str) -> None:
    assert both(output) == (1, 1)
    assert both(output, "SELECT club FROM t", GOLD) == (1, 1)


@pytest.mark.parametrize(
    ("output", "executes"),
    [
        ("", 0),
        ("SELECT", 0),
        ("SELECT MAX(max) FROM t WHERE club = 'Ajax' AND", 0),
        ("SELECT MAX(max FROM t WHERE club = 'Ajax' AND year > 1998", 0),
        ("SELECT MAX(max) FROM t WHERE club = Ajax AND year > 1998", 0),
        ("SELECT MAX(max) FROM u WHERE club = 'Ajax' AND year > 1998", 0),
        ("SELECT MIN(max) FROM t WHERE club = 'PSV'", 0),
        ("SELECT MAX(max) FROM t WHERE club = 'Ajax'", 0),
        ("SELECT MAX(max) FROM t WHERE team = 'Ajax' AND year > 1998", 0),
        ("SELECT MAX(max) FROM t WHERE club = 'Ajax' AND year > 1998 x", 0),
        ("SELECT MAX(max), club FROM t WHERE club = 'Ajax' AND year > 1998", 0),
        ("Sure! SELECT MAX(max) FROM t WHERE club = 'Ajax' AND year > 1998", 0),
        # Another query, or not of the shape, with the same result.
        ("SELECT MIN(max) FROM t WHERE club = 'Ajax' AND year > 1998", 1),
        ("SELECT max FROM t WHERE club = 'Ajax' AND year > 1998", 1),
        ("SELECT MAX(max) FROM t WHERE club = 'Ajax' AND year > 1999", 1),
        ("SELECT MAX(max) FROM t WHERE 1998 < year AND club = 'Ajax'", 1),
        ("SELECT MAX(max) FROM t WHERE club = 'Ajax' AND year >= 1999", 1),
        ("SELECT max FROM t WHERE club = 'Ajax' ORDER BY year DESC LIMIT 1", 1),
        ("SELECT MAX(max) AS best FROM t WHERE (club = 'Ajax') AND NOT year <= 1998", 1),
        ("SELECT 1", 1),
    ],
)
def test_another_query(output: str, executes: int) -> None:
    assert both(output) == (0, executes)


@pytest.mark.parametrize(
    "conditions",
    [
        (Condition(1, "=", "fc ajax"),),
        (Condition(4, "=", "it's"), Condition(5, "=", "A")),
        (Condition(4, "=", 'SAY "X"'),),
        (Condition(4, "=", ""),),
        (Condition(2, "=", 2.5), Condition(3, ">", -5)),
        (Condition(2, "<", 1e300), Condition(3, ">", 1.5e-9)),
        (Condition(0, "=", "1998"),),
        (Condition(0, ">", "b"),),
    ],
)
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_names_and_values_are_quoted(conditions: tuple[Condition, ...], aggregate: str) -> None:
    for column in range(len(TABLE.columns)):
        query = Query(column, aggregate, conditions)
        text = sql(query, TABLE)
        assert metrics.parse(text, TABLE) == query
        assert both(text, text) == (1, 1)


def test_numbers_and_texts_are_compared_as_their_column_is() -> None:
    gold = "SELECT club FROM t WHERE club = '007' AND year = 1998"
    assert both("SELECT club FROM t WHERE club = \"007\" AND year = '1998.0'", gold) == (1, 1)
    assert both("SELECT club FROM t WHERE club = 007 AND year = 1998", gold)[0] == 0
    assert both("SELECT club FROM t WHERE club = '7' AND year = 1998", gold)[0] == 0
    assert both("SELECT club FROM t WHERE club = 1998", "SELECT club FROM t WHERE club = '1998'") == (1, 1)


def test_keywords_that_sqlite_refuses_as_names_are_quoted() -> None:
    def works(word: str, name: str) -> bool:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute(f'CREATE TABLE t ("{word}")')
            connection.execute("INSERT INTO t VALUES ('x')")
            try:
                found = connection.execute(f"SELECT MAX({name}) FROM t WHERE {name} = 'x' AND {name} > 'a'").fetchall()
            except sqlite3.Error:
                return False
        return found == [("x",)]

    assert works("club", "club") and not works("order", "order") and not works("null", "null")
    assert not [word for word in KEYWORDS if not works(word, identifier(word))]
    assert [identifier(name) for name in ("Order", "a b", "é", "1st", "_x1", 'a"b')] == [
        '"Order"', '"a b"', '"é"', '"1st"', "_x1", '"a""b"'
    ]  # fmt: skip


def test_results_are_multisets() -> None:
    assert both("SELECT club FROM t ORDER BY year DESC", "SELECT club FROM t") == (0, 1)
    assert both("SELECT DISTINCT club FROM t", "SELECT club FROM t") == (0, 0)
    assert both("SELECT club FROM t, (SELECT 1)", "SELECT club FROM t")[0] == 0
    assert both('SELECT "Home team" FROM t WHERE year = 1998', "SELECT club FROM t WHERE year = 1998") == (0, 0)
    none = "SELECT club FROM t WHERE year > 3000"
    assert both("SELECT year FROM t WHERE club = 'x'", none) == (0, 1)
    assert both("", none) == both("-- nothing", none) == both("SELECT NULL", none) == (0, 0)


def test_the_metrics_are_shares() -> None:
    rows = [row(GOLD)] * 4
    outputs = [GOLD, "SELECT 1", "SELECT max FROM t WHERE year = 2001", "what?"]
    assert metrics.logical_form(outputs, rows) == 0.25
    assert metrics.execution(outputs, rows) == 0.75


@pytest.mark.parametrize("gold", ["SELECT nothing FROM t", "SELECT club", "DROP TABLE t", "SELECT club FROM t WHERE"])
def test_broken_data_are_one_line(gold: str) -> None:
    for metric in (metrics.logical_form, metrics.execution):
        with pytest.raises(InputError, match=f"the data are broken: .*: {gold}$") as caught:
            metric(["SELECT club FROM t"], [row(gold)])
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="are for the tasks text2sql and wikisql alone"):
            metric(["x"], [{"references": ["x"]}])
    table = Table(("a", "A"), ("text", "text"), (("x", "y"),))
    with pytest.raises(InputError, match="the data are broken: SQLite cannot hold the table a, A: duplicate column"):
        metrics.execution(["x"], [{"references": ["SELECT a FROM t"], "schema": table.schema()}])


# What a model writes is untrusted.
SMALL = Table(("a", "b"), ("text", "number"), tuple((f"x{i}", i) for i in range(40)))
HOSTILE = [
    "DROP TABLE t",
    "DELETE FROM t",
    "INSERT INTO t VALUES ('y', 1)",
    "UPDATE t SET a = 'y'",
    "CREATE TABLE u (a)",
    "CREATE TEMP TABLE u AS SELECT * FROM t",
    "SELECT a FROM t; DROP TABLE t",
    "SELECT a FROM t; SELECT a FROM t",
    "ATTACH DATABASE '{file}' AS u",
    "VACUUM INTO '{file}'",
    "PRAGMA query_only = OFF",
    "PRAGMA temp_store_directory = '/'",
    "SELECT name FROM sqlite_master",
    "SELECT sql FROM sqlite_schema",
    "SELECT name FROM pragma_table_info('t')",
    "SELECT value FROM json_each('[1, 2]')",
    "SELECT load_extension('{file}')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('{file}', 'x')",
    "SELECT hex(randomblob(100000000))",
    "SELECT zeroblob(900000000)",
    "SELECT printf('%900000000d', 1)",
    "SELECT group_concat(a) FROM t",
    "SELECT sqlite_version()",
    "SELECT a FROM t WHERE a LIKE 'x%'",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(n) FROM r",
    "SELECT COUNT(*) FROM t a, t b, t c, t d, t e, t f, t g",
    "SELECT a.a FROM t a, t b, t c ORDER BY a.a || b.a || c.a DESC",
    "BEGIN",
    "COMMIT",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT '" + "x" * 20_000 + "'",
    "SELECT a FROM t WHERE a = '\0'",
    "SELECT a\0 FROM t",
    "SELECT '\ud800'",
    "SELECT CAST(x'ff' AS TEXT)",
    "SELECT ?",
]


@pytest.mark.parametrize("output", HOSTILE, ids=lambda text: ascii(text[:40]))
def test_hostile_outputs_do_nothing(output: str, tmp_path: Path) -> None:
    output = output.replace("{file}", str(tmp_path / "written"))
    with closing(engine.database(SMALL)) as connection:
        before = engine.run(connection, "SELECT a FROM t", SMALL)
        assert engine.run(connection, output, SMALL) is None
        assert engine.run(connection, "SELECT a FROM t", SMALL) == before
    assert not list(tmp_path.iterdir())
    rows = [{"references": [" SELECT a FROM t"], "schema": SMALL.schema()}]
    assert metrics.logical_form([output], rows) == metrics.execution([output], rows) == 0


def test_each_guard_holds_alone() -> None:
    """Without the authorizer the number of steps ends a recursion, and the database cannot be written to."""
    with closing(engine.database(SMALL)) as connection:
        connection.set_authorizer(None)
        endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(n) FROM r"
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            connection.execute(endless).fetchall()
        assert connection.execute(f"{endless} LIMIT 1".replace("FROM r)", "FROM r LIMIT 50)")).fetchall() == [(50,)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM t")
        with pytest.raises(sqlite3.OperationalError, match="too many attached"):
            connection.execute("ATTACH DATABASE ':memory:' AS u")


def test_steps_and_rows_are_limited_and_enough() -> None:
    with closing(engine.database(SMALL)) as connection:
        assert engine.run(connection, "SELECT COUNT(*) FROM t a, t b", SMALL) == Counter([(1600.0,)])
        assert engine.run(connection, "SELECT COUNT(*) FROM t a, t b, t c, t d", SMALL) is None
        assert engine.run(connection, "SELECT a.a FROM t a, t b", SMALL) is None  # more rows than any query gives
    many = Table(("a", "b"), ("text", "number"), tuple((f"x{i % 7}", i) for i in range(30_000)))
    with closing(engine.database(many)) as connection:
        found = engine.run(connection, "SELECT a FROM t WHERE a > 'x3' AND a > 'x2' AND b > 1 AND a < 'y'", many)
        assert found is not None and sum(found.values()) > 10_000


# Sorting and comparing are no steps of SQLite's machine.
LONG = "'" + "x" * 3000 + "'"
SLOW = [
    f"SELECT COUNT(*) FROM (SELECT 1 FROM t a, t b, t c ORDER BY {LONG}||a.a||b.a||c.a COLLATE folded)",
    f"SELECT a.a FROM t a, t b, t c, t d ORDER BY {LONG}||a.a||b.a||c.a||d.a COLLATE folded",
    f"SELECT COUNT(*) FROM (SELECT DISTINCT {LONG}||a.a||b.a||c.a COLLATE folded FROM t a, t b, t c)",
    "SELECT MAX(a.a||b.a||c.a||d.a COLLATE folded) FROM t a, t b, t c, t d GROUP BY a.b||b.b||c.b COLLATE folded",
]


def test_a_query_that_sorts_for_ever_ends_and_the_next_is_run() -> None:
    wide = Table(("a", "b"), ("text", "number"), tuple((f"{'y' * 2000}{i}", i) for i in range(200)))
    row = {"references": ["SELECT a FROM t WHERE b = 7"], "schema": wide.schema()}
    with Sandbox() as sandbox:
        for query in SLOW:
            assert not sandbox.same(query, row["references"], wide)
            assert sandbox.same("SELECT a FROM t WHERE b = 7.0", row["references"], wide)
    assert metrics.execution([SLOW[1], "select A from T where B = 7;"], [row, row]) == 0.5


def test_a_worker_that_is_gone_is_begun_anew() -> None:
    with Sandbox() as sandbox:
        assert sandbox.same("SELECT a FROM t", ["SELECT a FROM t"], SMALL)
        assert sandbox._worker is not None
        first = sandbox._worker.pid
        sandbox._worker.kill()
        sandbox._worker.wait()
        with pytest.raises(InputError, match="the data are broken: it takes too long"):
            sandbox.same("SELECT a FROM t", ["SELECT a FROM t"], SMALL)
        assert sandbox.same("SELECT a FROM t", ["SELECT a FROM t"], SMALL)
        assert sandbox._worker.pid != first


def test_fuzz_sql() -> None:
    """Made-up queries, of WikiSQL's shape and not: the worker says what a database in this process says."""
    words = [
        *("SELECT", "FROM t", "WHERE", "ORDER BY", "GROUP BY", "COLLATE folded", "AND", "UNION", "LIMIT 3", ";", "--")
    ]
    atoms = [
        "a",
        "b",
        "*",
        "COUNT(*)",
        "MAX(a)",
        "'x1'",
        "1.0",
        "a = 'X1'",
        "b > 2",
        "a || b",
        "NULL",
        "x'00'",
        "\ud800",
        "\0",
    ]

    def attempt(random: Random) -> str:
        output = (
            "SELECT "
            + random.choice(atoms)
            + " FROM t "
            + " ".join(random.choice(words if random.random() < 0.5 else atoms) for _ in range(random.randrange(6)))
        )
        if random.random() < 0.3:
            sides = random.choice(atoms), random.choice("=<>"), random.choice(atoms)
            output = f"SELECT {random.choice('ab')} FROM t WHERE {' '.join(sides)}"
        reference = f"SELECT {random.choice('ab')} FROM t WHERE b {random.choice('=<>')} {random.randrange(4)}"
        with closing(engine.database(SMALL)) as connection:
            wanted, found = (engine.run(connection, query, SMALL) for query in (reference, output))
        assert sandbox.same(output, [reference], SMALL) == (found is not None and found == wanted), output
        return "runs" if found is not None else "fails"

    with Sandbox() as sandbox:
        assert set(outcomes(attempt)) <= {"runs", "fails"}


@pytest.mark.usefixtures("one_sandbox")
def test_noise_never_fails() -> None:
    """Queries with characters dropped, doubled and swapped: right or wrong, but never an error; one that is the same
    query gives the same result."""
    rng = Random(0)
    for example in SAMPLE["test"][:100]:
        text = list(sql(example.query, example.table))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(text))
            text[place] = rng.choice(["", text[place] * 2, rng.choice("'\"();=<>.,- tA0"), text[place].swapcase()])
        output, rows = "".join(text), inputs([example]).to_list()
        assert metrics.logical_form([output], rows) <= metrics.execution([output], rows)


def test_the_schema_is_the_table() -> None:
    assert json.loads(TABLE.schema())["rows"][2] == ["Ajax", "Ajax", 1, 2001, "", None]
    assert metrics._table({"schema": TABLE.schema()}) == TABLE

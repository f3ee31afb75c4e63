"""The user's own files: labels in several spellings, encodings, and what JSON can hold that is no data."""

import csv
import io
import json
import logging
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzzing import one_line, outcomes
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import store, tasks
from experiments.tasks import _labels, _reading
from lora.config import InputError


def config(**fields: Any) -> dict[str, Any]:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        task = OmegaConf.to_container(compose(overrides=["+task=local"]).task, resolve=True)
    assert isinstance(task, dict) and set(fields) <= set(task)
    return {**{str(key): value for key, value in task.items()}, **fields}


LOCAL = config()


def write(path: Path, labels: list[Any]) -> dict[str, Any]:
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": label}) + "\n" for i, label in enumerate(labels)))
    return {**LOCAL, "path": str(path)}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["pos", "pos ", "neg", " neg\t"], ("neg", "pos")),
        (["1", "1.0", 0, "0.00"], ("0", "1")),
        ([1, 1.0, -1, "-1.", "+1"], ("-1", "1")),
        (["1.0", "2.0", "10.0"], ("1.0", "10.0", "2.0")),  # one spelling each: they keep it, and their order
        (["1", "1.0", "one"], ("1", "1.0", "one")),  # not all are numbers: codes, perhaps
        (["007", "7"], ("007", "7")),
        (["a\u00a0", "a", "b"], ("a", "b")),  # a no-break space
    ],
)
def test_spellings(labels: list[Any], names: tuple[str, ...], tmp_path: Path) -> None:
    data = tasks.load(write(tmp_path / "a.jsonl", labels * 20))
    assert isinstance(data, tasks.TaskData) and data.label_names == names
    wanted = {f"t{i}": str(label).strip() for i, label in enumerate(labels * 20)}
    for row in [*data.train, *data.validation, *data.test]:
        found, label = data.label_names[row["label"]], wanted[row["text"]]
        assert found == label or float(found) == float(label)


def test_a_test_file_may_spell_labels_as_it_likes(tmp_path: Path) -> None:
    task = write(tmp_path / "a.jsonl", ["1", "0"] * 20)
    (tmp_path / "b.csv").write_text("text,label\nx,1.0\ny, 0\n")
    data = tasks.load({**task, "test_path": str(tmp_path / "b.csv")})
    assert isinstance(data, tasks.TaskData) and sorted(data.test["label"]) == [0, 1]


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        (["Pos", "pos", "neg"], "'Pos' (20 rows) and 'pos' (20 rows)"),
        (["very  good", "very good", "bad"], "'very  good' (20 rows) and 'very good' (20 rows)"),
        (["1", "1.0", "one"], "'1' (20 rows) and '1.0' (20 rows)"),
        (["caf\u00e9", "cafe\u0301", "tea"], "'cafe\u0301' (20 rows) and 'caf\u00e9' (20 rows)"),
        (["pos", "pos ", "neg"], None),
        (["a", "b"], None),
    ],
)
def test_a_warning_where_it_is_not_safe(
    labels: list[Any], warning: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _labels._say.cache_clear()
    with caplog.at_level(logging.WARNING):
        tasks.load(write(tmp_path / "a.jsonl", labels * 20))
    assert len(caplog.messages) == (warning is not None)
    if warning:
        assert warning in caplog.messages[0] and "\n" not in caplog.messages[0]


@pytest.mark.parametrize(
    ("labels", "changed"),
    [
        (["a", "b"], False),
        (["a ", "b "], False),  # the names change, no example's class does
        (["pos", "pos ", "neg"], True),
        (["1", "1.0", "0"], True),
        (["1.0", "0.0"], False),
    ],
)
def test_only_runs_whose_classes_change_have_another_id(labels: list[str], changed: bool, tmp_path: Path) -> None:
    task = write(tmp_path / "a.jsonl", labels * 20)
    resolved = tasks.resolve(task)
    assert resolved.get("label_rules") == (2 if changed else None)
    assert tasks.resolve(resolved | {"path": task["path"]}) == resolved  # as measurements do with a stored config


def test_encoding_that_is_null_is_in_no_id(tmp_path: Path) -> None:
    task = write(tmp_path / "a.jsonl", ["a", "b"] * 20)
    assert task["encoding"] is None
    ids = []
    for encoding in ({}, {"encoding": None}, {"encoding": "utf-8"}):
        own = {key: value for key, value in task.items() if key != "encoding"} | encoding
        defined = {"model": {"name": "m", "path": "asset:minilm"}, "task": own, "method": {}, "training": {}, "seed": 0}
        ids.append(store.run_id(store.definition(defined)))
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_are_named_and_read(encoding: str, tmp_path: Path) -> None:
    lines = [f"d\u00e9j\u00e0 {i}," + ("g\u00fct", "b\u00e9te")[i % 2] for i in range(40)]
    path = tmp_path / "a.csv"
    path.write_bytes("\n".join(["text,label", *lines]).encode(encoding))
    with pytest.raises(InputError, match=r"is not UTF-8.*task\.encoding=(\S+) reads it so") as caught:
        tasks.load({**LOCAL, "path": str(path)})
    named = str(caught.value).split("task.encoding=")[1].split()[0]
    for given in (encoding, named):
        data = tasks.load({**LOCAL, "path": str(path), "encoding": given})
        assert isinstance(data, tasks.TaskData) and data.label_names == ("b\u00e9te", "g\u00fct")
        assert {row["text"] for part in (data.train, data.validation, data.test) for row in part} == {
            line.split(",")[0] for line in lines
        }


@pytest.mark.parametrize("encoding", ["klingon", "hex", "", "utf-8\0", 8])
def test_an_encoding_that_there_is_not(encoding: object, tmp_path: Path) -> None:
    task = write(tmp_path / "a.jsonl", ["a", "b"])
    with pytest.raises(InputError, match=r"^task.encoding = .*: no such text encoding"):
        tasks.load({**task, "encoding": encoding})


def test_a_wrong_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nd\u00e9j\u00e0,x\n".encode("cp1252"))
    with pytest.raises(InputError, match="cannot be read with task.encoding = ascii: .*; it looks like cp1252"):
        _reading.read(path, "ascii")
    path.write_bytes("text,label\nd\u00e9j\u00e0,x\n".encode())
    with pytest.raises(InputError, match="cannot be read with task.encoding = ascii: .*; it is valid UTF-8"):
        _reading.read(path, "ascii")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "bad \\ud83d", "label": 1}', r"line 2 has \\ud83d alone, half of a surrogate pair"),
        ('{"text": "x", "label": ' + "9" * 5000 + "}", "line 2 has an integer of more than 4300 digits"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + ', "label": 1}', "line 2 is nested too deeply"),
        ('{"text": ["x", "y"], "label": 1}', "line 2: 'text' is a list: it should be a text or a number"),
        ('{"text": "x", "label": {"a": 1}}', "line 2: 'label' is an object: it should be a text or a number"),
        ('{"text": "x", "label": [1]}', "line 2: 'label' is a list"),
    ],
)
def test_json_that_is_no_data(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 0}\n' + line + "\n")
    with pytest.raises(InputError, match=message) as caught:
        tasks.load({**LOCAL, "path": str(path)})
    one_line(str(caught.value))


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [f'{{"text": "\\ud83d\\ude00 {i}", "label": {i % 2}}}' for i in range(20)]
    path.write_text("\n".join(lines))
    data = tasks.load({**LOCAL, "path": str(path)})
    assert all(row["text"].startswith("\U0001f600") for row in data.train)


def test_a_label_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    task = write(tmp_path / "a.jsonl", ["a\nb", "c"] * 20)
    (tmp_path / "b.jsonl").write_text('{"text": "x", "label": "new\\nlabel\\u0007"}\n')
    with pytest.raises(InputError) as caught:
        tasks.load({**task, "test_path": str(tmp_path / "b.jsonl")})
    assert "new\\nlabel\\x07" in one_line(str(caught.value))


# Made-up files. What is read is checked against Python's own csv and json.
ODD = [
    *(
        "",
        " ",
        "a",
        "\u00e9t\u00e9",
        '"',
        '""',
        "x,y",
        "x\ty",
        "a\nb",
        "a\r\nb",
        "NA",
        "nan",
        "1",
        "1.0",
        "1e5",
        "\0",
        "\ufeff",
    ),
    *("\u2028", "\x85", "\U0001f600", "'", "\\", "-", "=1+1", "<b>", "|", "true", "None", "9" * 400),
]
VALUES: list[Any] = [*ODD, 0, 1, 1.0, -0.0, 1e300, True, None, [], ["a"], {}, {"a": 1}, float("nan"), 10**30]


def seldom(random: Random, odd: list[Any], usual: Any) -> Any:
    return random.choice(odd) if random.random() < 0.005 else usual


def made_csv(random: Random) -> tuple[str, bytes, list[tuple[str, str]] | None]:
    classes = random.choice([["pos", "neg"], ["pos", "neg ", " pos", "neg"], ["1", "1.0", "0"], ["Yes", "yes", "no"]])
    rows = [
        (seldom(random, ODD, f"{random.choice(ODD)} {i}"), seldom(random, ODD, random.choice(classes)))
        for i in range(random.randrange(60))
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator=random.choice(["\n", "\r\n"])).writerows([("text", "label"), *rows])
    encoding = random.choice(["utf-8"] * 6 + ["utf-8-sig", "cp1252", "utf-16"])
    return ".csv", text.getvalue().encode(encoding, "replace"), rows if encoding.startswith("utf-8") else None


def made_jsonl(random: Random) -> tuple[str, bytes, None]:
    lines = []
    broken = ["{", "[]", '"x"', '{"text": "\\udc00", "label": 1}', "[" * 9999, "1" * 5000]
    for i in range(random.randrange(60)):
        row = {"text": seldom(random, VALUES, f"{random.choice(ODD)} {i}"), "label": seldom(random, VALUES, i % 3)}
        lines.append(seldom(random, broken, json.dumps(row, ensure_ascii=random.random() < 0.5)))
    return ".jsonl", random.choice(["\n", "\r\n"]).join(lines).encode("utf-8", "replace"), None


def made_bytes(random: Random) -> tuple[str, bytes, None]:
    content = bytearray(b"text,label\n" + b"good film,1\nbad film,0\n" * 10)
    for _ in range(random.randrange(1, 9)):
        place = random.randrange(len(content))
        content[place : place + random.randrange(3)] = random.randbytes(random.randrange(4))
    return random.choice([".csv", ".tsv", ".jsonl"]), bytes(content), None


def test_fuzz_files(tmp_path: Path) -> None:
    def attempt(random: Random) -> str:
        suffix, content, rows = random.choice([made_csv, made_jsonl, made_bytes])(random)
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        task = {**LOCAL, "path": str(path), "encoding": random.choice([None, None, None, "utf-8", "cp1252", "utf-16"])}
        try:
            data = tasks.load(task)
            tasks.resolve(task)
        except InputError as error:
            message = one_line(str(error))
            assert "a." in message or "encoding" in message or "too few rows" in message
            return "refused"
        assert isinstance(data, tasks.TaskData)
        if rows is not None and task["encoding"] is None:
            read = Counter(row["text"] for part in (data.train, data.validation, data.test) for row in part)
            written = Counter(text for text, _ in rows if text.isprintable())
            assert {text: read[text] for text in written} == dict(written)
        return "read"

    counted = outcomes(attempt)
    assert set(counted) == {"read", "refused"} or sum(counted.values()) < 20

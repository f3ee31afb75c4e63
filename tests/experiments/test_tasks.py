"""Tasks: the splits are disjoint, fixed and right, and bad data files are told so in one line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import tasks
from experiments.metrics import text_metrics
from experiments.metrics.label_metrics import METRICS as LABEL_METRICS
from experiments.tasks import rotten_tomatoes
from lora.config import InputError

CONF = Path(tasks.__file__).parents[1] / "conf" / "task"
ALL = sorted(p.relative_to(CONF).with_suffix("").as_posix() for p in CONF.rglob("*.yaml") if not p.name.startswith("_"))
GLUE = [name for name in ALL if name.startswith("glue/")]


def config(name: str, /, **fields: Any) -> dict[str, Any]:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        task = OmegaConf.to_container(
            compose(overrides=["+glue_dir=null", "+preset.glue_length=128", f"+task={name}"]).task, resolve=True
        )
    assert isinstance(task, dict)
    assert set(fields) <= set(task)
    return {**{str(key): value for key, value in task.items()}, **fields}


@pytest.mark.parametrize("name", ALL)
def test_every_config_has_the_common_fields(name: str) -> None:
    task = config(name)
    assert {"name", "family", "metric", "max_length", "split_seed", "train_examples"} <= set(task)
    for metric in (task["metric"], *task.get("more_metrics", [])):
        assert metric in {**LABEL_METRICS, **text_metrics.METRICS} or (name, metric) == ("local", None)


@pytest.mark.parametrize(
    ("name", "classes", "sizes"),
    [
        ("rotten_tomatoes", 2, (10149, 1320, 1283)),
        ("bbc_news", 5, (1701, 212, 212)),
        ("reuters_r8", 8, (4936, 549, 2189)),
        ("reuters_r52", 52, (5878, 654, 2568)),
        ("newsgroups", 20, (10163, 1130, 7528)),
    ],
)
def test_wheel_tasks(name: str, classes: int, sizes: tuple[int, int, int]) -> None:
    task = config(name)
    data = tasks.load(task)
    assert len(data.label_names) == classes
    splits = [part[:] for part in (data.train, data.validation, data.test)]
    assert tuple(len(part["text"]) for part in splits) == sizes
    assert set(splits[0]["label"]) == set(range(classes))
    for part in splits:
        assert list(part) == ["text", "label"]
        assert all(text.strip() for text in part["text"])
        assert set(part["label"]) <= set(range(classes))
    if name in ("rotten_tomatoes", "bbc_news"):  # the other corpora have official test parts, repetitions included
        texts = Counter(text for part in splits for text in set(part["text"]))
        assert max(texts.values()) == 1
    again = tasks.load({**task, "train_examples": 10})
    assert again.train[:] == data.train[:10]
    assert again.test[:] == splits[2]


def test_no_film_is_in_two_splits() -> None:
    parts = rotten_tomatoes.split_by_film(rotten_tomatoes.reviews(), seed=0)
    films = [set(part["film"]) for part in parts]
    assert not (films[0] & films[1] or films[0] & films[2] or films[1] & films[2])
    assert len(set.union(*films)) == 507
    rows = sum(map(len, parts))
    assert [round(len(part) / rows, 1) for part in parts] == [0.8, 0.1, 0.1]
    assert all(0.5 < (part["label"] == "fresh").mean() < 0.65 for part in parts)


def test_a_smaller_cut_is_the_start_of_a_bigger_one() -> None:
    few, fewer = (tasks.load(config("bbc_news", train_examples=n)).train for n in (100, 10))
    assert fewer[:] == few[:10]


def test_sizes_are_at_most() -> None:
    data = tasks.load(config("bbc_news", train_examples=10**6, validation_examples=7))
    assert (len(data.train), len(data.validation)) == (1701, 7)
    with pytest.raises(InputError, match="task.train_examples must be 1 or more.*got 0"):
        tasks.load(config("bbc_news", train_examples=0))


def test_unknown_family() -> None:
    with pytest.raises(InputError, match="unknown task family 'imdb'; there are: as_text, bbc_headlines, bbc_news,"):
        tasks.load({**config("bbc_news"), "family": "imdb"})


def test_unknown_corpus() -> None:
    with pytest.raises(InputError, match="unknown task.corpus 'reuters'.*reuters-r52"):
        tasks.load(config("reuters_r8", corpus="reuters"))


# GLUE. The files are as GLUE publishes them: columns, label spellings, stray quotation marks.
MNLI_COLUMNS = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2\t"
)
GLUE_FILES: dict[str, tuple[dict[str, str], str, list[str]]] = {  # file -> header; a row; labels as written
    "cola": ({"train.tsv": "", "dev.tsv": ""}, "gj04\t{label}\t*\tOne {i} more", ["0", "1"]),
    "sst2": ({"train.tsv": "sentence\tlabel", "dev.tsv": "sentence\tlabel"}, "a film {i} \t{label}", ["0", "1"]),
    "mrpc": (
        dict.fromkeys(("train.tsv", "dev.tsv"), "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"),
        "{label}\t7\t8\tHe said {i}\tShe said {i}",
        ["0", "1"],
    ),
    "stsb": (
        dict.fromkeys(
            ("train.tsv", "dev.tsv"),
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        ),
        "{i}\tnews\tMSRvid\t2012\t1\tnone\tnone\tA plane {i}\tAn air plane {i}\t{label}",
        ["0.000", "3.800", "5.000"],
    ),
    "qqp": (
        dict.fromkeys(("train.tsv", "dev.tsv"), "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"),
        "{i}\t1\t2\tWhy {i}?\tHow {i}?\t{label}",
        ["0", "1"],
    ),
    "mnli": (
        {
            "train.tsv": MNLI_COLUMNS + "label1\tgold_label",
            "dev_matched.tsv": MNLI_COLUMNS + "label1\tgold_label",
            "dev_mismatched.tsv": MNLI_COLUMNS + "label1\tgold_label",
        },
        "{i}\t1\t1e\tfiction\t(\t(\t(\t(\tIt rains {i}\tIt is dry {i}\t{label}\t{label}",
        ["entailment", "neutral", "contradiction"],
    ),
    "qnli": (
        dict.fromkeys(("train.tsv", "dev.tsv"), "index\tquestion\tsentence\tlabel"),
        "{i}\tWho {i}?\tThey {i}.\t{label}",
        ["entailment", "not_entailment"],
    ),
    "rte": (
        dict.fromkeys(("train.tsv", "dev.tsv"), "index\tsentence1\tsentence2\tlabel"),
        "{i}\tA {i}\tB {i}\t{label}",
        ["entailment", "not_entailment"],
    ),
    "wnli": (
        dict.fromkeys(("train.tsv", "dev.tsv"), "index\tsentence1\tsentence2\tlabel"),
        "{i}\tA {i}\tB {i}\t{label}",
        ["0", "1"],
    ),
}
FIRST_TEXTS = {
    "cola": ('One "0 more',),
    "sst2": ('a film "0 ',),
    "mrpc": ('He said "0', 'She said "0'),
    "stsb": ('A plane "0', 'An air plane "0'),
    "qqp": ('Why "0?', 'How "0?'),
    "mnli": ('It rains "0', 'It is dry "0'),
    "qnli": ('Who "0?', 'They "0.'),
    "rte": ('A "0', 'B "0'),
    "wnli": ('A "0', 'B "0'),
}


def write_glue(folder: Path, name: str) -> None:
    """A training file of 60 rows and a dev file of 6; every row has one unpaired quotation mark a sentence."""
    headers, row, labels = GLUE_FILES[name]
    for file, header in headers.items():
        count = 60 if file == "train.tsv" else 6
        rows = [row.format(i=f'"{i}', label=labels[i % len(labels)]) for i in range(count)]
        (folder / file).write_text("\n".join([header] * bool(header) + rows) + "\n", encoding="utf-8")
    (folder / "test.tsv").write_text("index\tsentence\n0\tunlabelled\n")


def test_glue_has_its_nine_tasks() -> None:
    assert {f"glue/{name}" for name in GLUE_FILES} == set(GLUE)
    main = {name: config(name)["metric"] for name in GLUE}
    assert main.pop("glue/cola") == "matthews_correlation"
    assert main.pop("glue/stsb") == "pearson"
    assert set(main.values()) == {"accuracy"}


@pytest.mark.parametrize("name", GLUE_FILES)
def test_glue_from_a_folder(name: str, tmp_path: Path) -> None:
    write_glue(tmp_path, name)
    data = tasks.load(config(f"glue/{name}", data_dir=str(tmp_path)))
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 6)
    texts = FIRST_TEXTS[name]
    columns = ["text", "text_pair"][: len(texts)]
    for part in (data.train, data.validation, data.test):
        assert part.column_names == [*columns, "label"]
    labels = GLUE_FILES[name][2]
    by_text = {row["text"]: row for row in data.test}
    assert len(by_text) == 6
    first, second = by_text[texts[0]], by_text[texts[0].replace("0", "1")]
    assert tuple(first[column] for column in columns) == texts
    if name == "stsb":
        assert data.label_names == ()
        assert (first["label"], second["label"]) == (0.0, 3.8)
    else:
        named = labels if labels[0] != "0" else list(data.label_names)
        assert [data.label_names[row["label"]] for row in (first, second)] == named[:2]
    held_out = set(data.validation["text"])
    assert not held_out & set(data.train["text"])


def test_glue_more_metrics(tmp_path: Path) -> None:
    for name, more in (("mrpc", ("f1",)), ("qqp", ("f1",)), ("stsb", ("spearman",)), ("sst2", ())):
        write_glue(tmp_path, name)
        assert tasks.load(config(f"glue/{name}", data_dir=str(tmp_path))).more_metrics == more


def test_mrpc_as_microsoft_publishes_it(tmp_path: Path) -> None:
    write_glue(tmp_path, "mrpc")
    for ours, theirs in (("train.tsv", "msr_paraphrase_train.txt"), ("dev.tsv", "msr_paraphrase_test.txt")):
        text = (tmp_path / ours).read_text()
        (tmp_path / theirs).write_text(text, encoding="utf-8-sig")  # the release starts with a byte order mark
        (tmp_path / ours).unlink()
    data = tasks.load(config("glue/mrpc", data_dir=str(tmp_path)))
    assert (len(data.train), len(data.test)) == (54, 6)


def test_glue_rows_cut_short_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_glue(tmp_path, "qqp")
    with (tmp_path / "train.tsv").open("a") as file:
        file.write("99\t1\t2\tWhy\n")
    data = tasks.load(config("glue/qqp", data_dir=str(tmp_path)))
    assert len(data.train) + len(data.validation) == 60
    assert "1 of 61 rows left out" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"dev.tsv": None}, r"there is no dev.tsv in"),
        ({"train.tsv": ""}, r"train.tsv is empty"),
        ({"train.tsv": "sentence\tlabel\n"}, r"train.tsv has no rows"),
        ({"train.tsv": "text\tlabel\na\t1\n"}, r"has no column 'sentence'; its columns are: text, label"),
        ({"train.tsv": "sentence\tlabel\na\t1\nb\t1\n"}, r"train.tsv has one class only, 'positive'"),
        ({"dev.tsv": "sentence\tlabel\na\t1\nb\tgood\n"}, r"the label 'good' of row 2 should be negative, positive"),
    ],
)
def test_glue_bad_folder(spoil: dict[str, str | None], message: str, tmp_path: Path) -> None:
    write_glue(tmp_path, "sst2")
    for file, content in spoil.items():
        (tmp_path / file).unlink()
        if content is not None:
            (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        tasks.load(config("glue/sst2", data_dir=str(tmp_path)))


def test_glue_bad_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task.data_dir: there is no folder"):
        tasks.load(config("glue/sst2", data_dir=str(tmp_path / "none")))
    with pytest.raises(InputError, match="unknown GLUE task 'sst5'; there are: cola, sst2"):
        tasks.load(config("glue/sst2", subset="sst5"))


def test_glue_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's layout: labels are numbers, -1 in the test part; MNLI has other names for its columns and dev set."""
    part = pd.DataFrame({"premise": ["p"] * 30, "hypothesis": ["h"] * 30, "label": [0, 1, 2] * 10, "idx": range(30)})
    hub = DatasetDict({k: Dataset.from_pandas(part) for k in ("train", "validation_matched", "validation_mismatched")})
    monkeypatch.setattr("experiments.tasks._official.load_dataset", lambda *_: hub)
    data = tasks.load(config("glue/mnli"))
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 30)
    assert data.train.column_names == ["text", "text_pair", "label"]
    assert Counter(data.test["label"]) == {0: 10, 1: 10, 2: 10}


def test_glue_without_the_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: str) -> None:
        raise ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub")

    monkeypatch.setattr("experiments.tasks._official.load_dataset", offline)
    with pytest.raises(InputError, match="cannot load nyu-mll/glue .* set task.data_dir"):
        tasks.load(config("glue/sst2"))


# The user's own data.
ROWS = [{"text": f"line {i}", "other": f"twin {i}", "label": ["no", "yes", "maybe"][i % 3]} for i in range(60)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_local_file(suffix: str, tmp_path: Path) -> None:
    data = tasks.load(config("local", path=write(tmp_path / f"mine{suffix}", ROWS), text_pair_column="other"))
    assert data.label_names == ("maybe", "no", "yes")
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 6, 6)
    assert Counter(data.test["label"]) == {0: 2, 1: 2, 2: 2}
    whole = [row for part in (data.train, data.validation, data.test) for row in part]
    found = {(row["text"], row["text_pair"], data.label_names[row["label"]]) for row in whole}
    assert found == {(row["text"], row["other"], row["label"]) for row in ROWS}


def test_local_own_splits(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.jsonl", ROWS[:9])
    data = tasks.load(config("local", path=train, test_path=test))
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 9)
    data = tasks.load(config("local", path=train, test_path=test, validation_path=test))
    assert (len(data.train), len(data.validation), len(data.test)) == (60, 9, 9)


def test_local_jsonl_labels_keep_their_spelling(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(40)]
    data = tasks.load(config("local", path=write(tmp_path / "a.jsonl", rows)))
    assert data.label_names == ("0", "1")


def test_local_words_for_missing_are_text(tmp_path: Path) -> None:
    rows = [{"text": ["NA", "None", "null"][i % 3], "label": ["N/A", "nan"][i % 2]} for i in range(40)]
    data = tasks.load(config("local", path=write(tmp_path / "a.csv", rows)))
    assert data.label_names == ("N/A", "nan")
    assert set(data.train["text"]) == {"NA", "None", "null"}


def test_local_class_of_one_row_is_trained_on(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": "odd", "other": "odd", "label": "rare"}]
    data = tasks.load(config("local", path=write(tmp_path / "a.csv", rows)))
    assert Counter(data.train["label"])[data.label_names.index("rare")] == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", None, "cannot read .*a.csv: No such file"),
        ("a.jsonl", None, "cannot read .*a.jsonl: No such file"),
        ("a.csv", "", "a.csv is empty"),
        ("a.jsonl", "\n\n", "a.jsonl is empty"),
        ("a.csv", "text,label\n", "a.csv has no rows"),
        ("a.csv", "text,label\n\n\n", "a.csv has no rows"),
        ("a.xlsx", "", "unknown file type '.xlsx'; there are: .csv, .tsv, .jsonl"),
        ("a.csv", "body,stars\nx,1\n", "has no column 'text'; its columns are: body, stars"),
        ("a.csv", "text,label\nx,1\ny,1\n", "a.csv has one class only, '1'"),
        ("a.csv", 'text,label\n"x\nx",1\n\ny,\n ,2\nz,\n', "1 rows have an empty 'text', the first on line 6"),
        ("a.csv", 'text,label\n"x\nx",1\n\ny,\nw,2\nz,\n', "2 rows have an empty 'label', the first on line 5"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}\n', "1 rows have an empty 'label', the first on line 2"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text"\n', "a.jsonl: line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl: line 1 is not a JSON object"),
        ("a.csv", 'text,label\n"x,1\n', "a.csv is not a table: .*EOF inside string"),
        ("a.csv", "text,label\nx,1\nx,y,2\n", "a.csv is not a table: .*Expected 2 fields in line 3"),
        ("a.tsv", "text\tlabel\na\tb\t0\n", "the rows have more fields than the header"),
        (
            "a.csv",
            b"text,label\n\xff\xfe,1\n",
            "a.csv is not UTF-8: .*; it looks like cp1252; task.encoding=cp1252 reads it so, or save",
        ),
        ("a.jsonl", b'{"text": "\xff"}\n', "a.jsonl is not UTF-8"),
        ("a.csv", "text,label\nx,1\ny,2\n", "too few rows to split: 2 rows, 2 classes"),
    ],
)
def test_local_bad_file(file: str, content: str | bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        tasks.load(config("local", path=str(path)))
    assert "\n" not in str(caught.value)


def test_local_needs_a_path() -> None:
    with pytest.raises(InputError, match="task.path is not set"):
        tasks.load(config("local"))


def test_local_label_that_training_lacks(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", ROWS)
    test = write(tmp_path / "b.csv", [{"text": "t", "label": "perhaps"}])
    with pytest.raises(InputError, match=r"b.csv has labels that .*a.csv does not have: perhaps"):
        tasks.load(config("local", path=train, test_path=test))


def test_resolve_names_the_data_by_content(tmp_path: Path) -> None:
    first = tasks.resolve(config("local", path=write(tmp_path / "mine.csv", ROWS)))
    assert first["name"] == "mine"
    assert (
        tasks.resolve(config("local", path=write(tmp_path / "mine.csv", ROWS[1:])))["data_sha256"]
        != first["data_sha256"]
    )
    (tmp_path / "elsewhere").mkdir()
    moved = tasks.resolve(config("local", name="reviews", path=write(tmp_path / "elsewhere" / "mine.csv", ROWS)))
    assert (moved["name"], moved["data_sha256"]) == ("reviews", first["data_sha256"])
    write_glue(tmp_path, "sst2")
    assert len(tasks.resolve(config("glue/sst2", data_dir=str(tmp_path)))["data_sha256"]) == 64
    assert tasks.resolve(config("bbc_news")) == config("bbc_news")
    with pytest.raises(InputError, match="there is no file or folder .*none.csv"):
        tasks.resolve(config("local", path=str(tmp_path / "none.csv")))

"""Text tasks: prompts and completions are what the config says, splits stay apart, and bad input is one line."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import tasks
from experiments.tasks import TextData, as_text, bbc_headlines, bbc_news
from experiments.tasks.glue import SUBSETS
from lora.config import InputError

CONF = Path(tasks.__file__).parents[1] / "conf" / "task"
AS_TEXT = sorted(f"text/{file.stem}" for file in (CONF / "text").glob("*.yaml"))


def config(name: str, /, **fields: Any) -> dict[str, Any]:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        task = OmegaConf.to_container(compose(overrides=["+glue_dir=null", f"+task={name}"]).task, resolve=True)
    assert isinstance(task, dict)
    assert set(fields) <= set(task)
    return {**{str(key): value for key, value in task.items()}, **fields}


def load(name: str, /, **fields: Any) -> TextData:
    data = tasks.load(config(name, **fields))
    assert isinstance(data, TextData)
    return data


@pytest.mark.parametrize("name", [*AS_TEXT, "bbc_headlines", "samsum", "local"])
def test_every_config_has_what_a_language_model_needs(name: str) -> None:
    task = config(name)
    assert {"name", "family", "metric", "more_metrics", "max_length", "split_seed", "train_examples"} <= set(task)
    assert task["format"] == "plain"
    assert set(task["generation"]) == {"beams", "length_penalty", "no_repeat_ngram", "max_new_tokens"}


# Classification as text.
GOOD_OR_BAD = {"good": " yes", "bad": " no"}


def labelled(path: Path, count: int = 60, **more: str) -> dict[str, Any]:
    """A task over a file of texts "t0 one two three", labels good and bad in turns (as many good as bad)."""
    rows = [{"text": f"t{i} one two three", "label": ("good", "bad")[i % 2], **more} for i in range(count)]
    pd.DataFrame(rows).to_csv(path, index=False)
    fields = ("text_column", "text_pair_column", "label_column", "prompt_column", "completion_column")
    of = {"family": "local", **{field: config("local")[field] for field in fields}}
    places = {"path": str(path), "validation_path": None, "test_path": None}
    task = config("text/rotten_tomatoes", of=of, template="Is it good? {text}\nAnswer:", words=GOOD_OR_BAD)
    return {**task, **places, "words_per_text": None}


def test_labels_become_words(tmp_path: Path) -> None:
    data = tasks.load(labelled(tmp_path / "a.csv"))
    assert isinstance(data, TextData)
    assert data.choices == (" no", " yes")  # in the order of the label names: bad, good
    assert (data.metric, data.more_metrics) == ("accuracy", ())
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 6, 6)
    word = {f"Is it good? t{i} one two three\nAnswer:": (" yes", " no")[i % 2] for i in range(60)}
    assert all(word[row["prompt"]] == row["completion"] for row in data.train)
    assert all([word[row["prompt"]]] == row["references"] for part in (data.validation, data.test) for row in part)
    prompts = [row["prompt"] for part in (data.train, data.validation, data.test) for row in part]
    assert sorted(prompts) == sorted(word)


def test_the_rows_are_those_of_the_classification_task() -> None:
    """A language model and a classifier with the same split_seed and sizes see the same reviews."""
    sizes = {"train_examples": 50, "validation_examples": 20, "test_examples": 20}
    text, classes = load("text/rotten_tomatoes", **sizes), tasks.load(config("rotten_tomatoes", **sizes))
    assert isinstance(classes, tasks.TaskData)
    for part in ("train", "validation", "test"):
        rows = getattr(classes, part)
        expected = [f"Review: {' '.join(review.split()[:40])}\nSentiment:" for review in rows["text"]]
        assert getattr(text, part)["prompt"][:] == expected
    words = {"rotten": " negative", "fresh": " positive"}
    assert text.train["completion"][:] == [words[classes.label_names[label]] for label in classes.train["label"]]
    assert text.test["references"][:] == [[words[classes.label_names[label]]] for label in classes.test["label"]]


@pytest.mark.parametrize(("name", "classes"), [("bbc_news", 5), ("reuters_r8", 8), ("newsgroups", 20)])
def test_wheel_tasks_as_text(name: str, classes: int) -> None:
    task = config(f"text/{name}")
    data = tasks.load(task)
    assert isinstance(data, TextData)
    assert len(data.choices) == classes
    assert set(data.train["completion"]) == set(data.choices)
    tail = task["template"].partition("{text}")[2]
    assert all(prompt.endswith(tail) for part in (data.train, data.test) for prompt in part["prompt"])
    longest = task["words_per_text"] + len(task["template"].split())
    assert max(len(prompt.split()) for prompt in data.train["prompt"]) <= longest


def test_texts_are_cut_and_the_template_is_not(tmp_path: Path) -> None:
    task = labelled(tmp_path / "a.csv", other="x  y\nz")
    task["of"]["text_pair_column"] = "other"
    data = tasks.load({**task, "template": "A: {text}\nB: {text_pair}\nSame:", "words_per_text": 2})
    assert isinstance(data, TextData)
    assert all(re.fullmatch(r"A: t\d+ one\nB: x y\nSame:", prompt) for prompt in data.train["prompt"])


def test_braces_in_a_text_are_text(tmp_path: Path) -> None:
    task = labelled(tmp_path / "a.csv")
    path = tmp_path / "a.csv"
    path.write_text(path.read_text().replace("one two three", "{one} {"))
    assert all(prompt.endswith(" {one} {\nAnswer:") for prompt in tasks.load(task).train["prompt"])


@pytest.mark.parametrize("name", [name for name in AS_TEXT if config(name)["of"]["family"] == "glue"])
def test_glue_as_text(name: str, tmp_path: Path) -> None:
    """The labels of the config are those of the task: the hub's names, which glue.SUBSETS has, in the TSV files."""
    task = config(name, data_dir=str(tmp_path))
    subset = SUBSETS[task["of"]["subset"]]
    columns = [*subset.sentences, subset.label]
    header = subset.header or columns
    for file, count in ((subset.train[0], 60), (subset.dev[0], 6)):
        rows = [] if subset.header else ["\t".join(header)]
        for i in range(count):
            cells = {column: f"{column} {i}" for column in header} | {subset.label: subset.names[i % len(subset.names)]}
            rows.append("\t".join(cells[column] for column in header))
        (tmp_path / file).write_text("\n".join(rows) + "\n")
    data = tasks.load(task)
    assert isinstance(data, TextData)
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 6)
    assert data.choices == tuple(task["words"][label] for label in subset.names)
    texts = {f"{{{field}}}": column for field, column in zip(("text", "text_pair"), subset.sentences, strict=False)}
    expected = set()
    for i in range(6):
        prompt = task["template"]
        for field, column in texts.items():
            prompt = prompt.replace(field, f"{column} {i}")
        expected.add((prompt, task["words"][subset.names[i % len(subset.names)]]))
    assert {(row["prompt"], row["references"][0]) for row in data.test} == expected
    assert len(tasks.resolve(task)["data_sha256"]) == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"words": {"good": " yes"}}, "task.words has no word for the label 'bad'; the labels: bad, good"),
        ({"words": {**GOOD_OR_BAD, "bad": " "}}, "task.words has no word for the label 'bad'"),
        ({"words": {**GOOD_OR_BAD, "ugly": " oh"}}, "task.words has the unknown label 'ugly'; the labels: bad, good"),
        ({"words": {"good": " yes", "bad": " yes"}}, "task.words has one word for two labels:  yes,  yes"),
        ({"words": {"good": " yes", "bad": "no"}}, "one white space must stand between the template and 'no'"),
        ({"template": "{text}\n"}, "one white space must stand between the template and ' yes'"),
        ({"template": "A text:"}, r"task.template = 'A text:': it must have {text}, once"),
        ({"template": "{text} {text_pair}:"}, r"it must have {text}, once, and no other field"),
        ({"template": "{text} {}:"}, r"it must have {text}, once, and no other field"),
        ({"template": "{text:"}, "a brace that is text is written twice"),
        ({"words_per_text": 0}, "task.words_per_text must be 1 or more, or null for all; got 0"),
        ({"of": {"family": "imdb"}}, "unknown task family 'imdb' in task.of.family"),
        ({"of": {"family": "bbc_headlines", "words": 5}}, "task.of.family = bbc_headlines has no classes"),
        ({"of": {"family": "local", "path": "a.csv"}}, "task.of.path is in the wrong place: give it as task.path"),
        ({"shots": -1}, "task.shots must be 0 or more; got -1"),
        ({"shots": 49}, "task.shots = 49, but the training set has 48 different prompts"),
    ],
)
def test_bad_fields_are_one_line(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tasks.load({**labelled(tmp_path / "a.csv"), **fields})
    assert "\n" not in str(caught.value)


# In-context learning.
def test_shots_are_the_same_training_pairs_before_every_held_out_prompt(tmp_path: Path) -> None:
    task = labelled(tmp_path / "a.csv")
    plain, shown = tasks.load({**task, "shots": 0}), tasks.load({**task, "shots": 5})
    assert isinstance(plain, TextData) and isinstance(shown, TextData)
    assert shown.train[:] == plain.train[:]
    pairs = {row["prompt"] + row["completion"] for row in plain.train}
    for part in ("validation", "test"):
        before, after = getattr(plain, part), getattr(shown, part)
        assert after["references"][:] == before["references"][:]
        prefixes = {new.removesuffix(old) for new, old in zip(after["prompt"], before["prompt"], strict=True)}
        assert len(prefixes) == 1
    (prefix,) = prefixes
    demonstrations = prefix.split("\n\n")
    assert demonstrations.pop() == ""
    assert len(set(demonstrations)) == 5
    assert set(demonstrations) <= pairs
    assert sorted(Counter(text.rsplit(" ", 1)[1] for text in demonstrations).values()) == [2, 3]


def test_shots_depend_on_their_seed_and_not_on_the_sizes(tmp_path: Path) -> None:
    task = {**labelled(tmp_path / "a.csv"), "shots": 4}
    first = tasks.load(task).test["prompt"][:]
    assert tasks.load({**task, "train_examples": 1}).test["prompt"][:] == first
    assert tasks.load({**task, "shots_seed": 1}).test["prompt"][:] != first


def test_shots_of_few_and_of_unequal_classes() -> None:
    """Nine of a, three of b, one of c: as even as it can be, and no prompt twice."""
    completions = [" a"] * 9 + [" b"] * 3 + [" c"]
    train = Dataset.from_dict({"prompt": [f"p{i}:" for i in range(13)], "completion": completions})

    def counts(shots: int) -> list[int]:
        drawn = as_text.draw(train, shots, 0)
        assert len(set(drawn)) == shots
        count = Counter(text[-1] for text in drawn)
        return [count[label] for label in "abc"]

    assert counts(3) == [1, 1, 1]
    assert counts(5) == [2, 2, 1]
    assert counts(9) == [5, 3, 1]
    assert counts(13) == [9, 3, 1]
    assert sorted(counts(2)) == [0, 1, 1]


def test_shots_are_not_sorted_by_completion() -> None:
    train = Dataset.from_dict({"prompt": [f"p{i}:" for i in range(40)], "completion": [" a", " b"] * 20})
    orders = {"".join(text[-1] for text in as_text.draw(train, 8, seed)) for seed in range(20)}
    assert len(orders) > 10  # of 70
    turns = {"ab" * 4, "ba" * 4}
    assert not orders <= turns


def test_a_prompt_with_several_completions_is_shown_once() -> None:
    train = Dataset.from_dict({"prompt": ["p:", "p:", "q:"], "completion": [" a", " b", " c"]})
    assert {text[0] for text in as_text.draw(train, 2, 0)} == {"p", "q"}
    with pytest.raises(InputError, match="task.shots = 3, but the training set has 2 different prompts"):
        as_text.draw(train, 3, 0)


# Headlines.
def test_headlines() -> None:
    data = load("bbc_headlines")
    assert (data.metric, data.more_metrics, data.choices) == ("rouge_1", ("rouge_2", "rouge_lf"), ())
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1646, 205, 205]
    headlines = [*data.train["completion"], *(line for part in parts[1:] for (line,) in part["references"])]
    prompts = [prompt for part in parts for prompt in part["prompt"]]
    openings = Counter(bbc_headlines.first_sentence(prompt.removeprefix("Article: ")) for prompt in prompts)
    assert max(Counter(headlines).values()) == max(Counter(prompts).values()) == max(openings.values()) == 1
    for headline, prompt in zip(headlines, prompts, strict=True):
        assert re.fullmatch(r" \S.*\S", headline)
        assert re.fullmatch(r"Article: \S.*\S\nHeadline:", prompt)
        assert len(prompt.split()) <= 62
        assert headline.strip().lower() not in prompt.lower()  # what is to be written is not to be read


def test_a_headline_belongs_to_its_article() -> None:
    stories = bbc_headlines.stories(60).set_index("headline")["prompt"]
    assert stories[" Ad sales boost Time Warner profit"].startswith(
        "Article: Quarterly profits at US media giant TimeWarner jumped 76% to $1.13bn"
    )
    raw = bbc_news.articles()
    assert len(raw) == 2225
    assert raw["text"][0].startswith("Ad sales boost Time Warner profit\n\nQuarterly profits at US media giant")


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("One two. Three four five. Six seven", 6, "One two. Three four five."),
        ('He said "go." Then he went on and on', 5, 'He said "go."'),
        ("no end within the limit. Late", 3, "no end within"),
        ("Up 8.1% to 1.5 points. Next", 50, "Up 8.1% to 1.5 points."),
        ("One. Two.", 2, "One. Two."),
    ],
)
def test_lead_is_whole_sentences(text: str, limit: int, expected: str) -> None:
    assert bbc_headlines.lead(text, limit) == expected


def test_headlines_need_words() -> None:
    with pytest.raises(InputError, match="task.words must be 1 or more; got 0"):
        load("bbc_headlines", words=0)


# SAMSum.
def dialogues(split: str, count: int) -> list[dict[str, str]]:
    return [
        {"id": f"{split}{i}", "summary": f"{split} {i} is\r\nshort.", "dialogue": f"Ann: hi {split} {i}\r\nBob:  yes"}
        for i in range(count)
    ]


@pytest.fixture
def samsum(tmp_path: Path) -> Path:
    for name, count in (("train", 8), ("val", 3), ("test", 4)):
        (tmp_path / f"{name}.json").write_text(json.dumps(dialogues(name, count)))
    return tmp_path


def test_samsum_from_a_folder(samsum: Path) -> None:
    data = load("samsum", data_dir=str(samsum))
    assert (data.metric, data.more_metrics, data.choices) == ("rouge_1", ("rouge_2", "rouge_lf"), ())
    assert {(row["prompt"], row["completion"]) for row in data.train} == {
        (f"Dialogue:\nAnn: hi train {i}\nBob:  yes\nSummary:", f" train {i} is short.") for i in range(8)
    }
    assert {(row["prompt"], *row["references"]) for row in data.test} == {
        (f"Dialogue:\nAnn: hi test {i}\nBob:  yes\nSummary:", f"test {i} is short.") for i in range(4)
    }
    assert {line for (line,) in data.validation["references"]} == {f"val {i} is short." for i in range(3)}
    cut = load("samsum", data_dir=str(samsum), words=5)
    assert cut.test["prompt"][0].endswith("\nBob:\nSummary:")
    whole = load("samsum", data_dir=str(samsum), words=None)
    assert whole.test[:] == data.test[:]
    assert len(tasks.resolve(config("samsum", data_dir=str(samsum)))["data_sha256"]) == 64


def test_samsum_from_the_hub(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The hub's CSV files have a training row whose dialogue is missing."""
    rows = {split: dialogues(split, 5) for split in ("train", "validation", "test")}
    hub = DatasetDict({split: Dataset.from_list(part) for split, part in rows.items()})
    hub["train"] = Dataset.from_list([*rows["train"], {"id": "x", "summary": "s", "dialogue": None}])
    asked = []
    monkeypatch.setattr("experiments.tasks._official.load_dataset", lambda name: asked.append(name) or hub)
    data = load("samsum")
    assert asked == ["knkarthick/samsum"]
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 5, 5)
    assert "SAMSum, train: 1 rows without a dialogue or a summary are left out" in caplog.text


def test_samsum_without_the_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(_: str) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr("experiments.tasks._official.load_dataset", offline)
    with pytest.raises(InputError, match="cannot load knkarthick/samsum .* set task.data_dir to a folder with"):
        load("samsum")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*val.json: No such file"),
        ("[", "val.json is not JSON"),
        (b'["\xff"]', "val.json is not UTF-8"),
        ("{}", "val.json should be a list of dialogues"),
        ('[{"dialogue": "A: x", "summary": "y"}, {"dialogue": "z"}]', "val.json: entry 2 should have the texts"),
        ("[3]", "val.json: entry 1 should have the texts dialogue and summary"),
        ('[{"dialogue": " ", "summary": "y"}]', "SAMSum, validation: there are no rows with a dialogue"),
        ("[]", "SAMSum, validation: there are no rows with a dialogue"),
    ],
)
def test_samsum_bad_files(content: str | bytes | None, message: str, samsum: Path) -> None:
    file = samsum / "val.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        load("samsum", data_dir=str(samsum))
    assert "\n" not in str(caught.value)


def test_samsum_bad_fields(samsum: Path) -> None:
    with pytest.raises(InputError, match="task.data_dir: there is no folder"):
        load("samsum", data_dir=str(samsum / "none"))
    with pytest.raises(InputError, match="task.words must be 1 or more, or null for all; got 0"):
        load("samsum", data_dir=str(samsum), words=0)


# The user's own pairs.
def pairs_file(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


PAIRS = [{"prompt": f"{i} squared is", "completion": f" {i * i}", "source": "made"} for i in range(40)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_local_pairs(suffix: str, tmp_path: Path) -> None:
    data = load("local", path=pairs_file(tmp_path / f"mine{suffix}", PAIRS))
    assert (data.metric, data.more_metrics, data.choices) == ("rouge_lf", (), ())
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 4, 4)
    found = [(row["prompt"], row["completion"]) for row in data.train]
    found += [(row["prompt"], *row["references"]) for part in (data.validation, data.test) for row in part]
    assert sorted(found) == sorted((row["prompt"], row["completion"]) for row in PAIRS)


def test_local_pairs_with_several_completions(tmp_path: Path) -> None:
    """As a list, or in several rows: a training pair each, references of one held-out prompt, in one split."""
    rows = [{"prompt": f"p{i}:", "completion": [f" a{i}", f" b{i}"]} for i in range(30)]
    rows += [{"prompt": f"p{i}:", "completion": completion} for i in range(30) for completion in (f" c{i}", f" a{i}")]
    data = load("local", path=pairs_file(tmp_path / "mine.jsonl", rows))
    assert (len(data.train), len(data.validation), len(data.test)) == (24 * 3, 3, 3)
    by_prompt: dict[str, set[str]] = {}
    for row in data.train:
        by_prompt.setdefault(row["prompt"], set()).add(row["completion"])
    for row in (*data.validation, *data.test):
        assert row["prompt"] not in by_prompt
        by_prompt[row["prompt"]] = set(row["references"])
        assert row["references"] == [f" {letter}{row['prompt'][1:-1]}" for letter in "abc"]
    assert by_prompt == {f"p{i}:": {f" a{i}", f" b{i}", f" c{i}"} for i in range(30)}


def test_local_pairs_with_their_own_names_files_and_metric(tmp_path: Path) -> None:
    rows = [{"question": row["prompt"], "answer": row["completion"]} for row in PAIRS]
    names = {"prompt_column": "question", "completion_column": "answer", "metric": "accuracy"}
    train, test = pairs_file(tmp_path / "a.csv", rows), pairs_file(tmp_path / "b.jsonl", rows[:7])
    data = load("local", path=train, test_path=test, **names)
    assert (len(data.train), len(data.validation), len(data.test), data.metric) == (36, 4, 7, "accuracy")
    assert set(data.test["prompt"]) == {row["question"] for row in rows[:7]}
    data = load("local", path=train, test_path=test, validation_path=test, **names)
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 7, 7)


def test_local_labels_come_before_pairs(tmp_path: Path) -> None:
    """A file with the text column is a classification task, whatever else it has."""
    rows = [{"text": f"t{i}", "label": i % 2, "prompt": "p", "completion": [1]} for i in range(40)]
    data = tasks.load(config("local", path=pairs_file(tmp_path / "a.jsonl", rows)))
    assert isinstance(data, tasks.TaskData)
    assert (data.label_names, data.metric) == (("0", "1"), "accuracy")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "p", "completion": "c"}\n\n{"prompt": "q"\n', "a.jsonl: line 3 is not JSON"),
        ("a.jsonl", '{"prompt": "p"}\n', "has no column 'completion'; its columns are: prompt"),
        ("a.csv", "completion\nc\n", "has no column 'prompt'; its columns are: completion"),
        ("a.csv", "prompt,completion\n", "a.csv has no rows"),
        ("a.csv", 'prompt,completion\n"p\np",c\n\nq,\n', "a.csv: line 5 has an empty 'completion'"),
        ("a.jsonl", '{"prompt": "p", "completion": "c"}\n{"completion": "c"}\n', "line 2 has an empty 'prompt'"),
        ("a.jsonl", '{"prompt": "p", "completion": []}\n', "a.jsonl: line 1 has an empty 'completion'"),
        ("a.jsonl", '{"prompt": "p", "completion": ["c", " "]}\n', "a.jsonl: line 1 has an empty 'completion'"),
        ("a.jsonl", '{"prompt": "p", "completion": null}\n', "a.jsonl: line 1 has an empty 'completion'"),
        ("a.jsonl", '{"prompt": "p", "completion": 4}\n', "line 1: 'completion' should be a text or a list of texts"),
        ("a.jsonl", '{"prompt": "p", "completion": ["c", 4]}\n', "line 1: 'completion' should be a text or a list"),
        ("a.jsonl", '{"prompt": ["p"], "completion": "c"}\n', "line 1: 'prompt' should be a text"),
        ("a.csv", "prompt,completion\np,c\np,d\nq,e\n", "a.csv: too few prompts to hold some out: there are 2"),
    ],
)
def test_local_bad_pairs(file: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load("local", path=str(tmp_path / file))
    assert "\n" not in str(caught.value)


def test_local_pairs_need_pairs_in_every_file(tmp_path: Path) -> None:
    train = pairs_file(tmp_path / "a.csv", PAIRS)
    test = pairs_file(tmp_path / "b.csv", [{"text": "t", "label": "l"}])
    with pytest.raises(InputError, match="b.csv has no column 'prompt'; its columns are: text, label"):
        load("local", path=train, test_path=test)

"""E2E, WebNLG and DART: prompts as the paper's authors write them, references together, no input in two splits."""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import tasks
from experiments.metrics import text_metrics
from experiments.tasks import TextData, _facts, _official, e2e
from lora.config import InputError

FAMILIES = ("e2e", "webnlg", "dart")


@cache
def composed(name: str) -> dict[str, Any]:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        task = OmegaConf.to_container(compose(overrides=["+glue_dir=null", f"+task={name}"]).task, resolve=True)
    assert isinstance(task, dict)
    return {str(key): value for key, value in task.items()}


def config(name: str, **fields: Any) -> dict[str, Any]:
    return {**composed(name), **fields}


def load(name: str, folder: Path | None, **fields: Any) -> TextData:
    data = tasks.load(config(name, data_dir=folder and str(folder), **fields))
    assert isinstance(data, TextData)
    return data


# Made-up files in the corpora's formats. Input i has i % 3 + 1 references, "text i.0", "text i.1", …

SAID = [[f"text {i}.{j}" for j in range(i % 3 + 1)] for i in range(60)]
CATEGORIES = ["Food"] * 30 + ["City"] * 20 + ["Airport"] * 4 + ["Monument"] * 3 + ["Astronaut"] * 3


def e2e_lines(which: range) -> str:
    return "".join(f"name : Inn {i} | food : Thai||{text} . \n" for i in which for text in SAID[i])


def webnlg_json(which: range) -> str:
    def entry(i: int) -> dict[str, Any]:
        triple = {"subject": f"Inn_{i}", "property": "servesFood", "object": '"Thai"'}
        place = {"subject": f"Inn_{i}", "property": "city", "object": "Leeds"}
        texts = [{"comment": "good", "lang": "", "lex": text, "xml_id": "Id1"} for text in SAID[i]]
        unfit = {"comment": "toFix", "lang": "", "lex": f"wrong {i}", "xml_id": "Id9"}
        return {"category": CATEGORIES[i], "modifiedtripleset": [triple, place], "lexicalisations": [*texts, unfit]}

    return json.dumps({"entries": [{str(number): entry(i)} for number, i in enumerate(which, 1)]})


def dart_json(which: range) -> str:
    def entry(i: int) -> dict[str, Any]:
        texts = [{"source": "e2e", "text": text} for text in SAID[i]]
        triples = [[f"Inn {i}", "SERVES_FOOD", "Thai"], [f"Inn {i}", "CITY", "Leeds"]]
        return {"tripleset": triples, "subtree_was_extended": False, "annotations": texts}

    return json.dumps([entry(i) for i in which])


def write(folder: Path, content: Callable[[range], str], **files: range) -> Path:
    folder.mkdir(exist_ok=True)
    for name, which in files.items():
        (folder / name.replace("_", ".")).write_text(content(which), encoding="utf-8")
    return folder


def alone(name: str, folder: Path) -> Path:
    """A folder without a training file."""
    if name == "e2e":
        return write(folder, e2e_lines, valid_txt=range(40), test_txt=range(40, 60))
    return write(folder, {"webnlg": webnlg_json, "dart": dart_json}[name], dev_json=range(60))


def official(name: str, folder: Path) -> Path:
    """A folder with a file of each split: inputs 0 to 39, 40 to 49 and 50 to 59."""
    parts = (range(40), range(40, 50), range(50, 60))
    if name == "e2e":
        return write(folder, e2e_lines, **dict(zip(("train_txt", "valid_txt", "test_txt"), parts, strict=True)))
    content = {"webnlg": webnlg_json, "dart": dart_json}[name]
    return write(folder, content, **dict(zip(("train_json", "dev_json", "test_json"), parts, strict=True)))


def number(prompt: str) -> int:
    """The i of the input."""
    return int(prompt.split("Inn")[1].strip(" _").split()[0])


def inputs_of(data: TextData) -> dict[str, set[int]]:
    return {split: {number(prompt) for prompt in getattr(data, split)["prompt"]} for split in tasks.SPLITS}


PROMPTS = {
    "e2e": "name : Inn 7 | food : Thai\n",
    "webnlg": 'Inn_7 : servesFood : "Thai" | Inn_7 : city : Leeds\n',
    "dart": "Inn 7 : serves_food : Thai | Inn 7 : city : Leeds\n",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_and_texts_are_those_of_the_papers_authors(name: str, tmp_path: Path) -> None:
    data = load(name, official(name, tmp_path))
    end = " ." if name == "e2e" else ""
    rows = [row for row in data.train if number(row["prompt"]) == 7]
    assert sorted((row["prompt"], row["completion"]) for row in rows) == [
        (PROMPTS[name], f"text 7.0{end}"),
        (PROMPTS[name], f"text 7.1{end}"),
    ]
    assert len(data.train) == sum(map(len, SAID[:40]))
    for row in data.test:
        assert row["references"] == [text + end for text in SAID[number(row["prompt"])]]


@pytest.mark.parametrize("name", FAMILIES)
def test_official_splits_are_left_as_they_are(name: str, tmp_path: Path) -> None:
    split = inputs_of(load(name, official(name, tmp_path)))
    assert split == {"train": set(range(40)), "validation": set(range(40, 50)), "test": set(range(50, 60))}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_has_every_input_once_with_all_its_references(name: str, tmp_path: Path) -> None:
    data = load(name, alone(name, tmp_path))
    split = inputs_of(data)
    assert sorted(i for part in split.values() for i in part) == list(range(60))
    assert len(data.train) == sum(len(SAID[i]) for i in split["train"])
    for part in (data.validation, data.test):
        assert len(part) == len(set(part["prompt"]))
        assert all(len(row["references"]) == len(SAID[number(row["prompt"])]) for row in part)
    # WebNLG's test set: 6 unseen, its two smallest categories, and 6 seen.
    sizes = {"e2e": (36, 4, 20), "webnlg": (44, 4, 12), "dart": (48, 6, 6)}[name]
    assert tuple(map(len, split.values())) == sizes


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cut_depends_on_split_seed_alone(name: str, tmp_path: Path) -> None:
    folder = alone(name, tmp_path)
    first, again, other = (inputs_of(load(name, folder, split_seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first["validation"] != other["validation"]


def test_e2e_without_train_says_so_and_never_trains_on_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = inputs_of(load("e2e", alone("e2e", tmp_path)))
    assert split["test"] == set(range(40, 60))
    assert "no train.txt" in caplog.text


@pytest.mark.parametrize("seed", range(5))
def test_a_list_of_facts_in_two_orders_is_in_one_part(seed: int) -> None:
    rng = random.Random(seed)
    entries = []
    for i in range(200):
        facts = [f"a : {i % 60}", "b : 1", "c : 2"]
        rng.shuffle(facts)
        entries.append(_facts.Entry.of(facts, ["said"], f"entry {i}"))
    rest, cut = _facts.hold_out(entries, 10, seed, "entries")
    assert len({entry.facts for entry in cut}) == 10
    assert not {entry.facts for entry in cut} & {entry.facts for entry in rest}
    assert len(rest) + len(cut) == 200


# Seen and unseen categories.


def test_webnlg_official_groups_are_the_categories_of_training(tmp_path: Path) -> None:
    data = load("webnlg", official("webnlg", tmp_path))  # training: Food, and ten of City
    groups = {number(row["prompt"]): row["group"] for row in data.test}
    assert groups == dict.fromkeys(range(50, 60), "unseen")
    assert "group" not in data.validation.column_names


@pytest.mark.parametrize("seed", range(3))
def test_webnlg_dev_alone_holds_out_its_smallest_categories(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load("webnlg", alone("webnlg", tmp_path), split_seed=seed)
    groups = {
        group: [number(row["prompt"]) for row in data.test if row["group"] == group] for group in ("seen", "unseen")
    }
    assert {CATEGORIES[i] for i in groups["unseen"]} == {"Astronaut", "Monument"}  # 3 + 3: a tenth of 60
    assert len(groups["unseen"]) == len(groups["seen"]) == 6
    for part in (data.train, data.validation):
        assert not {CATEGORIES[number(prompt)] for prompt in part["prompt"]} & {"Astronaut", "Monument"}
    assert "Astronaut, Monument unseen" in caplog.text


def test_webnlg_triples_in_a_seen_and_an_unseen_category_are_not_trained_on(tmp_path: Path) -> None:
    data = json.loads(webnlg_json(range(60)))
    twin = dict(data["entries"][59]["60"], category="Food")
    twin["modifiedtripleset"] = twin["modifiedtripleset"][::-1]
    data["entries"].append({"61": twin})
    (tmp_path / "dev.json").write_text(json.dumps(data))
    split = inputs_of(load("webnlg", tmp_path))
    assert 59 in split["test"]
    assert 59 not in split["train"] | split["validation"]


def test_metrics_come_for_all_and_for_each_group(tmp_path: Path) -> None:
    data = load("webnlg", alone("webnlg", tmp_path))
    rows = data.test.to_list()
    scores = text_metrics.score(["accuracy"], rows, [row["references"][0] for row in rows])
    assert scores == {"accuracy": 1.0, "accuracy_seen": 1.0, "accuracy_unseen": 1.0}


def test_webnlg_leaves_out_what_is_not_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = json.loads(webnlg_json(range(60)))
    for text in data["entries"][4]["5"]["lexicalisations"]:
        text["comment"] = "toFix"
    (tmp_path / "dev.json").write_text(json.dumps(data))
    loaded = load("webnlg", tmp_path)
    assert 4 not in set.union(*inputs_of(loaded).values())
    assert not any("wrong" in text for text in loaded.train["completion"])
    assert "1 of 60 entries left out" in caplog.text


def test_dart_takes_the_names_of_its_release(tmp_path: Path) -> None:
    official("dart", tmp_path)
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.json").rename(tmp_path / f"dart-v1.1.1-full-{split}.json")
    assert inputs_of(load("dart", tmp_path))["test"] == set(range(50, 60))


# The hub, as its Parquet branches have these corpora.


def on_the_hub(name: str, i: int) -> list[dict[str, Any]]:
    if name == "e2e":
        representation = f"name[Inn {i}], eatType[pub], priceRange[£20-25], familyFriendly[yes], near[Café Rouge]"
        return [{"meaning_representation": representation, "human_reference": text} for text in SAID[i]]
    if name == "webnlg":
        lex = {"comment": ["good"] * len(SAID[i]) + ["toFix"], "text": [*SAID[i], "wrong"]}
        triples = {"mtriple_set": [[f'Inn_{i} | servesFood | "Thai"', f"Inn_{i} | city | Leeds"]]}
        return [{"category": CATEGORIES[i], "modified_triple_sets": triples, "lex": lex}]
    annotations = {"source": ["e2e"] * len(SAID[i]), "text": SAID[i]}
    return [
        {"tripleset": [[f"Inn {i}", "SERVES_FOOD", "Thai"], [f"Inn {i}", "CITY", "Leeds"]], "annotations": annotations}
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_hub_gives_the_same_as_the_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def load_dataset(repository: str, data_dir: str, revision: str) -> DatasetDict:
        asked.append((repository, data_dir, revision))
        parts = {"train": range(40), "validation": range(40, 50), "test": range(50, 60)}
        rows = {split: [row for i in which for row in on_the_hub(name, i)] for split, which in parts.items()}
        return DatasetDict({split: Dataset.from_list(part) for split, part in rows.items()})

    monkeypatch.setattr(_official, "load_dataset", load_dataset)
    hub = load(name, None)
    assert asked[0][2] == "refs/convert/parquet"
    files = load(name, official(name, tmp_path))
    for split in tasks.SPLITS:
        ours, theirs = (getattr(data, split).to_list() for data in (hub, files))
        if name == "e2e":  # whose file is tokenised; the attributes are others here
            wanted = f"name : Inn {number(ours[0]['prompt'])} | Type : pub | price : £20-25 | family friendly : yes"
            assert ours[0]["prompt"] == f"{wanted} | near : Café Rouge\n"
            assert [number(row["prompt"]) for row in ours] == [number(row["prompt"]) for row in theirs]
        else:
            assert ours == theirs


@pytest.mark.parametrize("name", FAMILIES)
def test_no_hub_is_one_line_that_names_data_dir(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(_official, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"cannot load .*ConnectionError: no route\).*task.data_dir") as caught:
        load(name, None)
    assert "\n" not in str(caught.value)


def test_attributes_of_the_hub_are_those_of_the_files() -> None:
    assert e2e.facts("name[The Mill], customer rating[5 out of 5], food[]") == [
        "name : The Mill",
        "customer rating : 5 out of 5",
        "food : ",
    ]


# Bad input: one line that says where.


def error_of(name: str, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(name, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_folders_and_files_are_named(name: str, tmp_path: Path) -> None:
    assert error_of(name, tmp_path / "nowhere") == f"task.data_dir: there is no folder {tmp_path}/nowhere"
    assert {"e2e": "valid.txt", "webnlg": "no train.json", "dart": "no train.json"}[name] in error_of(name, tmp_path)
    official(name, tmp_path)
    (tmp_path / ("test.txt" if name == "e2e" else "test.json")).unlink()
    assert "test" in error_of(name, tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("name : Inn 1 | a Thai inn", "line 3 has no '||'"),
        ("", "line 3 has no '||'"),
        ("name : Inn 1|| ", "line 3 has an empty reference"),
        (" ||a Thai inn", "line 3 has an empty fact"),
    ],
)
def test_e2e_lines_that_are_damaged(line: str, says: str, tmp_path: Path) -> None:
    write(tmp_path, e2e_lines, test_txt=range(3))
    (tmp_path / "valid.txt").write_text(f"a : 1||x\na : 2||y\n{line}\na : 3||z\n")
    assert f"{tmp_path}/valid.txt: {says}" in error_of("e2e", tmp_path)


def test_files_that_are_empty_not_utf8_or_too_small(tmp_path: Path) -> None:
    write(tmp_path, e2e_lines, valid_txt=range(3), test_txt=range(3))
    (tmp_path / "test.txt").write_text("")
    assert error_of("e2e", tmp_path) == f"{tmp_path}/test.txt is empty"
    (tmp_path / "test.txt").write_bytes(b"a : 1||caf\xe9\n")
    assert "test.txt is not UTF-8" in error_of("e2e", tmp_path)
    write(tmp_path, e2e_lines, valid_txt=range(1), test_txt=range(3))
    assert "too few different inputs to hold 1 out: there are 1" in error_of("e2e", tmp_path)
    write(tmp_path, webnlg_json, dev_json=range(30))  # one category
    assert "too few different inputs" in error_of("webnlg", tmp_path)
    write(tmp_path, dart_json, dev_json=range(1))
    assert "too few different inputs" in error_of("dart", tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"entries": [', "is not JSON"),
        ("[]", "should have a list named entries"),
        ('{"entries": []}', "no entries with a good reference"),
        ('{"entries": [{"1": {"category": "Food"}}]}', "entry 1 should have a category"),
        ('{"entries": ["1"]}', "entry 1 should have a category"),
        ('{"entries": [{}]}', "entry 1 should have a category"),
        (webnlg_json(range(9)).replace("text 4.0", " "), "entry 5 has an empty reference"),
        (webnlg_json(range(9)).replace('"text 4.0"', "null"), "entry 5 should have a category"),
        (
            webnlg_json(range(9)).replace('"modifiedtripleset": [', '"modifiedtripleset": [], "x": [', 1),
            "1 has no fact",
        ),
    ],
)
def test_webnlg_files_that_are_damaged(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(content)
    message = error_of("webnlg", tmp_path)
    assert message.startswith(f"{tmp_path}/dev.json")
    assert says in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "is not JSON"),
        ("{}", "should be a list of entries"),
        ("[]", "should be a list of entries"),
        ("[1]", "entry 1 should have a tripleset"),
        ('[{"tripleset": [["a", "B"]], "annotations": [{"text": "x"}]}]', "entry 1 should have a tripleset"),
        ('[{"tripleset": [["a", "B", "c"]], "annotations": [{"text": null}]}]', "entry 1 should have a tripleset"),
        ('[{"tripleset": [["a", "B", "c"]], "annotations": []}]', "entry 1 has no reference"),
        ('[{"tripleset": [], "annotations": [{"text": "x"}]}]', "entry 1 has no fact"),
        (dart_json(range(9)).replace("text 4.1", "\\t"), "entry 5 has an empty reference"),
    ],
)
def test_dart_files_that_are_damaged(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(content)
    message = error_of("dart", tmp_path)
    assert message.startswith(f"{tmp_path}/dev.json")
    assert says in message


@pytest.mark.parametrize("name", FAMILIES)
def test_configs_name_metrics_that_there_are(name: str) -> None:
    task = config(name)
    text_metrics.check([task["metric"], *task["more_metrics"]])
    assert list(task)[:4] == ["name", "family", "data_dir", "metric"]
    assert set(task["generation"]) == {"beams", "length_penalty", "no_repeat_ngram", "max_new_tokens"}
    assert task["generation"]["max_new_tokens"] < task["max_length"]

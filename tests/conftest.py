"""Small made-up corpora in the formats of the real ones, for tests that must not touch the hub."""

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SIZES = {"train": 40, "dev": 8, "test": 8}
GLUE = {
    "mnli": ("gold_label", ("entailment", "neutral", "contradiction")),
    "rte": ("label", ("entailment", "not_entailment")),
}


# The files whose single tests take longest. They begin first, so that no core is left alone with one at the end.
LONG = ("test_make.py", "experiments/engines/", "experiments/test_memory_", "experiments/test_protocol", "test_bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, in an order that is the same in every process."""
    root = Path(__file__).parent
    items.sort(key=lambda item: not item.path.relative_to(root).as_posix().startswith(LONG))


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector, which each run calls, need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders e2e, dart, webnlg, wikisql, samsum, mnli and rte: 40 examples in train, 8 in dev (and test)."""
    root = tmp_path_factory.mktemp("corpora")
    first = 0
    for split, size in SIZES.items():
        numbers = range(first, first + size)
        first += size
        _write(root / "e2e" / f"{split.replace('dev', 'valid')}.txt", [_e2e(i) for i in numbers])
        _write(root / "dart" / f"{split}.json", [json.dumps([_dart(i) for i in numbers])])
        entries = [{str(number): _webnlg(i)} for number, i in enumerate(numbers, 1)]
        _write(root / "webnlg" / f"{split}.json", [json.dumps({"entries": entries})])
        _write(root / "wikisql" / f"{split}.jsonl", [json.dumps(_question(i)) for i in numbers])
        _write(root / "wikisql" / f"{split}.tables.jsonl", [json.dumps(_table(i)) for i in numbers])
        _write(root / "samsum" / f"{split.replace('dev', 'val')}.json", [json.dumps([_dialogue(i) for i in numbers])])
        for task, (label, names) in GLUE.items():
            rows = [f"There are {i} rooms in the inn.\tThe inn has rooms.\t{names[i % len(names)]}" for i in numbers]
            _write(root / task / f"{split}.tsv", [f"sentence1\tsentence2\t{label}", *rows])
    return root


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _e2e(i: int) -> str:
    return f"name : Inn {i} | food : Thai||Inn {i} serves Thai food ."


def _dart(i: int) -> dict[str, Any]:
    triples = [[f"Inn {i}", "SERVES_FOOD", "Thai"], [f"Inn {i}", "CITY", "Leeds"]]
    return {"tripleset": triples, "annotations": [{"source": "e2e", "text": f"Inn {i} in Leeds serves Thai food."}]}


def _webnlg(i: int) -> dict[str, Any]:
    texts = [{"comment": "good", "lang": "", "lex": f"Inn {i} is in Leeds.", "xml_id": "Id1"}]
    triples = [{"subject": f"Inn_{i}", "property": "city", "object": "Leeds"}]
    # The test set has a category that training has not.
    category = "Airport" if i >= SIZES["train"] + SIZES["dev"] and i % 2 else "Food"
    return {"category": category, "modifiedtripleset": triples, "lexicalisations": texts}


def _table(i: int) -> dict[str, Any]:
    return {
        "id": f"1-{i}",
        "header": ["Inn", "Rooms"],
        "types": ["text", "real"],
        "rows": [[f"Inn {i}", i], ["Other", 3]],
    }


def _question(i: int) -> dict[str, Any]:
    sql = {"sel": 1, "agg": 0, "conds": [[0, 0, f"Inn {i}"]]}
    return {"table_id": f"1-{i}", "question": f"How many rooms has Inn {i}?", "sql": sql}


def _dialogue(i: int) -> dict[str, Any]:
    dialogue = f"Ann: Where do we stay?\r\nBob: At Inn {i}."
    return {"id": str(i), "dialogue": dialogue, "summary": f"Ann and Bob stay at Inn {i}."}

"""DART: texts from triples of tables, WebNLG and E2E (Nan et al. 2021, arXiv:2007.02871), the paper's Table 13."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.tasks import TextData
from experiments.tasks._facts import Entry, hold_out, inputs, pairs, read_json, tenth
from experiments.tasks._official import PARQUET, from_hub, official_files
from lora.config import InputError

log = logging.getLogger(__name__)

HUB = "Yale-LILY/dart"  # version 1.1.1, the paper's
FILES = {
    "train": ("train.json", "dart-v1.1.1-full-train.json"),
    "validation": ("dev.json", "dart-v1.1.1-full-dev.json"),
    "test": ("test.json", "dart-v1.1.1-full-test.json"),
}


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: data_dir (a folder of DART's JSON files; null: the hub), split_seed, metric. The official splits.

    A folder with the dev file alone is cut: a tenth of its lists of triples is the test set, a tenth the validation
    set, and none is in two. Raises InputError for files that are missing or not in DART's format, and where the hub
    cannot be reached.
    """
    parts = _from_hub() if task["data_dir"] is None else _from_folder(task["data_dir"], task["split_seed"])
    return TextData(pairs(parts["train"]), inputs(parts["validation"]), inputs(parts["test"]), task["metric"])


def _from_folder(data_dir: str, seed: int) -> dict[str, list[Entry]]:
    files = official_files(data_dir, FILES)
    parts = {split: read(path) for split, path in files.items()}
    if "train" not in parts:
        given, where = parts["validation"], files["validation"]
        log.warning("%s is the only file: a tenth of it is the test set", where)
        rest, parts["test"] = hold_out(given, tenth(given), seed, str(where))
        parts["train"], parts["validation"] = hold_out(rest, tenth(given), seed, str(where))
    return parts


def read(path: Path) -> list[Entry]:
    """The entries. Raises InputError, with the entry, for what is not in DART's format."""
    records = read_json(path)
    if not isinstance(records, list) or not records:
        raise InputError(f"{path} should be a list of entries, each with a tripleset and annotations")
    return _entries(records, str(path))


def _entries(records: Iterable[Any], where: str) -> list[Entry]:
    entries = []
    for number, record in enumerate(records, start=1):
        place = f"{where}: entry {number}"
        try:
            # The authors write the relations, which are in capitals, in small letters.
            facts = [f"{subject} : {relation.lower()} : {value}" for subject, relation, value in record["tripleset"]]
            texts = [annotation["text"].strip() for annotation in record["annotations"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{place} should have a tripleset, of three texts each, and annotations with text"
            ) from error
        entries.append(Entry.of(facts, texts, place))
    return entries


def _from_hub() -> dict[str, list[Entry]]:
    data = from_hub(HUB, "DART's train.json, dev.json and test.json", data_dir="default", revision=PARQUET)

    def as_in_json(row: Mapping[str, Any]) -> dict[str, Any]:  # the hub has {"text": [...]}, not [{"text": ...}]
        return {"tripleset": row["tripleset"], "annotations": [{"text": text} for text in row["annotations"]["text"]]}

    return {split: _entries(map(as_in_json, data[split]), f"{HUB}, {split}") for split in FILES}

"""WebNLG: texts from one to seven DBpedia triples (the challenge of 2017: Gardent et al.), the paper's Table 14.

The test set has categories that training has (seen) and others (unseen): each metric is reported for all and for both.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.tasks import TextData
from experiments.tasks._facts import Entry, hold_out, inputs, pairs, read_json, tenth
from experiments.tasks._official import PARQUET, from_hub, official_files
from lora.config import InputError

log = logging.getLogger(__name__)

HUB = "ThiagoCF05/enriched_web_nlg"  # the challenge's 6,940, 872 and 1,862 entries, with more annotations
FILES = {"train": ("train.json",), "validation": ("dev.json",), "test": ("test.json",)}


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: data_dir (a folder of the challenge's JSON files; null: the hub), split_seed, metric.

    The official splits of train.json, dev.json and test.json; a folder with dev.json alone is cut by `cut`. References
    that are not marked good are left out, as the paper's authors do. Raises InputError for files that are missing or
    not in the challenge's format, and where the hub cannot be reached.
    """
    seed = task["split_seed"]
    parts = _from_hub() if task["data_dir"] is None else _from_folder(task["data_dir"], seed)
    seen = {entry.category for entry in parts["train"]}
    test = inputs(parts["test"], lambda entry: "seen" if entry.category in seen else "unseen")
    return TextData(pairs(parts["train"]), inputs(parts["validation"]), test, task["metric"])


def cut(entries: list[Entry], seed: int, where: str) -> dict[str, list[Entry]]:
    """Train, validation and test of one set, no list of triples in two of them.

    The smallest categories that together have a tenth of the entries are the unseen part of the test set, whatever the
    seed. The seen part has as many lists of triples from the other categories, validation a tenth of what then is left.
    Raises InputError for too few categories or lists.
    """
    sizes = sorted(Counter(entry.category for entry in entries).items(), key=lambda item: (item[1], item[0]))
    unseen: set[str] = set()
    for category, _ in sizes:
        if sum(size for name, size in sizes if name in unseen) * 10 >= len(entries):
            break
        unseen.add(category)
    held_out = {entry.facts for entry in entries if entry.category in unseen}
    rest = [entry for entry in entries if entry.facts not in held_out]
    rest, test = hold_out(rest, len(held_out), seed, where)
    train, validation = hold_out(rest, tenth(rest), seed, where)
    test += [entry for entry in entries if entry.facts in held_out]
    log.warning("%s is the only file: a part of it is the test set, with %s unseen", where, ", ".join(sorted(unseen)))
    return {"train": train, "validation": validation, "test": test}


def _from_folder(data_dir: str, seed: int) -> dict[str, list[Entry]]:
    files = official_files(data_dir, FILES)
    parts = {split: read(path) for split, path in files.items()}
    return parts if "train" in parts else cut(parts["validation"], seed, str(files["validation"]))


def read(path: Path) -> list[Entry]:
    """The entries with a good reference. Raises InputError, with the entry, for what is not in the challenge's form."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("entries"), list):
        raise InputError(f"{path} should have a list named entries")
    # Each is a mapping from its number to itself.
    records = [next(iter(entry.values()), None) if isinstance(entry, dict) else None for entry in data["entries"]]
    return _entries(records, str(path))


def _entries(records: Iterable[Any], where: str) -> list[Entry]:
    entries, without = [], 0
    for number, record in enumerate(records, start=1):
        place = f"{where}: entry {number}"
        try:
            triples = record["modifiedtripleset"]
            facts = [f"{triple['subject']} : {triple['property']} : {triple['object']}" for triple in triples]
            good = [text["lex"].strip() for text in record["lexicalisations"] if text["comment"] == "good"]
            category = str(record["category"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{place} should have a category, a modifiedtripleset (subject, property, object) and lexicalisations "
                "(lex, comment)"
            ) from error
        if good:
            entries.append(Entry.of(facts, good, place, category))
        else:
            without += 1
    if without:
        log.warning(
            "%s: %d of %d entries left out: no reference is marked good", where, without, len(entries) + without
        )
    if not entries:
        raise InputError(f"{where} has no entries with a good reference")
    return entries


def _from_hub() -> dict[str, list[Entry]]:
    data = from_hub(HUB, "the challenge's train.json, dev.json and test.json", data_dir="en", revision=PARQUET)
    return {split: _entries(map(_as_in_json, data[split]), f"{HUB}, {split}") for split in FILES}


def _as_in_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the hub, whose triples are `subject | property | object`, in the form of the challenge's JSON."""
    triples = [triple.split(" | ", 2) for triple in row["modified_triple_sets"]["mtriple_set"][0]]
    texts = zip(row["lex"]["comment"], row["lex"]["text"], strict=True)
    return {
        "category": row["category"],
        "modifiedtripleset": [dict(zip(("subject", "property", "object"), triple, strict=True)) for triple in triples],
        "lexicalisations": [{"comment": comment, "lex": text} for comment, text in texts],
    }

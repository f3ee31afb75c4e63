"""E2E: restaurants described from a few attributes (Novikova et al. 2017, arXiv:1706.09254), the paper's Table 3.

A meaning representation (MR), such as `name : Aromi | food : Chinese`, has several references.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.tasks import TextData
from experiments.tasks._facts import Entry, hold_out, inputs, pairs, tenth
from experiments.tasks._official import PARQUET, folder, from_hub
from experiments.tasks._reading import read_text
from lora.config import InputError

log = logging.getLogger(__name__)

HUB = "tuetschek/e2e_nlg"  # untokenised, where the authors' files are tokenised: scores of the two are not comparable
ATTRIBUTES = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}  # as in the authors' files


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: data_dir (a folder of the paper's authors' train.txt, valid.txt and test.txt; null: the hub),
    split_seed, metric. The official splits.

    Without train.txt the training set is valid.txt, less a tenth of its MRs with all their
    references, which are the validation set. Raises InputError for a file that is missing or not in the authors'
    format, `MR||reference` in each line, and where the hub cannot be reached.
    """
    if task["data_dir"] is None:
        parts = _from_hub()
    else:
        place = folder(task["data_dir"])
        parts = {"validation": read(place / "valid.txt"), "test": read(place / "test.txt")}
        if (place / "train.txt").is_file():
            parts["train"] = read(place / "train.txt")
        else:
            log.warning("%s has no train.txt: training on nine tenths of valid.txt, validation on the rest", place)
            given = parts["validation"]
            cut = hold_out(given, tenth(given), task["split_seed"], str(place / "valid.txt"))
            parts["train"], parts["validation"] = cut
    return TextData(pairs(parts["train"]), inputs(parts["validation"]), inputs(parts["test"]), task["metric"])


def read(path: Path) -> list[Entry]:
    """An entry a line. Raises InputError, with the line, for one without `||`, and for an empty MR or reference."""
    lines = read_text(path).removesuffix("\n").split("\n")
    if lines == [""]:
        raise InputError(f"{path} is empty")
    entries = []
    for number, line in enumerate(lines, start=1):
        representation, separator, reference = line.partition("||")
        if not separator:
            raise InputError(f"{path}: line {number} has no '||' between the meaning representation and the reference")
        entries.append(Entry.of(representation.strip().split(" | "), [reference], f"{path}: line {number}"))
    return entries


def _from_hub() -> dict[str, list[Entry]]:
    data = from_hub(HUB, "the authors' train.txt, valid.txt and test.txt", data_dir="default", revision=PARQUET)
    return {
        split: [
            Entry.of(facts(row["meaning_representation"]), [row["human_reference"]], f"{HUB}, {split}: row {number}")
            for number, row in enumerate(data[split], start=1)
        ]
        for split in ("train", "validation", "test")
    }


def facts(representation: str) -> list[str]:
    """`name[Aromi], eatType[pub]` as the authors' files have it: ["name : Aromi", "Type : pub"]."""
    found = re.findall(r"(\w[\w ]*)\[([^\]]*)\]", representation)
    return [f"{ATTRIBUTES.get(attribute, attribute)} : {value}" for attribute, value in found]

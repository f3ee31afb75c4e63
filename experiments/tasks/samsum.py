"""SAMSum: 16k messenger dialogues with summaries (Gliwa et al. 2019, arXiv:1911.12237), the paper's Table 4."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.tasks import TextData
from experiments.tasks._frames import columns
from experiments.tasks._official import folder, from_hub
from experiments.tasks._reading import parse_json, read_text
from lora.config import InputError

log = logging.getLogger(__name__)

HUB = "knkarthick/samsum"  # the corpus as CSV files; Samsung's own repository has a loading script
FILES = {"train": "train.json", "validation": "val.json", "test": "test.json"}


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: data_dir (a folder with the corpus's JSON files; null: the hub), words, metric. The official splits.

    Of a dialogue the first `words` words are kept (null: all). Raises InputError for fewer than 1, a file that is
    missing or not in the corpus's format, and where the hub cannot be reached.
    """
    if task["words"] is not None and task["words"] < 1:
        raise InputError(f"task.words must be 1 or more, or null for all; got {task['words']}")
    parts = _from_hub() if task["data_dir"] is None else _from_folder(folder(task["data_dir"]))
    found: dict[str, list[tuple[str, str]]] = {}
    for split, frame in parts.items():
        # The corpus has a dialogue without any text.
        whole = (frame[["dialogue", "summary"]].fillna("").map(str.strip) != "").all(axis=1)
        if not whole.all():
            log.warning("SAMSum, %s: %d rows without a dialogue or a summary are left out", split, (~whole).sum())
        if not whole.any():
            raise InputError(f"SAMSum, {split}: there are no rows with a dialogue and a summary")
        rows = frame[whole][["dialogue", "summary"]].itertuples(index=False, name=None)
        found[split] = [(prompt(dialogue, task["words"]), " ".join(summary.split())) for dialogue, summary in rows]
    pairs = columns(((asked, f" {text}") for asked, text in found["train"]), "prompt", "completion")
    validation, test = (
        columns(((asked, [text]) for asked, text in found[split]), "prompt", "references")
        for split in ("validation", "test")
    )
    return TextData(pairs, validation, test, task["metric"])


def prompt(dialogue: str, words: int | None) -> str:
    """The dialogue, a line an utterance, cut after `words` words, and the place of the summary."""
    lines = re.sub(r"\s*[\r\n]+\s*", "\n", dialogue.strip())
    ends = [match.end() for match in re.finditer(r"\S+", lines)][:words]
    return f"Dialogue:\n{lines[: ends[-1]]}\nSummary:"


def _from_hub() -> dict[str, pd.DataFrame]:
    data = from_hub(HUB, f"SAMSum's {', '.join(FILES.values())}")
    return {split: data[split].to_pandas() for split in FILES}


def _from_folder(place: Path) -> dict[str, pd.DataFrame]:
    return {split: _read_json(place / name) for split, name in FILES.items()}


def _read_json(path: Path) -> pd.DataFrame:
    rows = parse_json(read_text(path), str(path))
    if not isinstance(rows, list):
        raise InputError(f"{path} should be a list of dialogues, each with the fields dialogue and summary")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in ("dialogue", "summary")):
            raise InputError(f"{path}: entry {number} should have the texts dialogue and summary")
    return pd.DataFrame(rows, columns=["dialogue", "summary"])

"""What the data-to-text families share: inputs that are lists of facts, and splits with no list in two of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from sklearn.model_selection import train_test_split

from experiments.tasks._reading import parse_json, read_text
from lora.config import InputError


@dataclass(frozen=True)
class Entry:
    """A list of facts and texts that say it. Entries with one prompt are one input, their texts its references."""

    prompt: str
    references: tuple[str, ...]
    facts: frozenset[str]  # without their order
    category: str = ""

    @classmethod
    def of(cls, facts: Sequence[str], references: Sequence[str], where: str, category: str = "") -> "Entry":
        """The prompt as the paper's authors write it, `fact | fact | …`, and a line break after which the text follows.

        Raises InputError, beginning with `where`, for an empty list, fact or reference.
        """
        texts = tuple(text.strip() for text in references)
        for name, parts in (("fact", facts), ("reference", texts)):
            if not parts or not all(part.strip(" :") for part in parts):
                raise InputError(f"{where} has {'an empty' if parts else 'no'} {name}")
        return cls(" | ".join(facts) + "\n", texts, frozenset(facts), category)


def pairs(entries: Sequence[Entry]) -> Dataset:
    """Columns prompt and completion, a row for each reference, as a training set."""
    rows = [{"prompt": entry.prompt, "completion": text} for entry in entries for text in entry.references]
    return Dataset.from_list(rows)


def inputs(entries: Sequence[Entry], group: Callable[[Entry], str] | None = None) -> Dataset:
    """Columns prompt, references and, given `group`, group (of the first entry): a row a prompt, as a test set."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        named = {} if group is None else {"group": group(entry)}
        row = rows.setdefault(entry.prompt, {"prompt": entry.prompt, "references": [], **named})
        row["references"].extend(entry.references)
    return Dataset.from_list(list(rows.values()))


def hold_out(entries: Sequence[Entry], size: int, seed: int, where: str) -> tuple[list[Entry], list[Entry]]:
    """(rest, cut): the cut has `size` lists of facts with all their entries, so that none is in both.

    Raises InputError if nothing would be left.
    """
    lists = list(dict.fromkeys(entry.facts for entry in entries))
    if not 0 < size < len(lists):
        raise InputError(f"{where}: too few different inputs to hold {max(size, 1)} out: there are {len(lists)}")
    cut = set(train_test_split(lists, test_size=size, random_state=seed)[1])
    return [e for e in entries if e.facts not in cut], [e for e in entries if e.facts in cut]


def tenth(entries: Sequence[Entry]) -> int:
    """A tenth of the different lists of facts, at least 1."""
    return max(1, len({entry.facts for entry in entries}) // 10)


def read_json(path: Path) -> Any:
    """Raises InputError as `read_text` and `parse_json`."""
    return parse_json(read_text(path), str(path))

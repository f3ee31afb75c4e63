"""What the data-to-text families share: inputs that are lists of facts, and splits with no list in two of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from sklearn.model_selection import train_test_split

from experiments.paths import user_path
from experiments.tasks._hub import load_dataset
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


def folder(data_dir: str) -> Path:
    """The folder; raises InputError if it is not there."""
    path = user_path(data_dir)
    if not path.is_dir():
        raise InputError(f"task.data_dir: there is no folder {path}")
    return path


def official_files(data_dir: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    """The file of each split, the first of its names that is there: all three, or validation alone.

    Raises InputError if there is no such folder, or some other set of files in it.
    """
    place = folder(data_dir)
    files = {}
    for split, given in names.items():
        there = [place / name for name in given if (place / name).is_file()]
        if there:
            files[split] = there[0]
    missing = [" or ".join(given) for split, given in names.items() if split not in files]
    if missing and set(files) != {"validation"}:
        alone = " or ".join(names["validation"])
        raise InputError(
            f"task.data_dir: there is no {missing[0]} in {place}; it should have a file of each split, or {alone} alone"
        )
    return files


def read_json(path: Path) -> Any:
    """Raises InputError as `read_text` and `parse_json`."""
    return parse_json(read_text(path), str(path))


def from_hub(repository: str, directory: str, files: str) -> DatasetDict:
    """train, validation and test of a repository whose own data need a loading script, which datasets no longer runs.

    The hub converts such repositories to Parquet, in a branch with a directory for each configuration. Raises
    InputError, naming the `files` that data_dir takes, where the hub cannot be reached.
    """
    try:
        return load_dataset(repository, data_dir=directory, revision="refs/convert/parquet")
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"cannot load {repository} ({directory}) from the Hugging Face hub, nor from its cache ({reason}); "
            f"set task.data_dir to a folder with {files}"
        ) from error

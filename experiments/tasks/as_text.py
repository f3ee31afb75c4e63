"""Classification as text: a language model writes the label, a word after a prompt (MNLI in the paper's Tables 4, 8).

Any classification family serves: its texts fill a template, its labels become words. The rows are those of the
classification task, in the same splits. Of the training examples some can be shown in the prompt: in-context learning
(Brown et al. 2020; few-shot in the paper's Table 8).
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from string import Formatter
from typing import Any

import pandas as pd
from datasets import Dataset

from experiments.tasks import PATH_FIELDS, TaskData, TextData
from lora.config import InputError


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: of (a family, its fields), template, words, words_per_text, shots, shots_seed, split_seed, metric.

    The family's files and folders are named beside `of`, not in it, so that the run's id knows them. Each text is cut
    to words_per_text words (null: whole): the template's end is in every prompt. Raises InputError for a family
    that does not classify, a template or words that do not fit its data, and bad shots.
    """
    if task["words_per_text"] is not None and task["words_per_text"] < 1:
        raise InputError(f"task.words_per_text must be 1 or more, or null for all; got {task['words_per_text']}")
    data = _classification(task)
    columns = [column for column in ("text", "text_pair") if column in data.train.column_names]
    _check_template(task["template"], columns)
    words = _words(task, data.label_names)

    def prompts(part: Dataset) -> list[str]:
        texts = [[" ".join(text.split()[: task["words_per_text"]]) for text in part[column]] for column in columns]
        return [task["template"].format(**dict(zip(columns, row, strict=True))) for row in zip(*texts, strict=True)]

    def inputs(part: Dataset) -> Dataset:
        return Dataset.from_dict({"prompt": prompts(part), "references": [[words[label]] for label in part["label"]]})

    pairs = {"prompt": prompts(data.train), "completion": [words[label] for label in data.train["label"]]}
    text = TextData(Dataset.from_dict(pairs), inputs(data.validation), inputs(data.test), task["metric"], choices=words)
    return _with_shots(text, task["shots"], task["shots_seed"])


def _classification(task: Mapping[str, Any]) -> TaskData:
    """The data of the family in `of`, neither shuffled nor cut: tasks.load does that once, as for the family itself."""
    family = task["of"]["family"]
    for field in PATH_FIELDS:
        if field in task["of"]:
            raise InputError(f"task.of.{field} is in the wrong place: give it as task.{field}")
    if importlib.util.find_spec(f"experiments.tasks.{family}") is None:
        raise InputError(f"unknown task family '{family}' in task.of.family")
    own = {field: task[field] for field in ("split_seed", "metric", *PATH_FIELDS) if field in task}
    data = importlib.import_module(f"experiments.tasks.{family}").load({**task["of"], **own})
    if not isinstance(data, TaskData) or not data.label_names:
        raise InputError(f"task.of.family = {family} has no classes: only classification can be written as text")
    return data


def _check_template(template: str, columns: list[str]) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise InputError(f"task.template = {template!r}: {error}; a brace that is text is written twice") from error
    if sorted(fields) != columns:
        wanted = " and ".join(f"{{{column}}}" for column in columns)
        raise InputError(f"task.template = {template!r}: it must have {wanted}, once, and no other field in braces")


def _words(task: Mapping[str, Any], label_names: tuple[str, ...]) -> tuple[str, ...]:
    """The words of the labels, in the labels' order."""
    words = {str(label): str(word) for label, word in task["words"].items()}
    for label in label_names:
        if not words.get(label, "").strip():
            raise InputError(f"task.words has no word for the label '{label}'; the labels: {', '.join(label_names)}")
    unknown = [label for label in words if label not in label_names]
    if unknown:
        raise InputError(f"task.words has the unknown label '{unknown[0]}'; the labels: {', '.join(label_names)}")
    if len({word.strip() for word in words.values()}) < len(words):
        raise InputError(f"task.words has one word for two labels: {', '.join(words.values())}")
    for word in words.values():
        # Prompt and word are tokenized apart: tokens of words hold the space before them, seldom the one after them.
        if word[0].isspace() == task["template"][-1].isspace():
            raise InputError(
                f"task.words: one white space must stand between the template and '{word}': begin the word with a "
                "space, or end the template with a line break"
            )
    return tuple(words[label] for label in label_names)


def _with_shots(data: TextData, shots: int, seed: int) -> TextData:
    """Put the same `shots` demonstrations before every prompt of validation and test; train stays as it is.

    A demonstration is a training pair, prompt and completion; blank lines stand between them. Which they are and their
    order depend on the training pairs and the seed alone. Raises InputError for a number that is negative, or larger
    than that of the prompts in the training set.
    """
    if shots < 0:
        raise InputError(f"task.shots must be 0 or more; got {shots}")
    if shots == 0:
        return data
    before = "".join(f"{text}\n\n" for text in draw(data.train, shots, seed))

    def shown(part: Dataset) -> Dataset:
        columns = part[:]
        prompts = [before + prompt for prompt in columns["prompt"]]
        return Dataset.from_dict({**columns, "prompt": prompts}, features=part.features)

    return replace(data, validation=shown(data.validation), test=shown(data.test))


def draw(train: Dataset, shots: int, seed: int) -> list[str]:
    """`shots` training pairs as texts, no prompt twice, each completion as often as any other (or once less).

    A completion with too few prompts is there with all of them.
    """
    pairs = pd.DataFrame({column: train[column][:] for column in ("prompt", "completion")})
    pool = pairs.drop_duplicates("prompt").sample(frac=1, random_state=seed)
    if shots > len(pool):
        raise InputError(f"task.shots = {shots}, but the training set has {len(pool)} different prompts")
    # One pair of every completion, then a second one of every completion, and so on; the draw is shuffled again, lest
    # the completions come in turns.
    turn = pool.groupby("completion").cumcount().sort_values(kind="stable")
    drawn = pool.loc[turn.index[:shots]].sample(frac=1, random_state=seed)
    return list(drawn["prompt"] + drawn["completion"])

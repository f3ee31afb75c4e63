"""The settings beside those of `experiments.config`, as tables: each field of a group and what it may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.rules import (
    Rule,
    any_text,
    choice,
    listing,
    mapping,
    number,
    positive,
    share,
    text,
    whole,
)
from experiments.trackers import TRACKERS
from lora.config import InputError

SEEDS = 2**32 - 1  # the largest seed that numpy takes
ANYTHING = Rule("anything", lambda value: True)

TUNING = {
    "lr_grid": listing(positive(), least=1),
    "extend": whole(0),
    "at": mapping(ANYTHING),
    "short_grid": listing(positive(), least=1).optional(),
    "seeds": listing(whole(0, 2**63 - 1), least=1).or_null().optional(),
    "by": choice("metric", "loss").optional(),
    "floor": choice("head_only").or_null().optional(),
}


_PRESET = ("epochs", "alpha", "glue_length", "film_shares", "extend", "protocol")
PRESET = {"name": text(), **{field: ANYTHING.optional() for field in _PRESET}}
STUDY = {
    "name": text().or_null(),
    "data": choice("labels", "pairs").or_null().optional(),
    "other": text().or_null().optional(),
}

GENERATION = {
    "beams": whole(),
    "length_penalty": number(),
    "no_repeat_ngram": whole(0),
    "max_new_tokens": whole(),
}

_SIZE, _FILE = whole().or_null(), text().or_null()
_TASK = {
    "name": text(),
    "family": text(),
    "metric": text(),
    "more_metrics": listing(text()).optional(),
    "max_length": whole(),
    "split_seed": whole(0, SEEDS),
    "train_examples": _SIZE,
    "validation_examples": _SIZE,
    "test_examples": whole(0).or_null(),  # 0: no test split is read
    "start_from": text().or_null().optional(),
}
_WRITTEN = {"format": choice("plain", "chat"), "generation": mapping(ANYTHING)}
_PLACE = {"data_dir": _FILE}
# By family: the fields that all tasks have, and the family's own.
TASKS: dict[str, dict[str, Rule]] = {
    "bbc_headlines": {**_TASK, **_WRITTEN, "words": whole()},
    "bbc_news": _TASK,
    "dart": {**_TASK, **_WRITTEN, **_PLACE},
    "e2e": {**_TASK, **_WRITTEN, **_PLACE},
    "glue": {**_TASK, **_PLACE, "subset": text()},
    "local": {
        **_TASK,
        **_WRITTEN,
        "name": text().or_null(),
        "metric": text().or_null(),
        "path": _FILE,
        "validation_path": _FILE,
        "test_path": _FILE,
        "encoding": text().or_null().optional(),
        "text_column": any_text(),
        "prompt_column": any_text(),
        "completion_column": any_text(),
        "text_pair_column": any_text().or_null(),
        "label_column": any_text(),
    },
    "rotten_tomatoes": {**_TASK, "film_shares": listing(share(), least=3).or_null().optional()},
    "samsum": {**_TASK, **_WRITTEN, **_PLACE, "words": whole().or_null()},
    "tab_corpus": {**_TASK, "corpus": text()},
    "text2sql": {**_TASK, **_WRITTEN, "pool": mapping(whole(), least=3)},
    "webnlg": {**_TASK, **_WRITTEN, **_PLACE},
    "wikisql": {**_TASK, **_WRITTEN, **_PLACE},
    "as_text": {
        **_TASK,
        **_WRITTEN,
        "of": mapping(ANYTHING, least=1),
        "template": text(),
        "words": mapping(any_text(), least=1),
        "words_per_text": _SIZE,
        "shots": whole(0),
        "shots_seed": whole(0, SEEDS),
        **{field: _FILE.optional() for field in ("data_dir", "path", "validation_path", "test_path")},
    },
}
# Beside these a study, or a preset, has groups of its own, from which it makes settings.
ALONE = ("model", "task", "method", "training", "tuning", "runtime", "engine", "preset", "study", "setting", "settings")
TOP = {
    "seed": whole(0, 2**63 - 1),
    "head_lr": positive().or_null().optional(),
    "glue_dir": _FILE.optional(),
    "results_dir": text(),
    "study_dir": text().optional(),
    "tracker": choice(*TRACKERS).or_null().optional(),
}


def task_rules(task: Mapping[str, Any]) -> dict[str, Rule]:
    """The fields of a task. Raises InputError for an unknown family."""
    family = task.get("family")
    if not isinstance(family, str) or family not in TASKS:
        raise InputError(f"unknown task family {family!r}; there are: {', '.join(sorted(TASKS))}")
    return TASKS[family]

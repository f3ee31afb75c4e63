"""BBC headlines: write the headline of a news article from its first sentences; 2,056 stories of 2004 and 2005."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.tasks import TextData
from experiments.tasks._frames import columns, tenths
from experiments.tasks.bbc_news import articles
from lora.config import InputError

SENTENCE_END = re.compile(r"""[.!?]["')]*$""")  # of a word


def load(task: Mapping[str, Any]) -> TextData:
    """Task fields: words, split_seed, metric. Train, validation and test are 80, 10 and 10%, stratified by section.

    The prompt holds the article's first sentences, `words` words at most. Some stories are in the corpus twice, in two
    editions: of articles with one headline or one first sentence the first is kept, so that no story is in two splits.
    Raises InputError for fewer words than 1.
    """
    if task["words"] < 1:
        raise InputError(f"task.words must be 1 or more; got {task['words']}")
    parts = tenths(stories(task["words"]), task["split_seed"])
    train, *held_out = (list(zip(part["prompt"], part["headline"], strict=True)) for part in parts)
    validation, test = (
        columns([(prompt, [line]) for prompt, line in part], "prompt", "references") for part in held_out
    )
    return TextData(columns(train, "prompt", "completion"), validation, test, task["metric"])


def stories(words: int) -> pd.DataFrame:
    """Columns prompt, headline (with the space that follows the prompt), label (the section), one row a story."""
    files = articles()
    parts = files["text"].str.partition("\n")  # the headline is the first line
    headline, body = (parts[column].str.split().str.join(" ") for column in (0, 2))
    frame = pd.DataFrame(
        {
            "prompt": ["Article: " + lead(text, words) + "\nHeadline:" for text in body],
            "headline": " " + headline,
            "label": files["label"],
            "opening": [first_sentence(text) for text in body],
        }
    )
    return frame.drop_duplicates("headline").drop_duplicates("opening").drop(columns="opening")


def first_sentence(text: str) -> str:
    """The words up to the first that ends a sentence."""
    words = text.split()
    return " ".join(words[: next((i for i, word in enumerate(words, 1) if SENTENCE_END.search(word)), None)])


def lead(text: str, limit: int) -> str:
    """The sentences that end within the first `limit` words; those words themselves where none does."""
    words = text.split()[:limit]
    ends = [i for i, word in enumerate(words, 1) if SENTENCE_END.search(word)]
    return " ".join(words[: ends[-1]] if ends else words)

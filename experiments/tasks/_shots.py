"""In-context learning: training examples shown in the prompt (Brown et al. 2020; few-shot in the paper's Table 8)."""

from dataclasses import replace

import pandas as pd
from datasets import Dataset

from experiments.tasks import TextData
from lora.config import InputError


def add(data: TextData, shots: int, seed: int) -> TextData:
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

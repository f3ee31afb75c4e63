"""Generation: rows that have ended leave the batch, and each row is written as it would be alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import DECODERS
from test_language import PROMPTS, trained_lora

from experiments.problems import writing
from experiments.problems.language import Language

LENGTH = 24


def alone(found: Language, prompt: str, tokens: int = LENGTH) -> list[int]:
    """What transformers writes after one prompt, greedily and in one go."""
    ids = torch.tensor([found.encoder.context(prompt)])
    tokenizer = found.tokenizer
    with torch.inference_mode():
        written = found.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    return list(written[0, ids.shape[1] :].tolist())


def write(found: Language, prompts: list[str], **options: Any) -> list[str]:
    given = found.generation | {"max_new_tokens": LENGTH} | options
    return writing.write(
        found.model, found.tokenizer, [found.encoder.context(p) for p in prompts], given, found.runtime
    )


@pytest.mark.parametrize("family", DECODERS)
def test_rows_that_have_ended_leave(family: str, decoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found = trained_lora(decoders[family])
    prompts = [*PROMPTS, *(f"{n} and {prompt}" for n, prompt in enumerate(PROMPTS))]
    full = [alone(found, prompt) for prompt in prompts]
    # The end is a token that comes early in some rows, later in others, and in some never.
    ends = {token: sorted(row.index(token) for row in full if token in row) for row in full for token in row}
    end = max(ends, key=lambda token: len(set(ends[token])) - (len(ends[token]) == len(full)))
    assert len(set(ends[end])) >= 2
    found.tokenizer.eos_token_id = end
    wanted = [found.tokenizer.decode(alone(found, prompt), skip_special_tokens=True) for prompt in prompts]

    rows: list[int] = []
    found.model.register_forward_pre_hook(lambda _, args, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    monkeypatch.setattr(writing, "PIECE", 2)
    assert write(found, prompts) == wanted
    assert rows == sorted(rows, reverse=True) and rows[0] == len(prompts) > rows[-1]
    assert len(rows) <= LENGTH

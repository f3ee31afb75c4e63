"""What a language model writes after prompts: transformers' generate, with rows that have ended leaving the batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from experiments import device
from experiments.layers import body
from experiments.models import Runtime
from experiments.prompts import KNOWN, Prompt

PIECE = 8  # tokens that are written before the rows that have ended leave: each leaving copies the cache of the others


def write(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    options: Mapping[str, Any],
    runtime: Runtime,
) -> list[str]:
    """What `model` writes after each prompt, a row of tokens: greedily, or by beam search.

    options: a task's `generation`: beams, length_penalty, no_repeat_ngram and max_new_tokens.
    """
    search = {
        "do_sample": False,
        "use_cache": True,
        "num_beams": options["beams"],
        "length_penalty": options["length_penalty"] if options["beams"] > 1 else None,
        "no_repeat_ngram_size": options["no_repeat_ngram"],
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    longest = max(map(len, prompts))
    pads = [[tokenizer.pad_token_id] * (longest - len(prompt)) for prompt in prompts]
    prompted = {
        "input_ids": torch.tensor([[*pad, *prompt] for pad, prompt in zip(pads, prompts, strict=True)]),
        "attention_mask": torch.tensor([[0] * len(pad) + [1] * (longest - len(pad)) for pad in pads]),
    }
    # A prompt's tokens are in the cache but not in the text, and generate would cut as many from what it goes on with.
    # Of weights that are sharded or offloaded what a token reads or gathers counts, not the rows.
    leaves = body(model).config.model_type in KNOWN and not any(
        isinstance(module, Prompt) for module in model.modules()
    )
    piece = PIECE if leaves and options["beams"] == 1 and not runtime.sharded else options["max_new_tokens"]
    with runtime.autocast:
        written = _in_pieces(model, device.brought(prompted, runtime.device), search, options["max_new_tokens"], piece)
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def _in_pieces(
    model: Any, prompted: Mapping[str, Tensor], search: Mapping[str, Any], tokens: int, piece: int
) -> list[Tensor]:
    """The new tokens of each row, at most `tokens`, by so many at a time."""
    ids, mask, cache = prompted["input_ids"], prompted["attention_mask"], None
    start, rows = ids.shape[1], list(range(len(ids)))
    written: list[Tensor] = [ids] * len(ids)
    for first in range(0, tokens, piece):
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=min(piece, tokens - first),
            return_dict_in_generate=True,
            **search,
        )
        ids, cache = found.sequences, found.past_key_values
        ended = (ids[:, start:] == search["eos_token_id"]).any(1)
        for index, row in enumerate(rows):
            written[row] = ids[index, start:]
        left = (~ended).nonzero().squeeze(1)
        if not len(left):
            break
        if len(left) < len(rows):
            cache.batch_select_indices(left)
            ids, mask, rows = ids[left], mask[left], [rows[index] for index in left.tolist()]
        mask = torch.cat([mask, mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])], dim=1)
    return written

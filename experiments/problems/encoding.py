"""Pairs of a context and a target as tokens of a language model."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from lora.config import InputError

FORMATS = ("plain", "chat")
IGNORED = -100


class Encoder:
    """Pairs as tokens. plain: the context as it is; chat: as what a user says, in the tokenizer's chat template.

    A pair has at most `max_length` tokens: a longer context loses its first ones, a longer target its last ones.
    Raises InputError for an unknown format, a tokenizer without chat template or end mark, a context without tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: str, max_length: int) -> None:
        if format not in FORMATS:
            raise InputError(f"task.format = {format!r}: choose from {', '.join(FORMATS)}")
        if format == "chat" and not tokenizer.chat_template:
            raise InputError("task.format = chat: the model's tokenizer has no chat template; choose plain")
        if tokenizer.eos_token_id is None:
            raise InputError("the model's tokenizer has no end-of-text token, so a target could not end")
        self.tokenizer, self.format, self.max_length = tokenizer, format, max_length
        self.cut = 0  # pairs that were too long

    def context(self, prompt: str) -> list[int]:
        """The tokens of a context, the model's start mark included."""
        if self.format == "chat":
            said = [{"role": "user", "content": prompt.strip()}]
            chat = self.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=True)
            return list(chat["input_ids"])
        tokens = list(self.tokenizer(prompt)["input_ids"])
        return tokens[:-1] if tokens[-1:] == [self.tokenizer.eos_token_id] else tokens

    def target(self, text: str) -> list[int]:
        """The tokens of a target, without an end mark."""
        if self.format == "chat":
            text = text.strip()
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def pair(self, prompt: str, completion: str) -> dict[str, Any]:
        """input_ids of context and target, its end mark included, and labels, which are IGNORED in the context."""
        target = [*self.target(completion), self.tokenizer.eos_token_id][: self.max_length - 1]
        context = self.context(prompt)
        if not context or not target:
            raise InputError(
                f"the tokenizer makes no token of {prompt[:60]!r}, and has no start mark: nothing can follow it"
                if target
                else f"task.max_length = {self.max_length} leaves no room for a target after its prompt: raise it"
            )
        if len(context) + len(target) > self.max_length:
            self.cut += 1
            context = context[len(context) + len(target) - self.max_length :]
        return {"input_ids": context + target, "labels": [IGNORED] * len(context) + target}

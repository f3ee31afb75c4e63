"""Language modelling on pairs of a context x and a target y: max sum log p(y_t | x, y_<t) (paper, equation 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from experiments import device, methods, parallel
from experiments.collapse import majority
from experiments.config import ModelSettings
from experiments.items import Items
from experiments.layers import body
from experiments.metrics import text_metrics
from experiments.models import Runtime, check_tokens, load_language_model
from experiments.problems import writing
from experiments.problems.base import Evaluated, Problem, Rows
from experiments.problems.encoding import IGNORED, Encoder
from experiments.progress import report
from experiments.prompts import KNOWN, causal, contexts
from experiments.tasks import SPLITS, TextData
from lora.config import InputError
from lora.model import merge, unmerge


class Language(Problem):
    """A causal language model, and the rows of a TextData: the tokens of `Encoder.pair`, and an index into the data.

    Validation measures the loss, and where a choice is made the metrics too; text is generated on the test split.
    """

    def __init__(
        self,
        model: ModelSettings,
        task: Mapping[str, Any],
        method: Mapping[str, Any],
        data: TextData,
        runtime: Runtime,
        eval_batch_size: int,
    ) -> None:
        self.metric, self.names, self.choices = data.metric, (data.metric, *data.more_metrics), data.choices
        text_metrics.check(self.names)
        self.heads = []
        self.validation_metric = self.metric if self.choices else "loss"
        self.runtime, self.eval_batch_size, self.generation = runtime, eval_batch_size, task["generation"]
        self.model, self.tokenizer = load_language_model(model, runtime)
        room = methods.room(self.model, method)
        self.encoder = Encoder(self.tokenizer, task["format"], min(task["max_length"], room))
        self.longest_prompt = room - self.generation["max_new_tokens"]
        if self.longest_prompt < 1:
            raise InputError(
                f"task.generation.max_new_tokens = {self.generation['max_new_tokens']}: the model has room for {room}"
            )
        self.data = {split: getattr(data, split).to_list() for split in SPLITS}
        firsts = (row["references"][0] for row in self.data["validation"])
        self.majority = majority(firsts) if self.choices else None
        self.rows = {split: self._encode(split) for split in SPLITS}
        for rows in self.rows.values():
            check_tokens(rows, self.model)
        if self.encoder.cut:
            report(f"{self.encoder.cut} pairs are longer than {self.encoder.max_length} tokens: their contexts are cut")

    def _encode(self, split: str) -> Rows:
        return [
            self.encoder.pair(row["prompt"], row["completion"] if split == "train" else row["references"][0])
            for row in self.data[split]
        ]

    def weight(self, rows: Rows) -> int:
        """Number of target tokens."""
        return sum(_targets(row) for row in rows)

    def loss(self, rows: Rows, label_smoothing: float = 0.0) -> Tensor:
        """The mean negative log-likelihood of the target tokens."""
        return functional.cross_entropy(*self._read(rows), label_smoothing=label_smoothing)

    def _read(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Logits (n, vocabulary), fp32, for the n target tokens of all rows, and these tokens (n,), for no others."""
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for index, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[index, :length], labels[index, :length] = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
            mask[index, :length] = 1
        read = labels.roll(-1, 1)  # from token t, t + 1 is predicted
        read[:, -1] = IGNORED
        chosen, context = read != IGNORED, mask.sum(1) - (labels != IGNORED).sum(1)
        logits, batch = self._logits(ids, mask, chosen, context, wanted=read[chosen])
        return logits.float(), batch["wanted"]

    def _logits(
        self, ids: Tensor, mask: Tensor, chosen: Tensor, context: Tensor, **more: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (n, vocabulary) at the n chosen places of a batch (b, t), which is padded on the right; `context` (b,)
        counts the tokens of x. Also what there is `more` of the batch, on the device as they are."""
        place, batch = self.runtime.device, {"ids": ids, "context": context, **more}
        if not device.queues(place):
            batch |= {"mask": mask, "chosen": chosen}
        else:  # a mask of places would have to be counted there; and a decoder reads nothing of padding, which is later
            batch |= dict(zip(("row", "column"), chosen.nonzero(as_tuple=True), strict=True))
            batch |= {} if self._reads_left or mask.all() else {"mask": mask}
        batch = device.brought(batch, place)
        where = (batch["chosen"],) if "chosen" in batch else (batch["row"], batch["column"])
        with (
            self.runtime.autocast,
            device.padding_known(place),
            _only(self.model, where),
            contexts(self.model, batch["context"]),
        ):
            output = self.model(input_ids=batch["ids"], attention_mask=batch.get("mask"), use_cache=False)
        return output.logits, batch

    @cached_property
    def _reads_left(self) -> bool:
        """True for a decoder that is known to read no token after the one it is at."""
        inner = body(self.model)
        return inner.config.model_type in KNOWN and causal(inner)

    @torch.inference_mode()
    def evaluate(self, split: str, generate: bool = True) -> Evaluated:
        """Loss of each input's first reference; metrics of what is chosen, or, on the test split, generated."""
        self.model.eval()
        texts, tokens = [""] * len(self.rows[split]), np.array([_targets(row) for row in self.rows[split]])
        total, losses = 0.0, np.zeros(len(tokens))
        batches = list(self._by_length(split))
        found = parallel.each(batches, partial(self._scored, split))
        for batch, (summed, means, chosen) in zip(batches, found, strict=True):
            total += summed.item()
            losses[batch] = means.tolist()
            for index, best in zip(batch, chosen.tolist(), strict=True):
                texts[index] = self.choices[best] if self.choices else ""
        scores, items = {"loss": total / self.weight(self.rows[split])}, Items(loss=losses, weight=tokens)
        if not self.choices and not (generate and split == "test"):
            return Evaluated(scores, [], items)
        if not self.choices:
            texts = self.generate(split)
        right = text_metrics.right(self.metric, self.data[split], texts)
        if right is not None:
            items = replace(items, correct=np.array(right))
        fields = ("prompt", "references", "group")
        outputs = [
            {field: row[field] for field in fields if row.get(field) is not None} | {"output": text}
            for row, text in zip(self.data[split], texts, strict=True)
        ]
        return Evaluated(scores | text_metrics.score(self.names, self.data[split], texts), outputs, items)

    def _scored(self, split: str, batch: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The summed loss of the rows of these numbers, the mean of each (b,), and the number of what is chosen for
        each (b,), if anything."""
        rows = [self.rows[split][index] for index in batch]
        logits, wanted = self._read(rows)
        each = functional.cross_entropy(logits, wanted, reduction="none")
        counts = [_targets(row) for row in rows]
        means = torch.stack([part.mean() for part in torch.split(each, counts)])
        if not self.choices:
            return each.sum(), means, torch.zeros(len(rows), dtype=torch.long)
        firsts = list(accumulate(counts, initial=0))[:-1]
        following = torch.stack([logits[first] for first in firsts]).log_softmax(-1)
        return each.sum(), means, self._choose([self._prompt(split, index) for index in batch], following)

    def _by_length(self, split: str, size: int | None = None) -> Iterator[list[int]]:
        """Batches of row numbers, rows of similar length together."""
        rows, size = self.rows[split], size or self.eval_batch_size
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]["input_ids"]), reverse=True)
        for first in range(0, len(order), size):
            yield order[first : first + size]

    def _choose(self, prompts: list[list[int]], following: Tensor) -> Tensor:
        """For each prompt (b,) the number of the choice with the highest likelihood: the sum of its tokens'
        log-probabilities.

        following (b, vocabulary) are the log-probabilities of the token after each prompt.
        """
        targets = [self.encoder.target(choice) for choice in self.choices]
        scores = following.new_empty(len(prompts), len(targets))
        for start in {tuple(target[:-1]) for target in targets}:  # one pass for all choices that differ in the end
            found = self._log_likelihoods(prompts, list(start)) if start else following.unsqueeze(1)
            for index, target in enumerate(targets):
                if tuple(target[:-1]) == start:
                    scores[:, index] = sum(found[:, place, token] for place, token in enumerate(target))
        return scores.argmax(1)

    def _log_likelihoods(self, prompts: list[list[int]], start: list[int]) -> Tensor:
        """Log-probabilities (b, len(start) + 1, vocabulary) of what follows each prompt and beginning of `start`."""
        longest = max(map(len, prompts)) + len(start)
        ids = torch.full((len(prompts), longest), self.tokenizer.pad_token_id)
        mask, chosen = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for index, prompt in enumerate(prompts):
            tokens = [*prompt, *start]
            ids[index, : len(tokens)], mask[index, : len(tokens)] = torch.tensor(tokens), 1
            chosen[index, len(prompt) - 1 : len(tokens)] = True
        logits, _ = self._logits(ids, mask, chosen, mask.sum(1) - len(start))
        return logits.float().log_softmax(-1).view(len(prompts), len(start) + 1, -1)

    def generate(self, split: str) -> list[str]:
        """What the model writes for each row: greedily, or by beam search, with LoRA merged, unless weights are
        sharded or offloaded."""
        texts = [""] * len(self.rows[split])
        batches = list(self._by_length(split, max(1, self.eval_batch_size // self.generation["beams"])))
        if not self.runtime.sharded:
            merge(self.model)
        try:
            written = parallel.each(batches, partial(self._written, split))
        finally:
            unmerge(self.model)
        for batch, new in zip(batches, written, strict=True):
            for index, text in zip(batch, new, strict=True):
                texts[index] = text.strip()
        return texts

    def _written(self, split: str, batch: list[int]) -> list[str]:
        """What is written for the rows of these numbers."""
        prompts = [self._prompt(split, index) for index in batch]
        return writing.write(self.model, self.tokenizer, prompts, self.generation, self.runtime)

    def _prompt(self, split: str, index: int) -> list[int]:
        """The tokens of a row's context, with room for what is to be written."""
        row = self.rows[split][index]
        return row["input_ids"][: len(row["labels"]) - _targets(row)][-self.longest_prompt :]


def _targets(row: Mapping[str, Any]) -> int:
    return sum(label != IGNORED for label in row["labels"])


@contextmanager
def _only(model: Any, chosen: tuple[Tensor, ...]) -> Iterator[None]:
    """Within it the model's output layer sees the chosen places alone, a mask (b, t), or rows (n,) and columns (n,):
    logits become (n, vocabulary)."""
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][chosen],))
    try:
        yield
    finally:
        handle.remove()

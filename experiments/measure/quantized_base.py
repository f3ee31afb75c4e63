"""What quantisation alone does to the pretrained models of a study, before any training.

    python -m experiments.measure.quantized_base results/desk/qlora

For every model of the study's runs, in each quantisation and with LoftQ's start where a run has that:

    bits, bytes    of the weights of the quantised layers, with scales and tables; and the bytes of the whole model
    error          ||W - W_q||_F / ||W||_F of each of these weights, where W_q is what the codes stand for, and with
                   LoftQ Q + s B A
    loss           of a language model on held-out text, those of `experiments.measure.forgetting`, in nats a token
    hidden_error   of an encoder, which has no such loss: ||H - H_q||_F / ||H||_F of its last hidden states there

Without quantisation the bits and the loss are those of the frozen model in the precision of the run. Writes
quantized_base.csv, a row a model, quantisation and measure, and quantized_weights.csv, a row a weight. What is stored
is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm.auto import tqdm

from experiments import method_names, method_settings
from experiments.measure import forgetting, stored_runs
from experiments.measure.command import finish
from experiments.measure.forgetting import Text
from experiments.measure.results import Results
from experiments.measure.schemas import BASE_KEY, QUANTIZED_BASE, QUANTIZED_WEIGHTS
from experiments.measure.stored_runs import Run

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from experiments.models import Runtime

NONE = "none"
BATCH = 8


class Variant(NamedTuple):
    """A model as some runs start from it; one of them stands for all."""

    run: Run

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The values of BASE_KEY: LoftQ's start is named by the settings of its method."""
        model, method = self.run.config.model, self.run.method
        start = f"loftq, {method_names.settings(method)}" if method.get("init") == "loftq" else ""
        return model.name, model.quantization or NONE, start, self.run.config.runtime.precision

    @property
    def is_quantized(self) -> bool:
        """Whether it is."""
        return self.key[1] != NONE

    @property
    def writes(self) -> bool:
        """Whether it is a language model."""
        return self.run.writes


def variants(runs: Sequence[Run]) -> list[Variant]:
    """The models of the runs, each once in each quantisation and start."""
    found: dict[tuple[str, ...], Variant] = {}
    for run in runs:
        found.setdefault(Variant(run).key, Variant(run))
    return list(found.values())


def measure(options: argparse.Namespace) -> None:
    """Measure what the two files lack. Raises InputError as `stored_runs.runs`, `forgetting.texts` and `Results`."""
    found = variants(stored_runs.runs(options))
    results, weights = Results(options.study_dir, QUANTIZED_BASE), Results(options.study_dir, QUANTIZED_WEIGHTS)
    texts = forgetting.texts([variant.run for variant in found], options)
    known = {variant.key for variant in found}
    digest = ",".join(text.sha256 for text in texts)
    results.keep([row[:4] in known and row[4] == digest for row in results.keys(*BASE_KEY, "sha256")])
    weights.keep([row in known for row in weights.keys(*BASE_KEY)])
    stored, read = set(results.keys(*BASE_KEY)), set(weights.keys(*BASE_KEY))
    todo = [each for each in found if each.key not in stored or (each.is_quantized and each.key not in read)]
    print(f"{results.path}: {len(found)} models, {len(found) - len(todo)} of them stored")
    with tqdm(todo, unit="model", disable=None) as bar:
        for variant in bar:
            bar.set_description(" ".join(filter(None, variant.key)))
            keys = dict(zip(BASE_KEY, variant.key, strict=True))
            values, errors = _measure(variant, texts)
            if errors:
                weights.add([keys | row for row in errors], *QUANTIZED_WEIGHTS.key)
            rows = [keys | {"measure": measure, "on": on, "value": value} for (measure, on), value in values.items()]
            results.add([row | {"sha256": digest} for row in rows], *QUANTIZED_BASE.key)


def _measure(variant: Variant, texts: Sequence[Text]) -> tuple[dict[tuple[str, str], float], list[dict[str, Any]]]:
    """Values by measure and what it is on, and the rows of all weights."""
    from experiments import models, quantization  # torch: seconds that stored results do not need
    from experiments.measure import held_out

    config, runtime = variant.run.config.model, variant.run.runtime()
    load = models.load_language_model if variant.writes else models.load_body
    model, tokenizer = load(config, runtime)
    layers = quantization.layers_size(model)
    values = {("bits", "layers"): layers.bits, ("bytes", "layers"): float(layers.bytes)}
    values["bytes", "model"] = float(quantization.size(model).bytes)
    errors = list(_start(variant, model)) if variant.is_quantized else []
    for text in texts:
        if variant.writes:
            windows = held_out.windows(text.documents, tokenizer, text.windows, text.tokens, text.name)
            values["loss", text.name] = held_out.loss(model, windows, runtime)
        elif variant.is_quantized:
            plain, _ = load(dataclasses.replace(config, quantization=None), runtime)
            exact, ours = (_hidden(network, tokenizer, text, runtime) for network in (plain, model))
            values["hidden_error", text.name] = float((ours - exact).norm() / exact.norm())
    return values, errors


def _start(variant: Variant, model: PreTrainedModel) -> Iterator[dict[str, Any]]:
    """Puts LoftQ's start into `model`, if that is the variant's, and gives a row for every quantised weight."""
    from experiments import quantization
    from experiments.methods.lora import config
    from lora import quantized
    from lora.model import inject, lora_layers
    from lora.targets import layer_of, types_by_name

    weights = quantization.pretrained(model)
    adapters = method_settings.lora(variant.run.method)
    if variant.key[2] and adapters is not None:
        inject(model, config(adapters), pretrained=lambda: weights)
    adapted = dict(lora_layers(model))
    for name, weight in weights.items():
        if name in adapted:
            layer = adapted[name]
            held = quantized.dequantize(layer.base).float()
            for part in layer.parts:
                held[part.rows] += layer.delta_w(part.name).detach()
        else:
            held = quantized.dequantize(model.get_submodule(name)).float()
        exact = weight.to(held.device).float()
        row = {"module": name, "weight_type": "+".join(types_by_name(name)), "layer": str(layer_of(name))}
        d, k = weight.shape
        yield row | {"d": d, "k": k, "error": float((exact - held).norm() / exact.norm())}


def _hidden(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: Text, runtime: Runtime) -> Tensor:
    """The last hidden states (n, width), fp32, of the n tokens of the beginnings of the first documents of a text."""
    import torch

    model.eval()
    found = []
    documents = text.documents[: text.windows]
    for first in range(0, len(documents), BATCH):
        chosen = documents[first : first + BATCH]
        batch = tokenizer(chosen, truncation=True, max_length=text.tokens, padding=True, return_tensors="pt")
        batch = batch.to(runtime.device)
        with torch.inference_mode(), runtime.autocast:
            states = model(**batch).last_hidden_state
        found.append(states[batch["attention_mask"].bool()].float().cpu())
    return torch.cat(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `command.finish`."""
    parser = forgetting.parser("quantized_base", __doc__.splitlines()[0])
    return finish(lambda: measure(parser.parse_intermixed_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())

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
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from experiments import method_names, method_settings
from experiments.arguments import finish
from experiments.measure import forgetting, stored_runs
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


Key = tuple[str, str, str, str]  # the values of BASE_KEY


def key(run: Run) -> Key:
    """The model as a run starts from it: LoftQ's start is named by the settings of its method."""
    model, method = run.config.model, run.method
    start = f"loftq, {method_names.settings(method)}" if method.get("init") == "loftq" else ""
    return model.name, model.quantization or NONE, start, run.config.runtime.precision


def measure(options: argparse.Namespace) -> None:
    """Measure what the two files lack. Raises InputError as `stored_runs.runs`, `forgetting.texts` and `Results`."""
    found: dict[Key, Run] = {}  # the models of the runs, of each in each quantisation and start the first
    for run in stored_runs.runs(options):
        found.setdefault(key(run), run)
    results, weights = Results(options.study_dir, QUANTIZED_BASE), Results(options.study_dir, QUANTIZED_WEIGHTS)
    texts = forgetting.texts(list(found.values()), options)
    digest = ",".join(text.sha256 for text in texts)
    results.keep([row[:4] in found and row[4] == digest for row in results.keys(*BASE_KEY, "sha256")])
    weights.keep([row in found for row in weights.keys(*BASE_KEY)])
    stored, read = set(results.keys(*BASE_KEY)), set(weights.keys(*BASE_KEY))
    todo = [each for each in found if each not in stored or (each[1] != NONE and each not in read)]
    print(f"{results.path}: {len(found)} models, {len(found) - len(todo)} of them stored")
    with tqdm(todo, unit="model", disable=None) as bar:
        for each in bar:
            bar.set_description(" ".join(filter(None, each)))
            keys = dict(zip(BASE_KEY, each, strict=True))
            values, errors = _measure(found[each], texts)
            if errors:
                weights.add([keys | row for row in errors])
            rows = [keys | {"measure": measure, "on": on, "value": value} for (measure, on), value in values.items()]
            results.add([row | {"sha256": digest} for row in rows])


def _measure(run: Run, texts: Sequence[Text]) -> tuple[dict[tuple[str, str], float], list[dict[str, Any]]]:
    """Values by measure and what it is on, and the rows of all weights."""
    from experiments import models, quantization  # torch: seconds that stored results do not need
    from experiments.measure import held_out

    config, runtime = run.config.model, run.runtime()
    load = models.load_language_model if run.writes else models.load_body
    model, tokenizer = load(config, runtime)
    layers = quantization.layers_size(model)
    values = {("bits", "layers"): layers.bits, ("bytes", "layers"): float(layers.bytes)}
    values["bytes", "model"] = float(quantization.size(model).bytes)
    errors = list(_start(run, model)) if config.quantization else []
    for text in texts:
        if run.writes:
            windows = held_out.windows(text.documents, tokenizer, text.windows, text.tokens, text.name)
            values["loss", text.name] = held_out.loss(model, windows, runtime)
        elif config.quantization:
            plain, _ = load(dataclasses.replace(config, quantization=None), runtime)
            exact, ours = (_hidden(network, tokenizer, text, runtime) for network in (plain, model))
            values["hidden_error", text.name] = float((ours - exact).norm() / exact.norm())
    return values, errors


def _start(run: Run, model: PreTrainedModel) -> Iterator[dict[str, Any]]:
    """Puts LoftQ's start into `model`, if that is the run's, and gives a row for every quantised weight."""
    from experiments import quantization
    from experiments.methods.lora import config
    from lora import quantized
    from lora.model import inject, lora_layers
    from lora.targets import layer_of, types_by_name

    weights = quantization.pretrained(model)
    adapters = method_settings.lora(run.method)
    if adapters is not None and adapters.init == "loftq":
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
    """Command line entry: see `finish`."""
    parser = forgetting.parser("quantized_base", __doc__.splitlines()[0])
    return finish(lambda: measure(parser.parse_intermixed_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())

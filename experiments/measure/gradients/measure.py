"""The command: measure, and write the three CSVs and settings.json, which says what was measured."""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from torch import Tensor
from transformers import (
    DataCollatorWithPadding,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from experiments import tasks
from experiments.arguments import Parser, finish
from experiments.config import ModelSettings
from experiments.measure.gradients.cost import flops, seconds
from experiments.measure.gradients.formulas import STARTS, checks, first_steps
from experiments.measure.schemas import CHECKS, FLOPS, STEPS
from experiments.models import Runtime, choose_runtime, head_modules, load_classifier
from experiments.problems.classification import tokenize
from lora.config import LoRAConfig
from lora.model import freeze, inject

RECIPE = 1  # raise it when what is measured changes: stored measurements are then made again
TEXTS, LENGTH = 16, 64  # of the checks and the first steps
FILES = (CHECKS, STEPS, FLOPS)


class Sizes(NamedTuple):
    """How much is measured.

    check_ranks are those of the formulas; norms are taken after `at` optimizer steps; ranks, weight_types, shapes
    (texts, tokens in each) and trials are those of the costs.
    """

    check_ranks: tuple[int, ...]
    at: tuple[int, ...]
    ranks: tuple[int, ...]
    weight_types: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    trials: int
    model: str = "asset:minilm"


_STEPS, _RANKS = (0, 1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16, 32, 64)
PRESETS = {
    "smoke": Sizes((2,), (0, 1), (1,), ("q+v",), ((2, 8),), 1),
    "quick": Sizes((8,), _STEPS[:6], (1, 4, 16, 64), ("q+v",), ((16, 64),), 5),
    "desk": Sizes((1, 8, 64), _STEPS, _RANKS, ("q+v", "q+k+v+o+up+down"), ((16, 64),), 7),
    "paper": Sizes((1, 8, 64), _STEPS, _RANKS, ("q+v",), ((16, 128), (16, 512)), 15, "FacebookAI/roberta-base"),
}


def tiny_gpt2(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A GPT-2 of two layers, 64 wide, with random weights: its projections are Conv1D, and q, k and v are one."""
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": len(tokenizer)}
    config = GPT2Config(**sizes, pad_token_id=tokenizer.pad_token_id, num_labels=2, attn_implementation="eager")
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(config).eval()


def cost_rows(
    model: PreTrainedModel, batch: Mapping[str, Tensor], weight_types: str, sizes: Sizes
) -> list[dict[str, Any]]:
    """A row for each pass of full fine-tuning (r = 0) and of LoRA at every rank: FLOPs and seconds, and the ratio of
    seconds to full fine-tuning's in the same trial; median, lowest and highest over trials."""
    models = {0: copy.deepcopy(model)}
    for r in sizes.ranks:
        models[r] = copy.deepcopy(model)
        inject(models[r], LoRAConfig(r=r, alpha=2 * r, weight_types=tuple(weight_types.split("+"))))
        freeze(models[r], head_modules(model))
    counts = {r: flops(adapted, batch) for r, adapted in models.items()}
    times = seconds(models, batch, sizes.trials)
    texts, length = batch["input_ids"].shape
    rows = []
    for r, count in counts.items():
        row: dict[str, Any] = {
            "method": "lora" if r else "full",
            "r": r,
            "weight_types": weight_types,
            "texts": texts,
            "tokens": length,
        }
        for index, name in enumerate(("forward", "backward")):
            took = [trial[index] for trial in times[r]]
            ratio = [mine / full[index] for mine, full in zip(took, times[0], strict=True)]
            row = row | {"pass": name} | {field: pair[index] for field, pair in count._asdict().items()}
            for field, values in (("seconds", took), ("ratio", ratio)):
                row[field] = statistics.median(values)
                row |= {f"{field}_low": min(values), f"{field}_high": max(values)}
            rows.append(row | {"trials": sizes.trials, "threads": torch.get_num_threads(), "device": str(model.device)})
    return rows


def measure(sizes: Sizes, runtime: Runtime) -> dict[str, pd.DataFrame]:
    """The rows of FILES by name, on reviews of Rotten Tomatoes. Raises InputError if the model cannot be loaded."""
    texts = max(texts * length for texts, length in sizes.shapes) // 16  # reviews are longer than 16 tokens on average
    task = {"family": "rotten_tomatoes", "split_seed": 0, "metric": "accuracy", "train_examples": max(texts, TEXTS)}
    data = cast(tasks.TaskData, tasks.load(task))
    torch.manual_seed(0)
    model, tokenizer = load_classifier(ModelSettings(name=sizes.model, path=sizes.model, dropout=0.0), data, runtime)
    model.eval()
    rows = tokenize(data.train, tokenizer, LENGTH)
    batch = dict(DataCollatorWithPadding(tokenizer)(rows[:TEXTS]).to(runtime.device))
    name = sizes.model.removeprefix("asset:")
    tiny = tiny_gpt2(tokenizer).to(runtime.device)
    plain = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    checked = [
        checks(tiny, "tiny GPT-2, random", plain, sizes.check_ranks),
        checks(model, name, batch, sizes.check_ranks),
    ]
    steps = [row for start in STARTS for row in first_steps(copy.deepcopy(model), batch, start, sizes.at)]
    tokens = torch.tensor([token for row in rows for token in row["input_ids"]], device=runtime.device)
    costs = []
    for count, length in sizes.shapes:
        ids = tokens[: count * length].view(count, length)  # running text: no padding, which costs and does not count
        full = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.new_zeros(count)}
        for weight_types in sizes.weight_types:
            costs += cost_rows(model, full, weight_types, sizes)
    return {
        CHECKS.file: pd.concat(checked),
        STEPS.file: pd.DataFrame(steps).assign(model=name),
        FLOPS.file: pd.DataFrame(costs).assign(model=name),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, or 2 with one line on stderr if the input cannot work."""
    parser = Parser(prog="python -m experiments.measure.gradients", description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--model", help="asset:NAME, a hub id or a folder (default: the preset's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--out", type=Path, help="folder of the results (default: results/PRESET/gradients)")

    def work() -> None:
        options = parser.parse_args(arguments)
        out = options.out or Path("results") / options.preset / "gradients"
        sizes = PRESETS[options.preset]
        sizes = sizes._replace(model=options.model or sizes.model)
        stamp, files = out / "settings.json", [out / schema.file for schema in FILES]
        runtime = choose_runtime(options.device, "fp32")
        settings = sizes._asdict() | {"recipe": RECIPE, "device": str(runtime.device), "torch": torch.__version__}
        wanted = json.dumps(settings, indent=1)
        stored = stamp.is_file() and stamp.read_text() == wanted and all(file.is_file() for file in files)
        if not stored:
            frames = measure(sizes, runtime)
            out.mkdir(parents=True, exist_ok=True)
            for schema, file in zip(FILES, files, strict=True):
                frames[schema.file][schema.names].to_csv(file, index=False)
            stamp.write_text(wanted)
        print(f"{out}: {', '.join(file.name for file in files)}{' (stored)' if stored else ''}")

    return finish(work, "nothing is stored yet")

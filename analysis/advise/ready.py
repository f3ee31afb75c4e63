"""Recommended settings ready to paste: peft's LoraConfig, as Python and as adapter_config.json, LLaMA-Factory, axolotl.

Written for these as they read them: LLaMA-Factory's and axolotl's settings have one rank for all modules (no
rank_pattern), so that they get the best recommendation of one rank.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from analysis.advise.subject import Ranks, Subject
from experiments.paths import user_path
from lora.layer import adaptable
from lora.targets import find_places

NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


class Modules(NamedTuple):
    """The adapted modules of a model, by the pattern that is theirs in every layer: the names of each, and its rank."""

    names: dict[str, list[str]]
    ranks: dict[str, int]
    shared: bool  # a fused projection has several units: peft adapts all of it, with the largest of their ranks
    turned: bool  # weights are stored (in, out), as GPT-2's

    @property
    def expression(self) -> str:
        """What peft's target_modules matches all of them by, and no other."""
        return rf"(?:.*\.)?(?:{'|'.join(self.names)})"


def modules(subject: Subject, ranks: Ranks) -> Modules:
    """Those that adapters of these ranks are on."""
    places = find_places(subject.body, subject.lora(ranks))
    counts = Counter(place.module for place in places)
    largest: dict[str, int] = {}
    for place in places:
        largest[place.module] = max(place.part.r, largest.get(place.module, 0))
    every = [name for name, module in subject.body.named_modules() if name and adaptable(module)]
    names: dict[str, list[str]] = {}
    for module in largest:
        names.setdefault(_pattern(module, list(largest), every), []).append(module)
    turned = any(type(subject.body.get_submodule(name)).__name__ == "Conv1D" for name in largest)
    return Modules(names, {key: largest[own[0]] for key, own in names.items()}, max(counts.values()) > 1, turned)


def _pattern(module: str, adapted: Sequence[str], every: Sequence[str]) -> str:
    r"""`\d+\.attention\.self\.query` of a module in a numbered layer, the numbers spelt out where not all layers have an
    adapter; the name itself of another module."""
    match = NUMBER.search(module)
    if match is None:
        return re.escape(module)
    ending = module[match.end() :]
    own, there = (
        {found[1] for name in names if (found := NUMBER.search(name)) and name[found.end() :] == ending}
        for names in (adapted, every)
    )
    numbers = r"\d+" if own == there else f"(?:{'|'.join(sorted(own, key=int))})"
    return rf"{numbers}\.{re.escape(ending)}"


def suffixes(found: Modules, every: Sequence[str]) -> list[str]:
    """The adapted modules by the ends of their names, as lists of modules are matched; a full name where no end is of
    adapted modules alone."""
    adapted = {name for own in found.names.values() for name in own}
    ends = []
    for own in found.names.values():
        parts = own[0].split(".")
        for length in range(1, len(parts)):
            end = ".".join(parts[-length:])
            matched = {name for name in every if name == end or name.endswith(f".{end}")}
            if matched <= adapted and set(own) <= matched:
                ends.append(end)
                break
        else:
            ends += own
    return list(dict.fromkeys(ends))


def peft(subject: Subject, ranks: Ranks) -> dict[str, Any]:
    """adapter_config.json of an adapter to be trained. The most frequent rank is r, others are in rank_pattern; alpha is
    one for all."""
    found = modules(subject, ranks)
    (r, _), *_ = Counter(rank for key, rank in found.ranks.items() for _ in found.names[key]).most_common()
    alpha = subject.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if subject.writes else "SEQ_CLS",
        "base_model_name_or_path": model_path(subject),
        "inference_mode": False,
        "r": r,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": float(subject.base.method.dropout),
        "target_modules": found.expression,
        "rank_pattern": {key: rank for key, rank in found.ranks.items() if rank != r},
        "alpha_pattern": {},
        "fan_in_fan_out": found.turned,
        "bias": "none",
    }


def model_path(subject: Subject) -> str:
    """The model, as other tools find it; the name of one that comes with this suite."""
    path = subject.resolved.model.path
    return (
        subject.model
        if path.startswith(("asset:", "config:"))
        else str(user_path(path) if user_path(path).is_dir() else path)
    )


def python(config: Mapping[str, Any]) -> str:
    """LoraConfig(…) as Python."""
    fields = {key: value for key, value in config.items() if key not in ("peft_type", "base_model_name_or_path")}
    inside = "".join(f"    {key}={value!r},\n" for key, value in fields.items() if value not in ({}, False, 0.0))
    return f"from peft import LoraConfig\n\nconfig = LoraConfig(\n{inside})\n"


def _training(subject: Subject) -> tuple[int, int, float, int]:
    training = subject.resolved.training
    return training.epochs, training.batch_size, training.warmup_ratio, int(subject.resolved.task["max_length"])


def _ends(subject: Subject, ranks: Ranks) -> list[str]:
    every = [name for name, module in subject.body.named_modules() if name and adaptable(module)]
    return suffixes(modules(subject, ranks), every)


def llama_factory(subject: Subject, ranks: Ranks, lr: float) -> str:
    """Settings of LLaMA-Factory; ranks: one rank for all."""
    epochs, batch, warmup, length = _training(subject)
    settings = {
        "model_name_or_path": model_path(subject),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": max(ranks.values()),
        "lora_alpha": int(subject.alpha),
        "lora_dropout": float(subject.base.method.dropout),
        "lora_target": ",".join(_ends(subject, ranks)),
        "learning_rate": lr,
        "num_train_epochs": float(epochs),
        "per_device_train_batch_size": batch,
        "warmup_ratio": warmup,
        "lr_scheduler_type": str(subject.resolved.training.schedule),
        "cutoff_len": length,
    }
    return _noted(subject, settings)


def axolotl(subject: Subject, ranks: Ranks, lr: float) -> str:
    """Settings of axolotl; ranks: one rank for all."""
    epochs, batch, warmup, length = _training(subject)
    settings = {
        "base_model": model_path(subject),
        "adapter": "lora",
        "lora_r": max(ranks.values()),
        "lora_alpha": int(subject.alpha),
        "lora_dropout": float(subject.base.method.dropout),
        "lora_target_modules": modules(subject, ranks).expression,
        "learning_rate": lr,
        "num_epochs": epochs,
        "micro_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "warmup_ratio": warmup,
        "lr_scheduler": str(subject.resolved.training.schedule),
        "sequence_len": length,
    }
    return _noted(subject, settings)


def _noted(subject: Subject, settings: Mapping[str, Any]) -> str:
    note = (
        ""
        if subject.writes
        else "# This tool trains language models; the advice is of a classifier, which peft trains.\n"
    )
    return note + yaml.safe_dump(dict(settings), sort_keys=False, width=1000)


def write(subject: Subject, ranks: Ranks, plain: Ranks, lr: float, folder: Path) -> list[Path]:
    """adapter_config.json, peft_config.py, llama_factory.yaml, axolotl.yaml."""
    import json

    config = peft(subject, ranks)
    texts = {
        "adapter_config.json": json.dumps(config, indent=1) + "\n",
        "peft_config.py": python(config),
        "llama_factory.yaml": llama_factory(subject, plain, lr),
        "axolotl.yaml": axolotl(subject, plain, lr),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]

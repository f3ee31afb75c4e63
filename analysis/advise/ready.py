"""Recommended settings ready to paste: peft's LoraConfig, as Python and as adapter_config.json, LLaMA-Factory, axolotl.

LLaMA-Factory's and axolotl's settings have no rank_pattern: they get the best recommendation of one rank.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from analysis.advise.subject import Ranks, Subject
from experiments.assets import ASSETS
from experiments.paths import user_path
from lora.errors import is_a
from lora.targets import find_places

NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


class Modules(NamedTuple):
    """The adapted modules, by a pattern for those that are alike in every layer, and the rank of each pattern. shared:
    some are fused projections, of which peft adapts all; turned: weights are stored (in, out), as GPT-2's; every: all
    modules of the model."""

    names: dict[str, list[str]]
    ranks: dict[str, int]
    shared: bool
    turned: bool
    every: list[str]

    @property
    def expression(self) -> str:
        """What peft's target_modules matches all of them by, and no other."""
        return rf"(?:.*\.)?(?:{'|'.join(self.names)})"

    @property
    def ends(self) -> list[str]:
        """The same as a list: ends of names, and full names where no end is of adapted modules alone."""
        adapted, found = {name for own in self.names.values() for name in own}, dict[str, None]()
        for own in self.names.values():
            parts = own[0].split(".")
            for length in range(1, len(parts)):
                end = ".".join(parts[-length:])
                matched = {name for name in self.every if name == end or name.endswith(f".{end}")}
                if set(own) <= matched <= adapted:
                    found[end] = None
                    break
            else:
                found |= dict.fromkeys(own)
        return list(found)


def modules(subject: Subject, ranks: Ranks) -> Modules:
    """Those that adapters of these ranks are on; a fused projection has the largest rank of its units."""
    found: dict[str, int] = {}
    places = find_places(subject.body, subject.lora(ranks))
    for place in places:
        found[place.module] = max(place.part.r, found.get(place.module, 0))
    every = [name for name, _ in subject.body.named_modules() if name]
    names: dict[str, list[str]] = {}
    for module in found:
        names.setdefault(_pattern(module, found, every), []).append(module)
    return Modules(
        names,
        {pattern: found[own[0]] for pattern, own in names.items()},
        len(places) > len(found),
        any(is_a(subject.body.get_submodule(name), "Conv1D") for name in found),
        every,
    )


def _pattern(module: str, adapted: Collection[str], every: Collection[str]) -> str:
    r"""`\d+\.attention\.self\.query` of a module in a numbered layer, its numbers spelt out where other layers have no
    adapter; of another module its name."""
    match = NUMBER.search(module)
    if match is None:
        return re.escape(module)
    ending = module[match.end() :]
    own, there = (
        {found[1] for name in names if (found := NUMBER.search(name)) and name[found.end() :] == ending}
        for names in (adapted, every)
    )
    return (r"\d+" if own == there else f"(?:{'|'.join(sorted(own, key=int))})") + rf"\.{re.escape(ending)}"


def peft(subject: Subject, ranks: Ranks) -> dict[str, Any]:
    """adapter_config.json of an adapter that is to be trained: r is the most frequent rank, rank_pattern has the
    others; alpha is one for all."""
    found = modules(subject, ranks)
    r = Counter(found.ranks[pattern] for pattern, own in found.names.items() for _ in own).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if subject.writes else "SEQ_CLS",
        "base_model_name_or_path": model_path(subject),
        "inference_mode": False,
        "r": r,
        "lora_alpha": _plain(subject.alpha),
        "lora_dropout": float(subject.base.method.dropout),
        "target_modules": found.expression,
        "rank_pattern": {pattern: rank for pattern, rank in found.ranks.items() if rank != r},
        "alpha_pattern": {},
        "fan_in_fan_out": found.turned,
        "bias": "none",
    }


def _plain(number: float) -> float | int:
    return int(number) if float(number).is_integer() else number


def model_path(subject: Subject) -> str:
    """The model, as other tools find it: an absolute folder or a hub id, of a packaged model that of its weights."""
    path = subject.resolved.model.path
    if path.startswith("asset:"):
        packaged = ASSETS[path.removeprefix("asset:")].hub
        assert packaged is not None, f"{path} is no model"
        return packaged
    return str(user_path(path).absolute()) if user_path(path).is_dir() else path


def python(config: Mapping[str, Any]) -> str:
    """LoraConfig(…) as Python."""
    fields = {key: value for key, value in config.items() if key not in ("peft_type", "base_model_name_or_path")}
    inside = "".join(f"    {key}={value!r},\n" for key, value in fields.items() if value not in ({}, False, 0.0))
    return f"from peft import LoraConfig\n\nconfig = LoraConfig(\n{inside})\n"


def llama_factory(subject: Subject, ranks: Ranks, lr: float) -> str:
    """Settings of LLaMA-Factory; ranks: one rank for all."""
    training = subject.resolved.training
    settings = {
        "model_name_or_path": model_path(subject),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": max(ranks.values()),
        "lora_alpha": _plain(subject.alpha),
        "lora_target": ",".join(modules(subject, ranks).ends),
        "learning_rate": lr,
        "num_train_epochs": training.epochs,
        "per_device_train_batch_size": training.batch_size,
        "warmup_ratio": training.warmup_ratio,
        "lr_scheduler_type": training.schedule,
        "cutoff_len": subject.resolved.task["max_length"],
    }
    return _yaml(subject, settings)


def axolotl(subject: Subject, ranks: Ranks, lr: float) -> str:
    """Settings of axolotl; ranks: one rank for all."""
    training = subject.resolved.training
    settings = {
        "base_model": model_path(subject),
        "adapter": "lora",
        "lora_r": max(ranks.values()),
        "lora_alpha": _plain(subject.alpha),
        "lora_target_modules": modules(subject, ranks).expression,
        "learning_rate": lr,
        "num_epochs": training.epochs,
        "micro_batch_size": training.batch_size,
        "gradient_accumulation_steps": 1,
        "warmup_ratio": training.warmup_ratio,
        "lr_scheduler": training.schedule,
        "sequence_len": subject.resolved.task["max_length"],
    }
    return _yaml(subject, settings)


def _yaml(subject: Subject, settings: Mapping[str, Any]) -> str:
    note = "" if subject.writes else "# This tool trains language models; this advice is of a classifier: use peft.\n"
    return note + yaml.safe_dump(dict(settings), sort_keys=False, width=1000)


def write(subject: Subject, ranks: Ranks, plain: Ranks, lr: float, folder: Path) -> list[Path]:
    """adapter_config.json, peft_config.py, llama_factory.yaml, axolotl.yaml. plain: one rank for all."""
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

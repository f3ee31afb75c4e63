"""How much memory one training step takes, without taking it.

python -m experiments.measure.memory --model llama-7b --method full,lora --batch 1 --length 2048 model.quantization=null
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import method_names
from experiments.arguments import Parser, finish, program, whole
from experiments.markdown import markdown
from experiments.measure.memory import compose
from experiments.measure.memory.contenders import traits
from experiments.measure.memory.plans import row
from experiments.measure.memory.schemas import PLAN
from experiments.measure.memory.setup import PRECISIONS, Setup
from experiments.measure.memory.units import KINDS, human
from experiments.measure.results import make_folder
from experiments.paths import write
from lora.config import InputError

OPTIMIZERS = ("adamw", "galore", "badam")


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _precisions(text: str) -> list[str]:
    for precision in _parts(text):
        if precision not in PRECISIONS:
            raise argparse.ArgumentTypeError(f"{precision!r} is none of {', '.join(PRECISIONS)}")
    return _parts(text)


def _tokens(text: str) -> int:
    return 0 if text == "0" else whole(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=program("experiments.measure.memory"), description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="minilm", help="a folder, a hub id, smollm2, llama-7b, … (default: minilm)")
    parser.add_argument("--method", type=_parts, default=["lora"], help="of experiments/conf/method, e.g. full,lora")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="of full fine-tuning (default: adamw)")
    parser.add_argument("--precision", type=_precisions, default=["bf16"], help=", ".join(PRECISIONS))
    parser.add_argument("--batch", type=whole, default=16, help="rows of a step, of all devices (default: 16)")
    parser.add_argument("--devices", type=whole, default=1, help="plan one of so many, with runtime.parallel=fsdp")
    parser.add_argument("--length", type=whole, default=128, help="tokens of a row (default: 128)")
    parser.add_argument("--targets", type=_tokens, help="tokens of a row with logits; 0: a classifier")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="whose attention kernels (default: what a run here has)"
    )
    parser.add_argument("--out", type=Path, help="folder for plan.csv")
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE", help="method.r=4, model.quantization=nf4, …")
    return parser.parse_intermixed_args(arguments)


def setups(options: argparse.Namespace) -> list[Setup]:
    """A setup for each method and precision. Raises InputError for what cannot be, naming it."""
    methods = options.method
    if options.optimizer and methods != ["full"]:
        raise InputError(f"--optimizer {options.optimizer} is for --method full, not for {','.join(methods)}")
    if options.optimizer in ("galore", "badam"):
        methods = [options.optimizer]
    parts = compose.composed(options.model, methods, options.fields)
    from experiments.models import choose_runtime  # torch: seconds that a wrong name should not cost

    known = traits(options.model)
    if options.length > known.limit:
        raise InputError(f"--length {options.length}: {options.model} reads at most {known.limit} tokens")
    targets = options.targets
    if targets and not known.writes_text:
        raise InputError(f"--targets {targets}: {options.model} does not write text; leave it out")
    if targets is None:
        if known.writes_text and options.length < 2:
            raise InputError(f"--length {options.length}: the first token of a row is predicted from nothing")
        targets = options.length - 1 if known.writes_text else 0
    stored = {"quantization": known.quantization} if known.quantization else {}
    return [
        dataclasses.replace(
            part,
            model=part.model if part.model.get("quantization") else {**part.model, **stored},
            batch=math.ceil(options.batch / options.devices),
            length=options.length,
            targets=targets or None,
            precision=precision,
            checkpointing=options.checkpointing or part.checkpointing,
            device=options.device or choose_runtime().device.type,
        )
        for part in parts
        for precision in options.precision
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The plans in columns, in markdown."""
    columns = {
        f"{method_names.title(one['method'], one['settings'])}, {one['precision']}": {
            **{name: human(one[kind]) for kind, name in KINDS.items()},
            "all of these": human(sum(one[kind] for kind in KINDS)),
            "peak": human(one["peak"]),
            "trained parameters": f"{one['trainable_params']:,}",
            "of all": f"{100 * one['trainable_params'] / one['total_params']:.3g}%",
            "checkpoint": human(one["checkpoint_bytes"]),
        }
        for one in rows
    }
    return markdown(pd.DataFrame(columns).rename_axis("").reset_index())


def report(rows: Sequence[dict[str, Any]], devices: int = 1) -> str:
    """What is planned, the table, and the notes of the plans; of one of several devices."""
    first = rows[0]
    logits = f"logits at {first['targets']} tokens of each" if first["targets"] else "a classifier"
    held = f"{first['model']}{', weights in ' + first['quantization'] if first['quantization'] else ''}"
    lines = [
        f"{held}: {first['batch']} × {first['length']} tokens, {logits}, checkpointing "
        f"{'on' if first['checkpointing'] else 'off'}, {first['device']}",
        "",
        table(rows),
        "",
        "1 GB = 10^9 bytes. The peak is what is alive at one moment: not all of these are at once.",
    ]
    if devices > 1:
        lines[0] = f"each of {devices} devices, runtime.parallel=fsdp: {lines[0]}"
        lines.append("- weights: a device's share of the frozen ones, layers that it has gathered, all trained ones")
    notes = [f"{name}: {PRECISIONS[name]}" for name in dict.fromkeys(one["precision"] for one in rows)]
    notes += dict.fromkeys(note for one in rows for note in one["notes"].split(" | ") if note)
    return "\n".join([*lines, *(f"- {note}" for note in notes)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, or 2 with one line on stderr if the input cannot work."""

    def show() -> None:
        options = _options(arguments)
        wanted = setups(options)
        from experiments.measure.memory.planner import plan

        if options.out:
            if options.devices > 1:
                raise InputError("--out keeps plans of one device: leave out --devices, or --out")
            make_folder(options.out)
        rows = [row(setup, plan(setup, options.devices)) for setup in wanted]
        print(report(rows, options.devices))
        if options.out:
            write(options.out / PLAN.file, pd.DataFrame(rows)[PLAN.names].to_csv(index=False))
            print(f"\n{options.out / PLAN.file}; `python -m analysis.studies.memory.picture {options.out}` draws it")

    return finish(show)


if __name__ == "__main__":
    sys.exit(main())

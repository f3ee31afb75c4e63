"""What a name on a command line is: a run, an adapter of this suite, of peft or of loralib, or a full checkpoint."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.weights.checkpoints import Files
from analysis.weights.pretrained import Weights
from experiments import hub
from experiments.paths import user_path
from lora import io
from lora.config import WEIGHT_TYPES, InputError
from lora.formats import loralib, others
from lora.formats.peft import PEFT_PICKLED, PEFT_WEIGHTS, is_peft, read_peft
from lora.formats.peft_config import PEFT_CONFIG
from lora.stored import Adapter
from lora.targets import WHOLE
from lora.tensor_files import TensorFile, open_tensors

RUN = "config.yaml"  # what tells a stored run from other folders
SUITE, PEFT, LORALIB, CHECKPOINT = "suite", "peft", "loralib", "checkpoint"


class Source(NamedTuple):
    """What was found. `library`: whose format it is in, or CHECKPOINT; `stored`: whole weights are Weights, where their
    folder has a config, or the file that they are in; `run`: the folder of the run that it is of."""

    name: str
    library: str
    stored: Adapter | Weights | TensorFile
    run: Path | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how a source is read: --base, --alpha, --slices, --runs."""
    parser.add_argument("--base", metavar="MODEL", help="the base model: folder, hub id or asset:NAME")
    parser.add_argument("--alpha", type=float, help="alpha of loralib checkpoints, which do not store it")
    parser.add_argument("--slices", metavar="q+v", default="", help="what a loralib checkpoint adapts of fused modules")
    parser.add_argument("--runs", type=Path, default=Path("results/runs"), help="where run ids are (%(default)s)")


def check_options(chosen: argparse.Namespace) -> None:
    """Reads --slices into a list. Raises InputError for one that is no weight type, and for an alpha below 0."""
    chosen.slices = [name for name in chosen.slices.split("+") if name]
    unknown = set(chosen.slices) - {*WEIGHT_TYPES, WHOLE}
    if unknown:
        raise InputError(f"--slices: {unknown.pop()!r} is none of {', '.join(WEIGHT_TYPES)}, {WHOLE}")
    if chosen.alpha is not None and not chosen.alpha > 0:
        raise InputError(f"--alpha {chosen.alpha:g}: it must be positive")


def place(source: str, runs: Path) -> str | Path:
    """Where a source of a command line is: the folder of a run id, anything else as it is.

    Raises InputError for a run that is not in `runs`, and for a name that is nowhere, with near ones.
    """
    is_run = re.fullmatch("[0-9a-f]{12}", source) and not Path(source).exists()
    if is_run and not (runs / source).is_dir():
        raise InputError(f"run {source} is not in {runs}: --runs says where runs are")
    if not is_run and not user_path(source).exists():
        hub.locate(source, "run, adapter or model", [folder.name for folder in runs.glob("*")])
    return runs / source if is_run else source


def find(
    source: str | Path, base: Weights | None = None, alpha: float | None = None, slices: Sequence[str] = ()
) -> Source:
    """A source as `analysis.weights.updates.read` takes it. A full checkpoint is given with its own config, if it has
    one, else as the file of its weights.

    Raises InputError if it is missing, damaged, or of no kind that is read.
    """
    path, name = user_path(source), str(source)
    if path.is_file():
        return _file(path, base, alpha, slices)
    for folder in (path, path.parent) if path.name == "adapter" else (path,):
        if (folder / RUN).is_file():
            return of_run(folder)
    if (path / io.CONFIG).is_file():
        return Source(name, SUITE, _of_suite(io.read(path)))
    files = Files(name)
    if config := files.find(PEFT_CONFIG):
        if not files.find(PEFT_WEIGHTS):
            files.find(PEFT_PICKLED)  # a file of the hub is there once it has been asked for
        return Source(name, PEFT, read_peft(config.parent))
    if files.find("config.json"):
        return Source(name, CHECKPOINT, Weights.open(name))
    raise files.absent(
        f"is nothing to read updates from: it has no {io.CONFIG} or {RUN} (adapters and runs of this suite), "
        f"{PEFT_CONFIG} (peft) or config.json (a model)"
    )


def of_run(folder: Path) -> Source:
    """What a run has trained: an adapter, or weights. Raises InputError if it is missing or damaged."""
    return Source(folder.name, SUITE, _of_suite(io.read(folder / "adapter")), folder)


def _of_suite(adapter: Adapter) -> Adapter | TensorFile:
    return adapter if adapter.pieces else adapter.file


def _file(path: Path, base: Weights | None, alpha: float | None, slices: Sequence[str]) -> Source:
    file = open_tensors(path)
    others.refuse_other(file)
    if is_peft(file.shapes):
        raise InputError(
            f"{path} holds LoRA's matrices under peft's names, and does not tell their scaling: give the folder with "
            f"its {PEFT_CONFIG}, or merge the adapter into the model (merge_and_unload) and save that"
        )
    if not loralib.is_loralib(file):
        return Source(str(path), CHECKPOINT, file)
    if alpha is None:
        raise InputError(f"{path} is a loralib checkpoint, which does not store alpha: give --alpha (its default is 1)")
    is_linear = base.has if base else lambda module: False
    return Source(str(path), LORALIB, loralib.read_loralib(file, alpha, slices, is_linear))

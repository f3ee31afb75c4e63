"""What adapters and fine-tuned models add to their base: a delta_w for each module, from wherever they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from analysis.weights import beside
from analysis.weights.beside import Account
from analysis.weights.checkpoints import Files
from analysis.weights.comparison import Site, sites_of
from analysis.weights.delta_w import Difference, LowRank, Update
from analysis.weights.module_names import quantised
from analysis.weights.pretrained import Weights
from experiments.paths import user_path
from experiments.store import fingerprint
from lora import io
from lora.config import InputError
from lora.formats import loralib, others
from lora.formats.adapter import Foreign
from lora.formats.peft import PEFT_PICKLED, PEFT_WEIGHTS, is_peft, read_peft
from lora.formats.peft_config import PEFT_CONFIG
from lora.stored import Target
from lora.targets import WHOLE
from lora.tensor_files import TensorFile, open_tensors

__all__ = ["Update", "Updates", "read", "read_run"]

RUN = "config.yaml"  # what tells a stored run from other folders
DORA = "DoRA: delta_w is the update s B A of W0's directions alone, before the magnitudes scale the rows"


class Updates(Mapping[Site, Update]):
    """The updates of one source. `name`: the source; `kind`: what it is, for a reader; `base`: its base model, as far
    as it is known; `notes`: what else a reader must know of them; `account`: reads what else the source stores."""

    def __init__(
        self,
        name: str,
        kind: str,
        updates: Sequence[Update],
        base: str | None = None,
        notes: Sequence[str] = (),
        account: Callable[[], Account] = Account,
    ) -> None:
        self.name, self.kind, self.base, self.notes, self.account = name, kind, base, list(notes), account
        self._updates = {update.site: update for update in updates}

    def __getitem__(self, site: Site) -> Update:
        return self._updates[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self._updates)

    def __len__(self) -> int:
        return len(self._updates)


def read(
    source: str | Path, base: str | Weights | None = None, alpha: float | None = None, slices: Sequence[str] = ()
) -> Updates:
    """The updates of an adapter or a fine-tuned model.

    source   an adapter or run of this suite; a peft adapter, from a folder or by its hub id; a loralib checkpoint; a
             full checkpoint: a model's folder or hub id, or a file of its weights
    base     its base model (see `Weights.open`). Full checkpoints need it; it gives fused projections weight types
    alpha    of a loralib checkpoint, which stores none; `slices`: the weight types that it adapts, where several share
             a module (see `lora.formats.loralib.read_loralib`)

    Raises InputError if the source is missing, damaged or not for `base`.
    """
    base = Weights.open(base) if isinstance(base, str) else base
    path, name = user_path(source), str(source)
    if path.is_file():
        return _read_file(path, base, alpha, slices)
    for folder in (path, path.parent) if path.name == "adapter" else (path,):
        if (folder / RUN).is_file():
            return read_run(folder, base)
    if (path / io.CONFIG).is_file():
        return _of_suite(name, io.read(path), base)
    files = Files(name)
    if config := files.find(PEFT_CONFIG):
        if not files.find(PEFT_WEIGHTS):
            files.find(PEFT_PICKLED)  # a file of the hub is there once it has been asked for
        return _of_foreign(name, "peft", read_peft(config.parent), base)
    if files.find("config.json"):
        return _differences(name, "full checkpoint", Weights.open(name), base)
    raise files.absent(
        f"is nothing to read updates from: it has no {io.CONFIG} or {RUN} (adapters and runs of this suite), "
        f"{PEFT_CONFIG} (peft) or config.json (a model)"
    )


def _read_file(path: Path, base: Weights | None, alpha: float | None, slices: Sequence[str]) -> Updates:
    file = open_tensors(path)
    others.refuse_other(file)
    if is_peft(file.shapes):
        raise InputError(
            f"{path} holds LoRA's matrices under peft's names, and does not tell their scaling: give the folder with "
            f"its {PEFT_CONFIG}, or merge the adapter into the model (merge_and_unload) and save that"
        )
    if not loralib.is_loralib(file):
        return _differences(str(path), "full checkpoint", file, base)
    if alpha is None:
        raise InputError(f"{path} is a loralib checkpoint, which does not store alpha: give --alpha (its default is 1)")
    is_linear = base.has if base else lambda module: False
    return _of_foreign(str(path), "loralib", loralib.read_loralib(file, alpha, slices, is_linear), base)


def read_run(run_dir: Path, base: Weights | None = None) -> Updates:
    """The updates that a stored run has trained; those of full fine-tuning are against the weights it started from, in
    the precision in which it loaded them. A run from a model's folder needs that as `base`: its place is not stored.

    Raises InputError if the run is missing or damaged, has trained no weight matrix, or `base` is not its model.
    """
    try:
        config = yaml.safe_load((run_dir / RUN).read_text(encoding="utf-8"))
        model, path = config["model"]["name"], str(config["model"]["path"])
        method, task, lr = config["method"]["name"], config["task"]["name"], float(config["training"]["lr"])
        about = f"{method} on {task}, lr {lr:g}, seed {config['seed']}"
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{run_dir / RUN} is not that of a stored run, or is damaged ({reason})") from error
    precision = getattr(torch, str(io.read_json(run_dir / "metrics.json").get("precision")), None)
    if not isinstance(precision, torch.dtype):
        raise InputError(f"{run_dir / 'metrics.json'} is damaged: its precision is none of torch's")
    adapter = io.read(run_dir / "adapter")
    if not adapter.targets:
        if not path.startswith("fingerprint:"):
            base = Weights.open(path)
        elif base and path != f"fingerprint:{_fingerprint(base)}":
            raise InputError(f"{base.source} is not {model}, the model that run {run_dir.name} started from")
        base = base and base.rounded(precision)
    updates = _of_suite(run_dir.name, adapter, base)
    updates.base, updates.notes = model, [about, *updates.notes]
    return updates


def _fingerprint(base: Weights) -> str:
    folder = user_path(base.source)
    return fingerprint(folder) if folder.is_dir() else ""


def _of_suite(name: str, adapter: io.Adapter, base: Weights | None) -> Updates:
    file = adapter.open()
    if not adapter.targets:
        return _differences(name, "full fine-tuning", file, base)

    def account() -> Account:
        rows = beside.of_parameters(file.weights(adapter.trained_parameters), base)
        dora = {target: adapter.tensors(target) for target in adapter.targets if target.variant == "dora"}
        return Account([*rows, *beside.of_magnitudes(dora)])

    found = {target: partial(adapter.tensors, target) for target in adapter.targets}
    return _of_factors(name, "LoRA", found, base, account)


def _of_foreign(name: str, library: str, adapter: Foreign, base: Weights | None) -> Updates:
    found = {target: partial(adapter.tensors, target) for target in adapter.pieces}
    updates = _of_factors(name, f"LoRA ({library})", found, base, partial(beside.of_adapter, adapter, base))
    updates.base = adapter.base or updates.base
    return updates


class _Factors(NamedTuple):
    """The rows of a target's update that are one weight type."""

    target: Target
    rows: slice | Tensor
    read: Callable[[], tuple[Tensor, ...]]

    @property
    def module(self) -> str:
        return self.target.module

    @property
    def layer(self) -> int | None:
        return self.target.layer

    @property
    def weight_type(self) -> str:
        """The weight type, or for a module that has none the end of its name."""
        return self.module.rpartition(".")[2] if self.target.weight_type == WHOLE else self.target.weight_type

    def matrices(self) -> tuple[Tensor, Tensor]:
        A, B, *_ = self.read()
        return A, B[self.rows]


def _of_factors(
    name: str,
    kind: str,
    found: Mapping[Target, Callable[[], tuple[Tensor, ...]]],
    base: Weights | None,
    account: Callable[[], Account],
) -> Updates:
    absent = [target for target in found if base and not base.has(target.module)]
    if base and absent and len(absent) == len(found):
        base.shape(absent[0].module, absent[0].weight_type)  # raises: it is for another model
    parts = [part for target, read in found.items() for part in _parts(target, read, base)]
    if not parts:
        raise InputError(f"{name} adapts no module: it is damaged, or holds no LoRA")
    updates = [
        LowRank(
            site, part.module, part.target.weight_type, part.target.shape, part.target.r, part.target.scaling,
            part.matrices, part.target.w0_norm or None,
        )
        for site, part in zip(sites_of(parts), parts, strict=True)
    ]  # fmt: skip
    dora = any(target.variant == "dora" for target in found)
    kind = kind.replace("LoRA", "DoRA") if dora else kind
    notes = [DORA] * dora
    if base and absent:
        names = ", ".join(target.module for target in absent[:2]) + (", …" if len(absent) > 2 else "")
        notes.append(f"{len(absent)} of its modules are not in {base.source} ({names}): their W is not known")
    return Updates(name, kind, updates, base.source if base else None, notes, account)


def _parts(target: Target, read: Callable[[], tuple[Tensor, ...]], base: Weights | None) -> Iterator[_Factors]:
    """A target, or with a base model that says so the weight types of its fused projection.

    Raises InputError if the base model has no such matrix, or one of another shape.
    """
    slices = base.slices(target.module) if base and target.weight_type == WHOLE else {}
    if base and base.has(target.module):
        shape = base.shape(target.module, target.weight_type)
        if shape != target.shape:
            raise InputError(
                f"{target.module} ({target.weight_type}) has the shape {target.shape} in the adapter and {shape} in "
                f"{base.source}: give the base model that it was trained on"
            )
    if base is None or not slices:
        yield _Factors(target, slice(None), read)
        return
    for weight_type, rows in slices.items():
        shape = base.shape(target.module, weight_type)
        yield _Factors(target._replace(weight_type=weight_type, shape=shape, w0_norm=0.0), rows, read)


def _differences(name: str, kind: str, tuned: Weights | TensorFile, base: Weights | None) -> Updates:
    if base is None:
        raise InputError(f"{name} holds whole weights, no adapter: its updates need the model it started from, --base")
    rest = beside.of_rest(tuned) if isinstance(tuned, TensorFile) else []
    tuned = tuned if isinstance(tuned, Weights) else base.of(tuned)
    for weights in (tuned, base):
        beside.refuse_codes(weights.source, quantised(weights.checkpoint.where))
    names = tuned.checkpoint.where
    inside = [own for own in names if ".lora_" in own or beside.WRAPPED.search(own)]
    if inside or is_peft(names):
        raise InputError(
            f"{name} holds a model with an adapter in it, merged or not ({inside[0] if inside else 'peft'}): take the "
            "adapter out (merge_and_unload), and save it again"
        )
    there = tuned.sites
    shared = {site: at for site, at in base.sites.items() if there.get(site) == at}
    if not shared:
        raise InputError(f"{name} has no weight matrix of {base.source}: it is of another model, or trained none")
    for at in shared.values():
        if tuned.shape(*at) != base.shape(*at):
            raise InputError(
                f"{name} is of another model than {base.source}: {at[0]} is {tuned.shape(*at)} in one and "
                f"{base.shape(*at)} in the other"
            )
    dtypes = [
        str(weights.stored_dtype(next(iter(shared.values()))[0])).removeprefix("torch.") for weights in (tuned, base)
    ]
    rounded = (
        f"stored in {dtypes[0]} and its base in {dtypes[1]}: delta_w has the rounding to the coarser of the two too"
    )
    differences = [Difference(site, *at, tuned, base) for site, at in shared.items()]
    notes = [*([rounded] * (base.dtype is None and dtypes[0] != dtypes[1])), *rest]
    account = partial(beside.of_checkpoint, tuned, base, kind == "full fine-tuning")
    return Updates(name, kind, differences, base.source, notes, account)

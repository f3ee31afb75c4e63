"""What adapters and fine-tuned models add to their base: a delta_w for each module, from wherever they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from analysis.weights import beside, sources
from analysis.weights.beside import Account
from analysis.weights.delta_w import Difference, LowRank, Update
from analysis.weights.pairs import pair
from analysis.weights.pretrained import Weights
from analysis.weights.run_base import Start
from analysis.weights.sites import Site, sites_of
from lora.config import InputError
from lora.stored import Adapter, Target
from lora.targets import WHOLE
from lora.tensor_files import TensorFile

__all__ = ["Update", "Updates", "read", "read_run"]

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
    return of_source(sources.find(source, base, alpha, slices), base)


def read_run(run_dir: Path, base: Weights | None = None) -> Updates:
    """The updates that a stored run has trained; those of full fine-tuning are against the weights it started from, in
    the precision in which it loaded them. A run from a model's folder needs that as `base`: its place is not stored.

    Raises InputError if the run is missing or damaged, has trained no weight matrix, or `base` is not its model.
    """
    Start.of(run_dir)  # raises: what is wrong with a folder that is no run is said first
    return of_source(sources.of_run(run_dir), base)


def of_source(found: sources.Source, base: Weights | None) -> Updates:
    if found.run:
        start, found = Start.of(found.run), found._replace(run=None)
        updates = of_source(found, base if isinstance(found.stored, Adapter) else start.base(base))
        updates.base, updates.notes = start.model, [start.about, *updates.notes]
        return updates
    if isinstance(found.stored, Adapter):
        return _of_adapter(found, found.stored, base)
    kind = "full fine-tuning" if found.library == sources.SUITE else "full checkpoint"
    return _differences(found.name, kind, found.stored, base)


def _of_adapter(source: sources.Source, adapter: Adapter, base: Weights | None) -> Updates:
    own = source.library == sources.SUITE
    found = {target: partial(adapter.tensors, target) for target in adapter.targets}
    account = partial(beside.of_adapter, adapter, base, frozenset() if own else adapter.apart)
    updates = _of_factors(source.name, "LoRA" if own else f"LoRA ({source.library})", found, base, account)
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


def _differences(name: str, kind: str, stored: Weights | TensorFile, given: Weights | None) -> Updates:
    tuned, base, notes = pair(name, stored, given)
    there = tuned.sites
    shared = {site: at for site, at in base.sites.items() if there.get(site) == at}
    differences = [Difference(site, *at, tuned, base) for site, at in shared.items()]
    account = partial(beside.of_checkpoint, tuned, base, kind == "full fine-tuning")
    return Updates(name, kind, differences, base.source, notes, account)

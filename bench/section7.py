"""Section 7 at the size of GPT-3, without ever forming delta_w, against dense SVDs.

    python -m bench.section7 [--compare 2048 12288] [--size 12288] [--rank 64] [--layers 96] [--checkpoint MODEL]

All of Section 7 for one projection W: the SVDs of two updates of a large rank, and of one of rank 8, from their
factors; the top singular triplets of W; ||U^T W V||_F with U, V of each update, and with random ones; norms and
amplification factors; phi between the updates, and between each and W, on both sides. The dense way forms every delta_w
and takes whole SVDs, of W too. Then the same for q and v of every layer, with one W in memory at a time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from analysis.maths.amplification import amplification, projection_norm, random_projection, top_singular
from analysis.maths.subspace import phi
from analysis.maths.svd import SVD, Array
from analysis.weights.delta_w import LowRank
from analysis.weights.pretrained import Weights
from analysis.weights.sites import Site
from bench.projections import SMALL, SPECTRA, TYPES, Single, adapters, drawn, sites, stored
from bench.results import write
from experiments.arguments import Parser, whole
from experiments.compute import PeakMemory
from lora.config import InputError

PROGRESS = 16  # projections from one line of progress to the next
NOTE = """\
Section 7 of a projection W: the SVDs of two updates with r = {r} and of one with r = {small} from their factors, the
top {r} singular triplets of W (block Krylov, to a residual of 1e-4 of the largest), the norms, the amplification
factors, and phi between the updates and between each and W, on both sides. Dense: delta_w is formed, and LAPACK's gesdd
computes the whole SVD of each of the three and of W. Both in fp32 (small problems in fp64), with {threads} threads.
Differences of norms are relative, those of phi (from 0 to 1) absolute. Weights are drawn from a seed, but for those of
a checkpoint. flat: independent Gaussians, whose top singular values lie as close as they can, the hardest for the
iteration; falling: the i-th singular value is about i^-0.45 of the first, near what the paper's Table 7 says of GPT-3.
Of several projections one is in memory at a time; drawing or reading them is in their time."""
Result = TypeVar("Result")


class Section7(NamedTuple):
    """What Section 7 says of a projection (d, k): norms and factors, and grids of phi, by name."""

    shape: tuple[int, int]
    norms: dict[str, float]
    phi: dict[str, Array]


class Differences(NamedTuple):
    """The largest relative difference between norms, and the largest difference between values of phi."""

    norms: float
    phi: float


class Cost(NamedTuple):
    """Wall-clock time, and the peak of the process's memory."""

    seconds: float
    peak_bytes: int


def section7(W: Single, own: SVD, deltas: Mapping[str, SVD]) -> Section7:
    """Section 7 of W (d, k) from its top singular triplets and those of its updates, by name, none larger than W's."""
    squares = np.einsum("ij,ij->i", W, W)  # row by row: one sum of all in fp32 would lose digits
    norms, grids = {"norm_w": float(np.sqrt(squares.sum(dtype=np.float64)))}, dict[str, Array]()
    for r in {len(svd.S) for svd in deltas.values()}:
        norms[f"projection_w, r={r}"] = float(np.linalg.norm(own.S[:r]))
        norms[f"projection_random, r={r}"] = random_projection(W, r, draws=1).mean
    for name, svd in deltas.items():
        norm, projection = float(np.linalg.norm(svd.S)), projection_norm(svd.U, W, svd.Vh.T)
        norms |= {
            f"norm_delta_w, {name}": norm,
            f"projection_delta_w, {name}": projection,
            f"amplification, {name}": amplification(norm, projection),
        }
        grids |= _phi(f"W, {name}", own, svd)
    for (one, first), (two, second) in pairwise(deltas.items()):
        grids |= _phi(f"{one}, {two}", first, second)
    return Section7((W.shape[0], W.shape[1]), norms, grids)


def _phi(name: str, first: SVD, second: SVD) -> dict[str, Array]:
    return {f"{name}, left": phi(first.U, second.U), f"{name}, right": phi(first.Vh.T, second.Vh.T)}


def from_factors(W: Single, updates: Mapping[str, LowRank]) -> Section7:
    """Section 7 of W (d, k) without a d x k matrix beside W. Small W take the path of large ones."""
    own = top_singular(W, max(update.rank for update in updates.values()), dense=0)
    return section7(W, own, {name: update.svd() for name, update in updates.items()})


def dense_svd(matrix: Tensor, r: int) -> SVD:
    """The top r triplets of a whole SVD (LAPACK's gesdd, in the precision of `matrix`)."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return SVD(*(part.double().numpy() for part in (U[:, :r], S[:r], Vh[:r])))


def dense_delta_w(update: LowRank) -> SVD:
    """What `update.svd()` gives, by way of delta_w (d, k) in fp32."""
    A, B = (torch.from_numpy(factor).float() for factor in update.factors())
    return dense_svd(B @ A, update.rank)


def differences(one: Section7, other: Section7) -> Differences:
    """Between two results for one W: relative to `other` for norms, absolute for phi."""
    return Differences(
        max(abs(one.norms[name] / value - 1) for name, value in other.norms.items()),
        max(float(np.abs(one.phi[name] - grid).max()) for name, grid in other.phi.items()),
    )


def walk(source: Iterable[tuple[Site, Single]], rank: int) -> Iterator[tuple[Site, Section7]]:
    """Section 7 of every projection, with random updates, whose W is let go of before the next is asked for."""
    for site, W in source:
        d, k = W.shape
        found = from_factors(W, adapters(site, (d, k), rank))
        del W
        yield site, found


def timed(work: Callable[[], Result], name: str) -> tuple[Result, Cost]:
    """What `work` returns, and what it took, which is printed too."""
    peak, started = PeakMemory(torch.device("cpu")), time.perf_counter()
    result = work()
    cost = Cost(time.perf_counter() - started, peak.read())
    print(f"{name}: {cost.seconds:.1f} s", flush=True)
    return result, cost


def compare(size: int, rank: int, spectra: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each spectrum: one projection (size, size), by factors and by dense SVDs, which its updates share."""
    updates = adapters(Site("0", TYPES[0]), (size, size), rank)
    dense, costs = dict[str, SVD](), list[Cost]()
    for name, update in updates.items():
        dense[name], cost = timed(partial(dense_delta_w, update), f"{size}, delta_w, {name}: dense SVD")
        costs.append(cost)
    rows = []
    for spectrum in spectra:
        _, W = next(drawn(size, 1, spectrum))
        ours, cost = timed(partial(from_factors, W, updates), f"{size}, {spectrum} W: Section 7 from factors")
        own, cost_w = timed(partial(dense_svd, torch.from_numpy(W), rank), f"{size}, {spectrum} W: dense SVD")
        theirs, rest = timed(partial(section7, W, own, dense), f"{size}, {spectrum} W: the rest of Section 7")
        whole_way, far = [*costs, cost_w, rest], differences(ours, theirs)
        seconds = sum(each.seconds for each in whole_way)
        dense_columns = {
            "dense, s": seconds, "of which W, s": cost_w.seconds, "faster by": seconds / cost.seconds,
            "dense, peak MB": max(each.peak_bytes for each in whole_way) / 1e6,
            "norms differ by": far.norms, "phi differs by": far.phi,
        }  # fmt: skip
        rows.append(_row(f"{size} x {size}", spectrum, 1, cost) | dense_columns)
    return rows


def layers(source: Iterator[tuple[Site, Single]], count: int, rank: int, weights: str) -> dict[str, Any]:
    """The row of a pass over all `count` projections of a source; `weights` says what they are."""
    shapes = set[tuple[int, int]]()

    def work() -> None:
        for done, (site, found) in enumerate(walk(source, rank)):
            shapes.add(found.shape)
            if not done % PROGRESS:
                print(f"{done + 1} of {count} projections: layer {site.layer}, {site.weight_type}", flush=True)

    _, cost = timed(work, f"{count} projections")
    return _row(", ".join(f"{d} x {k}" for d, k in sorted(shapes)), weights, count, cost)


def _row(shape: str, weights: str, count: int, cost: Cost) -> dict[str, Any]:
    about = {"projections": count, "W": shape, "weights": weights}
    return about | {"seconds": cost.seconds, "a projection, s": cost.seconds / count, "peak MB": cost.peak_bytes / 1e6}


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows with as many digits as a reader can use."""
    frame = pd.DataFrame(rows)
    digits = {"seconds": 2, "a projection, s": 2, "dense, s": 1, "of which W, s": 1, "faster by": 1}
    frame = frame.round({name: count for name, count in digits.items() if name in frame})
    for name in frame.columns.intersection(["norms differ by", "phi differs by"]):
        frame[name] = frame[name].map("{:.1e}".format, na_action="ignore")
    for name in frame.columns.intersection(["peak MB", "dense, peak MB"]):
        frame[name] = frame[name].round().astype("Int64")
    return frame


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", type=whole, nargs="*", help="sizes at which dense SVDs run too (2048 and --size)")
    parser.add_argument("--size", type=whole, default=12288, help="of the square projections of all layers")
    parser.add_argument("--rank", type=whole, default=64)
    parser.add_argument("--layers", type=whole, default=96, help="of which q and v are analysed")
    parser.add_argument("--spectrum", nargs="+", choices=SPECTRA, default=[*SPECTRA], help="the layers have the last")
    parser.add_argument("--checkpoint", help="a model (folder, hub id, asset:NAME) whose q and v are the layers")
    parser.add_argument("--threads", type=whole, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    options = parser.parse_args(arguments)
    options.compare = [2048, options.size] if options.compare is None else options.compare
    if options.rank > (least := min([*options.compare, options.size])):
        raise InputError(f"--rank {options.rank} is more than a projection of {least} x {least} has; make it smaller")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write section7.csv and section7.md. Returns 0, or 2 with one line on stderr."""
    try:
        options = _options(arguments)
        torch.set_num_threads(options.threads)
        source, count, name = _layers_source(options)
        with threadpool_limits(options.threads):  # numpy's
            last = layers(source, count, options.rank, name)  # before dense SVDs, whose memory may not all come back
            rows = [row for size in options.compare for row in compare(size, options.rank, options.spectrum)]
        note = NOTE.format(threads=options.threads, r=options.rank, small=min(SMALL, options.rank))
        write("section7", table([*rows, last]), note, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _layers_source(options: argparse.Namespace) -> tuple[Iterator[tuple[Site, Single]], int, str]:
    if options.checkpoint is None:
        spectrum = options.spectrum[-1]
        return drawn(options.size, options.layers, spectrum), len(TYPES) * options.layers, spectrum
    weights = Weights.open(options.checkpoint)
    places = sites(weights)
    least = min(min(weights.shape(*weights.sites[site])) for site in places)
    if options.rank > least:
        raise InputError(f"--rank {options.rank} is more than {options.checkpoint} has: {least}; make it smaller")
    return stored(weights, places), len(places), options.checkpoint


if __name__ == "__main__":
    sys.exit(main())

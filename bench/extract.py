"""A LoRA adapter out of a full checkpoint, against dense SVDs, torch.svd_lowrank, and mergekit's own command.

    python -m bench.extract [--size 2048 4096 12288] [--rank 64] [--mergekit COMMAND]

One square projection of a model and of its fine-tuned self, each in a safetensors file in bf16, is read, and its update
brought to a low rank by each contender. Then whole commands on a small Llama: that of this suite, and, if it is given,
mergekit-extract-lora. Then an adapter of that Llama made smaller, by this suite and by peft's add_weighted_adapter.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from analysis.adapters.ranks import Wish
from analysis.extract.delta import delta
from analysis.extract.updates import extract_all
from analysis.weights.checkpoints import Checkpoint
from analysis.weights.pairs import Pair, pair
from analysis.weights.pretrained import Weights
from bench import extract_commands
from bench.projections import SPECTRA, drawn
from bench.results import write
from experiments.arguments import Parser, program, whole
from experiments.compute import PeakMemory
from lora.config import InputError
from lora.tensor_files import open_tensors

NITER = 4
MODULE = "layers.0.self_attn.q_proj"
UPDATE = 0.05  # ||delta_w|| of ||W||
Factors = tuple[Tensor, Tensor]
NOTE = """\
The update of one projection, the difference of two files in bf16, as B A of rank {r}, with {threads} threads. The base
weights are independent Gaussians; the update's norm is {update:g} of theirs, and what rounding to bf16 adds is part of
it. flat: the update's singular values lie as close as they can; falling: the i-th is about i^-0.45 of the first.
Error: ||delta_w - B A|| / ||delta_w||, Frobenius; above the best: relative to the lowest of the contenders. CPU: time
of all threads, which other work on the same cores lengthens less than wall time. Dense: torch.linalg.svd of all of
delta_w in fp32, as mergekit 0.1.5 (extract-lora) computes it, here with factors in fp32. svd_lowrank: that of torch,
with its 6 oversampled directions and {niter} iterations, as in peft's pissa_niter_{niter}. Peak: of the process, mapped
files included. Commands are timed from nothing to the adapter in its folder, imports included; mergekit stores factors
in the precision of the weights, here fp32."""


class Cost(NamedTuple):
    """Wall-clock and processor time, and the peak of the process's memory."""

    seconds: float
    cpu: float
    peak_bytes: int


def files(size: int, spectrum: str, folder: Path) -> tuple[Path, Path]:
    """Files of one projection (size, size) in bf16: of a base model, and with an update added."""
    source = drawn(size, 1, "flat")
    base = torch.from_numpy(next(source)[1])
    found = folder / "base.safetensors", folder / "tuned.safetensors"
    save_file({f"{MODULE}.weight": base.to(torch.bfloat16)}, found[0])
    del source
    update = torch.from_numpy(next(drawn(size, 1, spectrum, seed=1))[1])
    base += update.mul_(UPDATE * base.norm() / update.norm())
    save_file({f"{MODULE}.weight": base.to(torch.bfloat16)}, found[1])
    return found


def opened(size: int, paths: tuple[Path, Path]) -> Pair:
    """Both, as the weights of a Llama of this width."""
    with torch.device("meta"):
        body = LlamaModel(
            LlamaConfig(
                hidden_size=size, intermediate_size=size, num_hidden_layers=1, num_attention_heads=1, vocab_size=8,
                num_key_value_heads=1,
            )
        )  # fmt: skip
    base = Weights(body, Checkpoint.of_file(open_tensors(paths[0])))
    return pair("tuned", open_tensors(paths[1]), base)


def ours(both: Pair, rank: int) -> Factors:
    """This suite's."""
    [found] = extract_all(both, {MODULE: MODULE}, Wish(rank=rank), rank, 1e-3).adapters(torch.float32).values()
    return found


def dense(both: Pair, rank: int) -> Factors:
    """From a whole SVD in fp32, the root of the singular values on both sides."""
    U, S, Vh = torch.linalg.svd(torch.from_numpy(delta(both, MODULE).matrix), full_matrices=False)
    return _factors(U[:, :rank], S[:rank], Vh[:rank])


def lowrank(both: Pair, rank: int) -> Factors:
    """From randomised subspace iteration."""
    torch.manual_seed(0)
    U, S, V = torch.svd_lowrank(torch.from_numpy(delta(both, MODULE).matrix), rank + 6, NITER)
    return _factors(U[:, :rank], S[:rank], V.T[:rank])


def _factors(U: Tensor, S: Tensor, Vh: Tensor) -> Factors:
    root = S.sqrt()
    return root[:, None] * Vh, U * root


CONTENDERS: dict[str, Callable[[Pair, int], Factors]] = {"lora-lab": ours, "svd_lowrank": lowrank, "dense SVD": dense}


def error(matrix: Tensor, factors: Factors) -> float:
    """||delta_w - B A||_F / ||delta_w||_F, some rows at a time, in double precision."""
    A, B = (side.double() for side in factors)
    far = near = 0.0
    for rows, own in zip(torch.split(matrix, 512), torch.split(B, 512), strict=True):
        exact = rows.double()
        far += float((exact - own @ A).square().sum())
        near += float(exact.square().sum())
    return float((far / near) ** 0.5)


def timed(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """What `work` returns, and what it took, with processor time of child processes."""
    peak, busy, started = PeakMemory(torch.device("cpu")), _busy(), time.perf_counter()
    result = work()
    return result, Cost(time.perf_counter() - started, _busy() - busy, peak.read())


def _busy() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def projection(size: int, spectrum: str, rank: int, with_dense: bool) -> list[dict[str, Any]]:
    """A row a contender, for one projection: dense SVDs take most of the time."""
    rows, found = [], dict[str, Factors]()
    with tempfile.TemporaryDirectory() as folder:
        paths = files(size, spectrum, Path(folder))
        for name, work in CONTENDERS.items():
            if work is dense and not with_dense:
                continue
            found[name], cost = timed(lambda work=work: work(opened(size, paths), rank))  # type: ignore[misc]
            rows.append({"input": f"{size} x {size}, {spectrum}", "contender": name, **_cost(cost)})
            print(f"{size}, {spectrum}, {name}: {cost.seconds:.1f} s", flush=True)
        matrix = torch.from_numpy(delta(opened(size, paths), MODULE).matrix)
        errors = [error(matrix, own) for own in found.values()]
    return _compared(rows, errors)


def commands(width: int, layers: int, rank: int, small: int, mergekit: str | None) -> list[dict[str, Any]]:
    """The rows of a small Llama: whole commands, and an adapter made smaller."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place), f"Llama, {layers} layers of {width}"
        for about, found in (
            (f"{model}: whole command", extract_commands.extraction(width, layers, rank, mergekit, folder)),
            (f"{model}: adapter of r = {extract_commands.WHOLE_RANK} to {small}",
             extract_commands.shrinking(width, layers, small, folder)),
        ):  # fmt: skip
            costs = [timed(contender.work)[1] for contender in found]
            own = [
                {"input": about, "contender": contender.name, **_cost(cost), "peak MB": None}
                for contender, cost in zip(found, costs, strict=True)
            ]
            rows += _compared(own, [contender.error() for contender in found])
            print(f"{about}: {', '.join(f'{cost.seconds:.1f} s' for cost in costs)}", flush=True)
    return rows


def _cost(cost: Cost) -> dict[str, Any]:
    return {"seconds": cost.seconds, "CPU, s": cost.cpu, "peak MB": cost.peak_bytes / 1e6}


def _compared(rows: list[dict[str, Any]], errors: Sequence[float]) -> list[dict[str, Any]]:
    """The rows with what lora-lab, the first, is faster by, and errors beside the lowest."""
    for row, own in zip(rows, errors, strict=True):
        row |= {
            "lora-lab is faster by": row["seconds"] / rows[0]["seconds"],
            "by CPU": row["CPU, s"] / rows[0]["CPU, s"],
        }
        row |= {"error": own, "above the best": own / min(errors) - 1}
    return rows


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with as many digits as a reader can use."""
    frame = pd.DataFrame(rows)
    digits = {"seconds": 2, "CPU, s": 2, "lora-lab is faster by": 1, "by CPU": 1, "error": 6}
    frame = frame.round(digits)
    frame["peak MB"] = frame["peak MB"].round().astype("Int64")
    frame["above the best"] = frame["above the best"].map("{:.1e}".format)
    return frame


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=program("bench.extract"), description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=whole, nargs="*", default=[2048, 4096, 12288], help="of the square projections")
    parser.add_argument("--rank", type=whole, default=64)
    parser.add_argument("--spectrum", nargs="+", choices=SPECTRA, default=[*SPECTRA])
    parser.add_argument("--dense", type=whole, help="the largest size at which dense SVDs run too (default: all)")
    parser.add_argument("--mergekit", metavar="COMMAND", help="mergekit-extract-lora of an environment that has it")
    parser.add_argument("--only-projections", action="store_true", help="no whole commands, no small Llama")
    parser.add_argument("--width", type=whole, default=1024, help="of the small Llama")
    parser.add_argument("--layers", type=whole, default=2, help="of the small Llama")
    parser.add_argument("--small", type=whole, default=8, help="rank to which an adapter of the Llama is brought")
    parser.add_argument("--threads", type=whole, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write extract.csv and extract.md. Returns 0, or 2 with one line on stderr."""
    try:
        options = _options(arguments)
        torch.set_num_threads(options.threads)
        with threadpool_limits(options.threads):  # numpy's
            rows = [
                row
                for size in options.size
                for spectrum in options.spectrum
                for row in projection(size, spectrum, options.rank, size <= (options.dense or size))
            ]
            if not options.only_projections:
                rows += commands(options.width, options.layers, options.rank, options.small, options.mergekit)
        note = NOTE.format(r=options.rank, threads=options.threads, update=UPDATE, niter=NITER)
        write("extract", table(rows), note, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Two processes (gloo) that compute one run, against one process that does: `experiments.parallel`, `.processes`."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from hydra.core.global_hydra import GlobalHydra
from networks import BATCH, adapted
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from experiments import parallel, processes, run
from experiments.measure.memory import sharded as sharded_plan
from lora import io
from lora.config import InputError
from lora.model import lora_layers, merge

Cli = Callable[..., Any]  # conftest.cli
# Batches of 7 rows in 2 parts, the last one of fewer, some of them of a single row: processes have unequal shares.
SETTINGS = (
    *("preset=smoke", "preset.epochs=1", "training.lr=1e-2", "training.batch_size=7", "training.accumulate=2"),
    *("training.max_grad_norm=0.5", "model=hub", "model.dropout=0.0", "task=local", "task.train_examples=22"),
    *("runtime.threads=1", "runtime.precision=fp32", "runtime.eval_batch_size=5", "engine.jobs=1"),
)
WRITES = ("runtime.eval_batch_size=3", "task.generation.max_new_tokens=6", "runtime.checkpointing=true")
GALORE = ("method=galore", "method.r=4", "method.refresh=2")
BADAM = ("method=badam", "method.switch=1")
CASES = {  # which model, how, and which overrides tell the run from others
    "encoder-ddp": ("encoder", "ddp", ()),
    "encoder-fsdp": ("encoder", "fsdp", ()),
    "decoder-ddp": ("decoder", "ddp", WRITES),
    "decoder-fsdp": ("decoder", "fsdp", WRITES),
    "galore": ("encoder", "ddp", (*GALORE, "training.lr=1e-3")),
    "lora_ga": ("encoder", "ddp", ("method=lora_ga", "method.r=2")),
    "dora": ("encoder", "fsdp", ("method=dora",)),
    "prefix": ("decoder", "fsdp", ("method=lora+prefix_layer", "method.l_p=2", "method.l_i=1", *WRITES)),
    "nf4": ("wide", "fsdp", ("model.quantization=nf4", *WRITES)),
}


def command(*overrides: str) -> int:
    """`python -m experiments.run` in this process, which may be the first of several."""
    sys.argv[1:] = overrides
    GlobalHydra.instance().clear()
    return run.command().code


def stored(results: Path) -> Path:
    (folder,) = (path for path in (results / "runs").iterdir() if not path.name.startswith("."))
    return folder


def history(folder: Path) -> list[float]:
    with (folder / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def environment(rank: int) -> dict[str, str]:
    """What torchrun says to each of two processes."""
    number = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return {**number, "MASTER_ADDR": "127.0.0.1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


class Held(NamedTuple):
    """Bytes of frozen weights of one of two processes: as planned, and as it holds them."""

    planned: int
    real: int


class Computed(NamedTuple):
    """Each case's run by one process, and by two, of which this one is the first; what it held of those with fsdp."""

    runs: dict[str, tuple[Path, Path]]
    held: dict[str, Held]


def _wide(folder: Path, like: Path) -> Path:
    """A decoder of 64 inputs everywhere, which is what nf4 takes scales of."""
    config = AutoConfig.from_pretrained(like, hidden_size=64, intermediate_size=64, head_dim=16)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, decoders: dict[str, Path]) -> Computed:
    root, patch = tmp_path_factory.mktemp("parallel"), pytest.MonkeyPatch()
    texts = [f"a {('dull', 'warm')[row % 2]} film" + " indeed" * (row % 5) for row in range(60)]
    labels = [{"text": text, "label": ("bad", "good")[row % 2]} for row, text in enumerate(texts)]
    pairs = [{"prompt": f"{text} {row}:", "completion": " yes" + " so" * (row % 4)} for row, text in enumerate(texts)]
    places = {"encoder": tiny_model, "decoder": decoders["llama"], "wide": _wide(root / "wide", decoders["llama"])}
    for kind, rows in {"encoder": labels, "decoder": pairs, "wide": pairs}.items():
        (root / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def typed(case: str, where: str) -> list[str]:
        kind, _, own = CASES[case]
        return [
            *SETTINGS, f"model.path={places[kind]}", f"task.path={root}/{kind}.jsonl", *own,
            f"results_dir={root}/{where}/{case}",
        ]  # fmt: skip

    held: dict[str, Held] = {}

    def begin(model: Any, how: str, device: torch.device) -> None:
        planned = sharded_plan.share(model, 2)
        parallel_begin(model, how, device)
        if how == "fsdp":
            own = [weight.to_local().nbytes for weight in model.parameters() if isinstance(weight, DTensor)]
            held[case] = Held(planned, sum(own))

    parallel_begin = parallel.begin
    patch.setattr(parallel, "begin", begin)
    patch.setattr(sys, "argv", ["experiments.run"])
    for case in CASES:
        assert command(*typed(case, "one")) == 0, case
    for name, value in {**environment(0), "MASTER_PORT": free_port()}.items():
        patch.setenv(name, value)
    other = subprocess.Popen([sys.executable, "-m", "experiments.run"], env={**os.environ, **environment(1)})
    try:
        processes.join()
        for case, (_, how, _) in CASES.items():
            assert command(*typed(case, "two"), f"runtime.parallel={how}") == 0, case
        processes.dismiss()
        assert other.wait(60) == 0
    finally:
        other.kill()
        patch.undo()
    return Computed({case: (stored(root / "one" / case), stored(root / "two" / case)) for case in CASES}, held)


def test_two_processes_have_the_result_of_one_and_hold_the_share_that_is_planned(computed: Computed) -> None:
    for case in CASES:  # one test: no other process of the tests computes all of this again
        _agree(case, *computed.runs[case])
    assert computed.held.keys() == {case for case, (_, how, _) in CASES.items() if how == "fsdp"}
    for case, held in computed.held.items():
        assert held.planned == held.real > 0, case


def _agree(case: str, one: Path, two: Path) -> None:
    assert one.name == two.name, "how it was computed is no part of a run's id"
    assert len(history(one)) == 5  # four steps, the last of one row, and the validation
    assert history(two) == pytest.approx(history(one), abs=1e-5)
    if (
        case != "galore"
    ):  # its steps are as long where a gradient is 0 but for rounding: of a run losses and scores agree
        before, after = (load_file(folder / "adapter" / "adapter.safetensors") for folder in (one, two))
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            about = f"{case} {name} "
            torch.testing.assert_close(after[name], tensor, atol=1e-5, rtol=1e-5, msg=about.__add__)
    found = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    values = [{(row["split"], row["metric"]): row["value"] for row in each["metrics"]} for each in found]
    assert values[1] == pytest.approx(values[0], abs=1e-5)
    assert "parallel" not in found[0]["machine"]
    assert (found[1]["machine"]["parallel"], found[1]["machine"]["processes"]) == (CASES[case][1], 2)
    for name in ("predictions.jsonl", "adapter/lora_config.json"):
        if (one / name).exists():
            assert (two / name).read_text() == (one / name).read_text()


@pytest.fixture
def sharded() -> Iterator[Any]:
    """A classifier with LoRA whose frozen weights are shared out among one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    model = adapted("bert", {"name": "lora", "r": 2, "alpha": 4, "weight_types": "q+v"})
    for parameter in (parameter for _, layer in lora_layers(model) for parameter in layer.lora_B.values()):
        torch.nn.init.normal_(parameter)
    model.plain = model(**BATCH).logits.detach()
    parallel.begin(model, "fsdp", torch.device("cpu"))
    yield model
    dist.destroy_process_group()


def test_sharded_adapters_are_never_merged(sharded: Any, tmp_path: Path) -> None:
    for _ in range(2):  # before a forward pass weights are DTensors; after it those of the root are whole
        with pytest.raises(InputError, match="cannot be merged"):
            merge(sharded)
        torch.testing.assert_close(sharded(**BATCH).logits, sharded.plain)
    io.save(sharded, tmp_path)
    _, layer = next(lora_layers(sharded))
    assert io.read(tmp_path).targets[0].w0_norm == pytest.approx(layer.base.weight.full_tensor().norm().item())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runtime.parallel=yes"], "runtime.parallel = 'yes': choose from ddp, fsdp"),
        (["runtime.parallel=ddp"], "runtime.parallel = ddp is a process for each device: start them by torchrun"),
        (["runtime.parallel=ddp", "engine=slurm"], "runtime.parallel = ddp: give engine.processes=N"),
        (["runtime.parallel=fsdp", "method=full"], "shards what is frozen, but method full trains all of it"),
        (["runtime.parallel=fsdp", *GALORE], "method full with GaLore trains all of it: choose ddp"),
        (["runtime.parallel=fsdp", *BADAM], "method full with BAdam trains all of it: choose ddp"),
        (["runtime.parallel=fsdp", "method=lora_ga"], "method.init = lora_ga"),
        (["runtime.parallel=fsdp", "method=pissa"], "method.init = pissa"),
        (["runtime.parallel=fsdp", "model.quantization=int8"], "cannot shard layers of int8: choose nf4, or ddp"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(cli: Cli, tiny: list[str], overrides: list[str], message: str) -> None:
    result = cli(*tiny, *overrides)
    assert result.code == 2
    (error,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert message in error


def test_a_killed_process_ends_the_others_with_one_line(tiny: list[str], tmp_path: Path) -> None:
    settings = [*tiny, f"results_dir={tmp_path}", "runtime.parallel=ddp", "preset.epochs=10000"]
    together = {**os.environ, "MASTER_PORT": free_port(), "TQDM_DISABLE": "1"}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *settings],
            env={**together, **environment(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not any(len(file.read_bytes()) > 500 for file in (tmp_path / "runs").glob(".*/history.csv")):
            assert first.poll() is None and time.monotonic() < end, first.communicate()
            time.sleep(0.1)
        second.send_signal(signal.SIGKILL)
        said = first.communicate(timeout=60)[1]
    finally:
        first.kill()
        second.kill()
        second.communicate()
    assert first.returncode == 2
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "another of its processes has ended" in error
    assert "Traceback" not in said
    assert not list((tmp_path / "runs").glob(".*/metrics.json"))

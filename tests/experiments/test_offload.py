"""runtime.offload: a run whose weights are mostly on the disk has the result of one that has them in memory."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import adapted
from safetensors.torch import load_file

from experiments import compute, offload
from lora.config import InputError
from lora.model import merge

Cli = Callable[..., Any]  # conftest.cli
LORA = {"name": "lora", "r": 2, "alpha": 4, "weight_types": "q+v"}
SETTINGS = (
    *("preset=smoke", "preset.epochs=1", "training.lr=1e-2", "model=hub", "model.dropout=0.0", "task=local"),
    *("task.train_examples=24", "runtime.threads=1", "runtime.precision=fp32", "runtime.checkpointing=true"),
    *("runtime.eval_batch_size=8", "training.batch_size=8", "task.generation.max_new_tokens=4"),
)
CASES = {  # a model, and what tells its run from others
    "encoder": ("tiny", ("method.dropout=0.1",)),
    "adapters": ("tiny", ("method=adapter_h", "method.bottleneck=4")),
    "decoder": ("llama", ()),
    "tied": ("gpt2", ("method=lora+prefix_embed", "method.l_p=2", "method.l_i=0")),
    "frozen": ("llama", ("method=frozen",)),
}


@pytest.fixture
def rows(tmp_path: Path) -> dict[bool, Path]:
    """Labels, and pairs of texts."""
    texts = [f"a {('dull', 'warm')[row % 2]} film" + " indeed" * (row % 5) for row in range(60)]
    labels = [{"text": text, "label": ("bad", "good")[row % 2]} for row, text in enumerate(texts)]
    pairs = [{"prompt": f"{text} {row}:", "completion": " yes" + " so" * (row % 4)} for row, text in enumerate(texts)]
    places = {False: tmp_path / "labels.jsonl", True: tmp_path / "pairs.jsonl"}
    for kind, given in ((False, labels), (True, pairs)):
        places[kind].write_text("".join(json.dumps(row) + "\n" for row in given))
    return places


def losses(run: Path) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_that_of_weights_in_memory(
    case: str, cli: Cli, tiny_model: Path, decoders: dict[str, Path], rows: dict[bool, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place, own = CASES[case]
    settings = [*SETTINGS, f"model.path={decoders.get(place, tiny_model)}", f"task.path={rows[place != 'tiny']}", *own]
    assert cli(*settings, f"results_dir={tmp_path}/memory").code == 0
    away: list[int] = []
    train = compute.train

    def trained(problem: Any, groups: Any, *arguments: Any, **named: Any) -> Any:
        away.append(sum(parameter.nbytes for parameter in problem.model.parameters() if parameter.is_meta))
        assert not any(parameter.is_meta for group in groups for parameter in group["params"])
        if case == "decoder":
            with pytest.raises(InputError, match="offloaded cannot be merged"):
                merge(problem.model)
        found = train(problem, groups, *arguments, **named)
        assert sum(parameter.nbytes for parameter in problem.model.parameters() if parameter.is_meta) == away[0]
        return found

    monkeypatch.setattr(compute, "train", trained)
    asked: list[Any] = []
    monkeypatch.setattr(offload, "free", lambda device: asked.append(device) or planned + 100_000)
    step = offload.sizing.plan
    planned = 0.0

    def plan(config: Any, device: str) -> Any:
        nonlocal planned
        found = step(config, device)
        planned = offload.sizing.SPREAD * (found.peak - found.weights) + 4 * found.trainable_params
        return found

    monkeypatch.setattr(offload.sizing, "plan", plan)
    assert cli(*settings, "runtime.offload=auto", f"results_dir={tmp_path}/disk").code == 0
    one, two = (next((tmp_path / where / "runs").glob("[0-9a-f]*")) for where in ("memory", "disk"))
    assert away[0] > 50_000 and asked
    assert one.name == two.name, "where weights are is no part of a run's id"
    assert losses(two) == pytest.approx(losses(one), abs=1e-6)
    if case != "frozen":
        before, after = (load_file(run / "adapter" / "adapter.safetensors") for run in (one, two))
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=1e-6)
        assert (one / "adapter/lora_config.json").read_text() == (two / "adapter/lora_config.json").read_text()
    found = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
    values = [{(row["split"], row["metric"]): row["value"] for row in each["metrics"]} for each in found]
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert [each["machine"].get("offload") for each in found] == [None, "auto"]
    assert [each["total_params"] for each in found] == [found[0]["total_params"]] * 2
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}


def test_a_run_that_fits_is_computed_as_ever_and_a_step_that_does_not_is_refused(
    cli: Cli, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "free", lambda device: 1000)
    asked = [*tiny, "runtime.offload=auto", "runtime.checkpointing=true"]
    result = cli(*asked)
    assert result.code == 2
    (error,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "runtime.offload = auto: a step takes 0.0 GB without weights" in error
    monkeypatch.setattr(offload, "free", lambda device: 1e9)
    monkeypatch.setattr("accelerate.dispatch_model", lambda *_: pytest.fail("it fits"))
    assert cli(*asked).code == 0


def test_modules_with_something_trained_are_on_the_device_and_wrappers_nowhere() -> None:
    model = adapted("bert", {"name": "lora+bitfit", "r": 2, "alpha": 4, "weight_types": "q"})
    found = offload._places(model, {"bert": "disk", "classifier": "cpu"}, "cpu")
    layer = "bert.encoder.layer.0.attention.self"
    assert found["bert.embeddings.word_embeddings"] == "disk"
    assert found[f"{layer}.query.lora_A"] == found[f"{layer}.key"] == found["classifier"] == "cpu"
    assert f"{layer}.query" not in found and layer not in found


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runtime.offload=yes"], "runtime.offload = 'yes': choose from auto"),
        (["runtime.parallel=fsdp"], "is for one process, and runtime.parallel = fsdp for several: choose one"),
        (["model.quantization=nf4"], "cannot move layers of nf4"),
        (["method=full"], "method full trains all of it"),
        (["method=galore", "method.r=4", "method.refresh=2"], "method full with GaLore trains all of it"),
        (["method=badam", "method.switch=1"], "method full with BAdam trains all of it"),
        (["method=pissa"], "method.init = pissa makes of W0"),
        (["method=lora_ga"], "method.init = lora_ga makes of W0"),
        (["method=dora"], "cannot be with DoRA"),
        (["runtime.checkpointing=false"], "needs runtime.checkpointing=true"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(cli: Cli, tiny: list[str], overrides: list[str], message: str) -> None:
    result = cli(*tiny, "runtime.offload=auto", "runtime.checkpointing=true", *overrides)
    assert result.code == 2
    (error,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert message in error

"""The runner as a user types it, on a tiny random model and a tiny file; real weights are in tests/test_make.py."""

import csv
import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from analysis.study import run_study
from experiments import compute
from experiments.models import Runtime, choose_runtime, has_native_bf16
from lora import io

Cli = Callable[..., Any]  # conftest.cli
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def only_run(folder: Path) -> Path:
    runs = [path for path in (folder / "results" / "runs").iterdir() if not path.name.startswith(".")]
    assert len(runs) == 1
    return runs[0]


def test_a_run_learns_and_its_folder_is_complete(cli: Cli, tiny: list[str], tiny_model: Path, tmp_path: Path) -> None:
    result = cli(*tiny, "preset.epochs=20", "method.r=4", "method.weight_types=q+v")
    assert result.code == 0, result.err
    folder = only_run(tmp_path)
    data, few, line = result.out.splitlines()
    assert data == "reviews: rows 96 train, 12 validation, 12 test; 2 classes"
    assert few.startswith("warning: reviews has 12 test rows: a score has a standard error of up to 14.4 points")
    assert line.startswith(folder.name)
    metrics = json.loads((folder / "metrics.json").read_text())
    scores = {score["split"]: score["value"] for score in metrics["metrics"] if score["metric"] == "accuracy"}
    assert scores == {"validation": 1.0, "test": 1.0}
    lora = 2 * 2 * (32 + 32) * 4
    assert metrics["trainable_params"] == lora + 32 * 2 + 2
    assert metrics["peak_memory_bytes"] > 2**20
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows if row["split"] == "train"]
    assert losses[-1] < 0.1 < losses[0]
    assert sum(row["split"] == "validation" for row in rows) == 20

    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    head = model.classifier.weight.clone()
    io.load(model, folder / "adapter")
    assert not torch.equal(model.classifier.weight, head)
    adapter = io.read(folder / "adapter")
    assert [target.weight_type for target in adapter.targets] == ["q", "v"] * 2
    assert all(adapter.matrices(target)[1].any() for target in adapter.targets)


def test_the_same_config_is_computed_once_and_a_seed_repeats(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    first = cli(*tiny)
    again = cli(*tiny, "runtime.eval_batch_size=7")
    (said,) = (line for line in first.out.splitlines() if line.startswith(only_run(tmp_path).name))
    assert again.out == f"{said} (stored)\n"  # what is said once in a process may come before or after it
    adapter = (only_run(tmp_path) / "adapter" / "adapter.safetensors").read_bytes()
    other = cli(*tiny, f"results_dir={tmp_path}/other")
    assert other.code == 0
    run = next((tmp_path / "other" / "runs").glob("[!.]*"))
    assert (run / "adapter" / "adapter.safetensors").read_bytes() == adapter


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.r=0"], "method.r = 0: it must be a whole number of at least 1"),
        (["method.r=-2"], "method.r = -2"),
        (["method.r=33"], "it must be between 1 and min(d, k) = 32"),
        (["method.weight_types=q+gate"], "a bert model has no weight type 'gate': it has q, k, v, o, up, down"),
        (["method.weight_types=q+z"], "unknown weight type 'z'"),
        (["method.modules=['*.nothing']"], "'*.nothing' matches no module"),
        (["method.layers=[7]"], "layers [7] do not exist"),
        (["method.name=lorra"], "unknown method 'lorra'"),
        (["+method.rank=4"], "has no field 'rank'"),
        (["task=nope"], "unknown task nope; there are: bbc_headlines, "),
        (["task.path=nope.csv"], "there is no file or folder nope.csv"),
        (["task.text_column=body"], "body"),
        (["task.metric=blue"], "unknown metric 'blue'"),
        (["model.path=./no/such/folder"], "model folder ./no/such/folder does not exist"),
        (["model.path=no-such/hub-id"], "there is no model no-such/hub-id here"),
        (["training.lrr=3"], "unknown setting training.lrr; did you mean training.lr"),
        (["method=lora", "method.rr=3"], "unknown setting method.rr; did you mean method.r?"),
        (["method=lroa"], "unknown method lroa; did you mean lora?"),
        (["study=rank_ablatoin"], "unknown study rank_ablatoin; did you mean rank_ablation?"),
        (["preset=qick"], "unknown preset qick; did you mean quick?"),
        (["runtime.precision=fp64"], "choose from auto, bf16, fp32"),
        (["runtime.device=tpu"], "runtime.device = 'tpu': choose from auto, cpu, cuda, mps"),
        (["study=rank_ablation", "training.lr=1e30"], "the loss is"),
        (["training.lr=fast"], "training.lr = 'fast': it must be a positive number, or tuned"),
        (["training.lr=0"], "training.lr = 0"),
        (["training.head_lr=-1"], "training.head_lr = -1"),
        (["training.epochs=0"], "training.epochs = 0"),
        (["training.batch_size=1.5"], "training.batch_size = 1.5"),
        (["training.warmup_ratio=2"], "training.warmup_ratio = 2"),
        (["training.schedule=nope"], "training.schedule = 'nope': choose from linear"),
        (["seed=one"], "seed = 'one'"),
        (["training.lr=tuned", "tuning.lr_grid=[]"], "tuning.lr_grid = []"),
        (["training.lr=tuned", "tuning.lr_grid=[0,1e-3]"], "tuning.lr_grid = [0, 0.001]"),
        (["method=prefix_embed", "method.l_p=long"], "method.l_p = 'long'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    cli: Cli, tiny: list[str], overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = cli(*tiny, *overrides)
    assert result.code == 2
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert errors
    assert message in errors[0]
    assert "Traceback" not in result.err + result.out


def test_a_loss_that_is_not_finite_stops_and_keeps_the_history(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    result = cli(*tiny, "training.lr=1e38")
    assert result.code == 2
    assert "the loss is" in result.err
    assert "of 6: training.lr = 1e+38 is too high" in result.err
    folder = only_run(tmp_path)
    assert folder.name.endswith(".failed")
    with (folder / "history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert f"at step {last['step']}" in result.err


def test_the_other_runs_of_a_study_are_done(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    result = cli(*tiny, "study=rank_ablation", "method.r=1,99,2", "task=local")
    assert result.code == 2
    lines = (tmp_path / "results" / "smoke" / "rank_ablation@tiny_reviews" / "sweep.jsonl").read_text().splitlines()
    assert ["error" in json.loads(line) for line in lines] == [False, True, False]


def test_tuning_takes_the_best_rate_on_validation_and_records_it(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    study = [*tiny, "task=local", "study=rank_ablation", "training.lr=tuned", "preset.epochs=8", "method.r=1,2"]
    result = cli(*study, "tuning.lr_grid=[1e-5, 1e-2, 1e38]", "tuning.at={method.r: 1, seed: 3}")
    assert result.code == 0, result.err
    assert "lr=1e+38 is out: the loss is" in result.out
    lines = (tmp_path / "results" / "smoke" / "rank_ablation@tiny_reviews" / "sweep.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["role"] for entry in entries] == ["tuning", "tuning", "tuning", "study", "study"], "each run once"
    assert ["error" in entry for entry in entries] == [False, False, True, False, False]
    runs = {path.parent.name: path.read_text() for path in (tmp_path / "results" / "runs").glob("[!.]*/config.yaml")}
    assert len([name for name in runs if not name.endswith(".failed")]) == 4
    chosen = [runs[entry["run_id"]] for entry in entries if entry["role"] == "study"]
    assert all("lr: 0.01" in text and "seed: 0" in text for text in chosen)


def test_a_stored_run_needs_no_torch(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny).code == 0
    code = "import sys; from experiments import run; run.command(); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, f"results_dir={tmp_path}/results", *tiny]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(stored)" in done.stdout


def test_precision_is_what_is_fast_here() -> None:
    cpu = torch.device("cpu")
    expected = torch.bfloat16 if has_native_bf16(cpu) else torch.float32
    assert choose_runtime("cpu") == Runtime(cpu, expected)
    assert choose_runtime("cpu", "bf16").dtype == torch.bfloat16


def test_bf16_trains_with_trained_parameters_in_fp32(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    result = cli(*tiny, "preset.epochs=20", "runtime.precision=bf16")
    assert result.code == 0, result.err
    folder = only_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["precision"] == "bfloat16"
    scores = {score["split"]: score["value"] for score in metrics["metrics"] if score["metric"] == "accuracy"}
    assert scores["test"] == 1.0
    tensors = load_file(folder / "adapter" / "adapter.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("family", "sizes", "head"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "score.weight"),
        ("llama", SIZES, "score.weight"),
        ("roberta", SIZES, "classifier.dense.weight"),
    ],
)
def test_other_architectures_learn_and_load(
    cli: Cli, tiny: list[str], tiny_model: Path, tmp_path: Path, family: str, sizes: dict[str, int], head: str
) -> None:
    folder = tmp_path / family
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=30522, pad_token_id=0, **sizes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    names = ["input_ids", "attention_mask"]
    AutoTokenizer.from_pretrained(tiny_model, model_input_names=names).save_pretrained(folder)
    result = cli(*tiny, f"model.path={folder}", "preset.epochs=20")
    assert result.code == 0, result.err
    assert "test accuracy 1.0000" in result.out
    run = only_run(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    io.load(model, run / "adapter")
    assert head in io.read(run / "adapter").others


def test_a_run_that_diverged_is_not_tried_again(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    first = cli(*tiny, "training.lr=1e30")
    history = next((tmp_path / "results" / "runs").glob("*.failed")) / "history.csv"
    written = history.stat().st_mtime_ns
    again = cli(*tiny, "training.lr=1e30")
    assert (again.code, again.err) == (2, first.err)
    assert history.stat().st_mtime_ns == written


def test_a_rejected_command_leaves_the_studys_list_of_runs(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny, "study=scaling").code == 0
    listed = tmp_path / "results" / "smoke" / "scaling@tiny_reviews" / "sweep.jsonl"
    before = listed.read_text()
    rejected = cli(*tiny, "study=scaling", "method.r=4")
    assert rejected.code == 2
    assert "hydra.sweeper.points=" in rejected.err
    assert before and listed.read_text() == before


def test_a_damaged_model_is_one_line(cli: Cli, tiny: list[str], tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = cli(*tiny, f"model.path={folder}")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert f"error: model {folder} cannot be loaded" in result.err


def test_regression(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    rows = [f"{n}\ta\tb\tc\t{n}\td\te\tone {n}\ttwo {n}\t{n % 6}.0" for n in range(60)]
    data = tmp_path / "stsb"
    data.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (data / name).write_text("\n".join([header, *rows]) + "\n")
    result = cli(*[o for o in tiny if not o.startswith("task")], "task=glue/stsb", f"task.data_dir={data}")
    assert result.code == 0, result.err
    metrics = json.loads((only_run(tmp_path) / "metrics.json").read_text())
    assert {score["metric"] for score in metrics["metrics"]} == {"loss", "pearson", "spearman"}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("out of memory\nin two lines"), MemoryError()],
    ids=["full disk", "out of memory", "no memory"],
)
def test_every_run_of_a_grid_is_listed_whatever_ended_it(
    error: Exception, cli: Cli, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compute.compute

    def breaks(config: Any, *where: Any) -> None:
        if config.method["r"] == 2:
            raise error
        whole(config, *where)

    monkeypatch.setattr(compute, "compute", breaks)
    result = cli(*tiny, "study=rank_ablation", "method.r=1,2,4")
    assert result.code == 2 and "Traceback" not in result.err
    (line,) = result.err.splitlines()
    assert line.startswith(f"error: [2/3] method.r=2: {type(error).__name__}")
    folder = tmp_path / "results" / "smoke" / "rank_ablation@tiny_reviews"
    entries = [json.loads(line) for line in (folder / "sweep.jsonl").read_text().splitlines()]
    assert ["error" in entry for entry in entries] == [False, True, False]
    assert type(error).__name__ in entries[1]["error"]
    assert "Traceback" in (tmp_path / "results" / "runs" / f"{entries[1]['run_id']}.failed" / "error.txt").read_text()
    run_study(folder, tmp_path / "results" / "runs")
    assert f"failed and is not in the results: {type(error).__name__}" in (folder / "table.md").read_text()
    monkeypatch.setattr(compute, "compute", whole)
    again = cli(*tiny, "study=rank_ablation", "method.r=1,2,4")
    assert again.code == 0, "what was not the fault of the run is tried anew"
    assert not list((tmp_path / "results" / "runs").glob("*.failed"))


def test_one_cause_is_one_line_and_nothing_is_begun(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    result = cli(*tiny, "study=rank_ablation", "method.r=1,2,4", "method.weight_types=q+gate")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith("error: a bert model has no weight type 'gate'")
    folder = tmp_path / "results" / "smoke" / "rank_ablation@tiny_reviews"
    assert not (folder / "sweep.jsonl").exists(), "the study has the list that it had"


def test_results_of_other_models_and_data_stand_beside(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    study = ["study=rank_ablation", "method.r=1"]
    assert cli(*tiny, *study).code == 0
    copy = tmp_path / "elsewhere" / "reviews.csv"
    copy.parent.mkdir()
    copy.write_text(Path(tiny[3].partition("=")[2]).read_text().replace("film", "play"))
    assert cli(*tiny, *study, f"task.path={copy}").code == 0
    assert cli(*tiny, *study).code == 0
    folders = sorted(path.name for path in (tmp_path / "results" / "smoke").iterdir())
    assert len(folders) == 2 and folders[0] == "rank_ablation@tiny_reviews"
    assert folders[1].startswith("rank_ablation@tiny_reviews-")
    lists = [tmp_path / "results" / "smoke" / name / "sweep.jsonl" for name in folders]
    runs = [json.loads(path.read_text())["run_id"] for path in lists]
    assert len(set(runs)) == 2


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
@pytest.mark.parametrize("grid", [[], ["study=rank_ablation"]], ids=["one run", "a grid"])
def test_a_results_folder_that_cannot_be_is_one_line(
    place: str, grid: list[str], cli: Cli, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = cli(*tiny, *grid, f"results_dir={tmp_path / place}")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith("error: ") and "choose another with results_dir=" in result.err


def test_a_job_that_cannot_begin_is_one_of_the_runs(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny, "study=rank_ablation", "method.r=1").code == 0
    result = cli(*tiny, "study=rank_ablation", "method.r=2,0", "seed=0")
    assert result.code == 2
    assert result.err.startswith("error: [1/2] method.r=0: ")
    assert "1 at once, 1 thread each, about " in result.out
    assert "[2/2] " in result.out
    listed = (tmp_path / "results" / "smoke" / "rank_ablation@tiny_reviews" / "sweep.jsonl").read_text().splitlines()
    assert sorted("error" in json.loads(line) for line in listed) == [False, True]

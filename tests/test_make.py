"""The commands of the README as a user types them: real weights, real data, the smallest preset.

The first command starts as a user's does, and so does a sweep that is killed. The others are made by the same make, or
started, with a python whose imports are done.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import warm
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from experiments import assets

ROOT = Path(__file__).parents[1]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # These tests may run inside make, whose variables would make the inner make print its folders.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
    }
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def finished(results: Path) -> set[str]:
    return {path.parent.name for path in results.glob("runs/[!.]*/metrics.json")}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("make") / "results"


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """A python whose imports are done."""
    with warm.python() as program:
        yield program


@pytest.fixture(scope="module")
def python(program: Path) -> str:
    """What make is told to start commands with."""
    return f"PYTHON={program}"


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of the user's own, 64 wide."""
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    AutoTokenizer.from_pretrained(assets.fetch("minilm")).save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertForSequenceClassification(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the user's own, for commands that do with it what others here do with real weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(assets.fetch("smollm2"))
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="make uses the environment that make setup creates")
def test_the_two_commands(results: Path, python: str) -> None:
    ablation = run("make", "ablate-rank", "PRESET=smoke", f"RESULTS={results}")
    assert ablation.returncode == 0, ablation.stderr
    study = results / "smoke" / "rank_ablation"
    assert any(line.startswith(f"{study}: runs.csv, ") for line in ablation.stdout.splitlines())
    assert any("one seed tells no rank from another" in line for line in ablation.stdout.splitlines()[-2:])
    assert (study / "rank_ablation.png").stat().st_size > 10_000
    runs = pd.read_csv(study / "runs.csv")
    assert sorted(runs["r"].unique()) == [1, 2]
    assert runs["value"].notna().all()
    assert set(runs["metric"]) == {"accuracy", "loss"}
    first = finished(results)

    plots = run("make", python, "subspace-plots", "PRESET=smoke", f"RESULTS={results}")
    assert plots.returncode == 0, plots.stderr
    study = results / "smoke" / "subspace"
    for figure in ("fig3", "fig4", "fig6", "fig7"):
        assert (study / f"{figure}.png").stat().st_size > 10_000
        for version in ("_delta_w", "_B", "_delta_w_left"):
            assert (study / f"{figure}{version}.png").stat().st_size > 10_000
    phi = pd.read_csv(study / "phi_r2_r8.csv").filter(regex=r"^j\d+$").stack()
    assert len(phi) > 8 and phi.between(0, 1.0001).all()
    used = {json.loads(line)["run_id"] for line in (study / "sweep.jsonl").read_text().splitlines()}
    assert used & first, "the subspace study reuses a run of the ablation"

    before = {path: path.stat().st_mtime for path in results.rglob("*.*") if path.name != "multirun.yaml"}
    again = run("make", python, "ablate-rank", "PRESET=smoke", f"RESULTS={results}")
    assert again.stdout.count("(stored)") == 2
    after = {path: path.stat().st_mtime for path in before}
    assert {path.name for path in before if before[path] != after[path]} <= {"sweep.jsonl"}

    wrong = run("make", python, "ablate-rank", "PRESET=smoke", f"RESULTS={results}", "ARGS=method.rr=3")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    errors = [line for line in wrong.stderr.splitlines() if not line.startswith("make")]
    assert errors == ["error: unknown setting method.rr; did you mean method.r?"]
    assert not list(results.glob(".began*"))


# Those of encoders that would do nothing else with MiniLM; the two commands and qlora have its real weights.
ON_A_TINY_MODEL = (
    "compare-methods", "scaling", "alpha-study", "init-study", "rank-data", "weight-types", "memory-methods",
    "amplification", "w-vs-delta", "spectrum", "truncation",
)  # fmt: skip


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="make uses the environment that make setup creates")
@pytest.mark.parametrize(
    ("target", "study", "pictures"),
    [
        ("compare-methods", "compare_methods", ["compare_methods"]),
        ("scaling", "scaling", ["scaling"]),
        ("alpha-study", "alpha", ["alpha"]),
        ("init-study", "init", ["init"]),
        ("rank-data", "rank_data", ["rank_data"]),
        ("weight-types", "weight_types", ["weight_types"]),
        ("memory-methods", "memory_methods", ["memory", "ranks"]),
        ("memory", "memory", ["measured", "bytes_minilm", "published", "fits_minilm", "options"]),
        ("qlora", "qlora", ["qlora"]),
        ("amplification", "amplification", ["amplification", "projections"]),
        ("w-vs-delta", "w_vs_delta", ["fig8", "fig8_delta_w", "fig8_B", "fig8_delta_w_left", "curves"]),
        ("spectrum", "spectrum", ["spectra", "ranks", "intruders", "overlap"]),
        ("truncation", "truncation", ["truncation"]),
        ("forgetting", "forgetting", ["forgetting"]),
        ("latency", "latency", ["fig5_tiny", "lora"]),
        ("gradient-check", "gradients", ["gradients"]),
    ],
)
def test_every_other_study(
    target: str, study: str, pictures: list[str], tiny_encoder: Path, tiny_decoder: Path, results: Path, python: str
) -> None:
    own = {"forgetting": tiny_decoder} | dict.fromkeys(ON_A_TINY_MODEL, tiny_encoder)
    model = [f"MODEL={own[target]}"] if target in own else []
    made = run("make", python, target, "PRESET=smoke", f"RESULTS={results}", "JOBS=1", *model)
    assert made.returncode == 0, made.stderr
    folder = results / "smoke" / (f"{study}@tiny" if model else study)
    assert any(line.startswith(f"{folder}: ") for line in made.stdout.splitlines())
    assert len(pd.read_csv(folder / "table.csv")) >= 2
    assert (folder / "table.md").read_text().startswith("# ")
    for picture in pictures:
        assert (folder / f"{picture}.png").stat().st_size > 10_000


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="make uses the environment that make setup creates")
@pytest.mark.parametrize(
    ("target", "study", "data"),
    [
        ("table2", "table2", None),
        ("table3", "table3", "e2e"),
        ("table4", "table4", None),
        ("table13", "table13", "dart"),
        ("table14", "table14", "webnlg"),
        ("table15", "table15", None),
        ("low-data", "table16", None),
        ("few-shot", "table8", None),
        ("rank-generation", "rank_generation", "e2e"),
    ],
)
def test_every_table(
    target: str,
    study: str,
    data: str | None,
    corpora: Path,
    tiny_encoder: Path,
    tiny_decoder: Path,
    results: Path,
    python: str,
) -> None:
    arguments = [f"ARGS=task.data_dir={corpora / data}"] if data else []
    model = tiny_encoder if target == "table2" else tiny_decoder
    made = run("make", python, target, "PRESET=smoke", f"RESULTS={results}", "JOBS=1", f"MODEL={model}", *arguments)
    assert made.returncode == 0, made.stderr
    folder = results / "smoke" / f"{study}@tiny"
    assert any(line.startswith(f"{folder}: ") for line in made.stdout.splitlines())
    assert len(pd.read_csv(folder / "table.csv")) >= 1
    assert (folder / "table.md").read_text().startswith("# ")
    assert all(picture.stat().st_size > 10_000 for picture in folder.glob("*.png"))


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="make uses the environment that make setup creates")
def test_the_scoreboard_judges_the_studies_that_are_there(results: Path, python: str) -> None:
    (results / "smoke").mkdir(parents=True, exist_ok=True)
    made = run("make", python, "claims", "PRESET=smoke", f"RESULTS={results}")
    assert made.returncode == 0, made.stderr
    folder = results / "smoke"
    assert any(line.startswith(f"{folder}: ") for line in made.stdout.splitlines())
    judged = pd.read_csv(folder / "claims.csv")
    assert set(judged["study"].dropna()) <= {path.name for path in folder.iterdir()}
    assert (folder / "claims.md").read_text().count("<a id=") == judged["number"].max() >= 20


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="make uses the environment that make setup creates")
def test_a_table_of_the_users_own_prompts(tmp_path: Path, python: str) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"prompt": f"Add 1 to {n}:", "completion": f" {n + 1}"}) for n in range(40)]
    pairs.write_text("\n".join(lines) + "\n")
    results = tmp_path / "results"
    few = "ARGS=only.method=lora task.max_length=32 task.generation.max_new_tokens=8"
    made = run("make", python, "table3", f"TASK={pairs}", "PRESET=smoke", f"RESULTS={results}", "JOBS=1", few)
    assert made.returncode == 0, made.stderr
    runs = pd.read_csv(results / "smoke" / "table3@pairs" / "runs.csv")
    assert set(runs["task"]) == {"pairs"} and set(runs["model"]) == {"smollm2"}
    assert len(list(results.glob("runs/[!.]*/predictions.jsonl"))) == runs["run_id"].nunique() == 1


def test_a_sweep_that_is_killed_continues_where_it_was(tiny_encoder: Path, tmp_path: Path, program: Path) -> None:
    results = tmp_path / "results"
    command = ["-m", "experiments.run", "study=rank_ablation", "preset=smoke", "engine.jobs=1"]
    command += ["method.r=1,2,4,8,16,32,64", f"model.path={tiny_encoder}", f"results_dir={results}"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sweep = subprocess.Popen([sys.executable, *command], cwd=ROOT, **streams)  # the process that is killed
    while len(finished(results)) < 2 and sweep.poll() is None:  # pytest's own limit ends it if it hangs
        time.sleep(0.05)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    done = finished(results)
    assert 2 <= len(done) < 7, "killed in the middle"
    resumed = run(str(program), *command)
    assert resumed.returncode == 0, resumed.stderr
    stored = {line.split()[1] for line in resumed.stdout.splitlines() if line.endswith("(stored)")}
    assert stored == done
    assert len(finished(results)) == 7
    assert not list(results.glob("runs/.[0-9a-f]*")), "what the killed run had begun is gone"


def test_two_processes_share_a_store(tiny_encoder: Path, tmp_path: Path, program: Path) -> None:
    command = [str(program), "-m", "experiments.run", "preset=smoke", f"model.path={tiny_encoder}"]
    command.append(f"results_dir={tmp_path}/results")
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("(stored)" in output for output in outputs) == [False, True], outputs
    assert len(finished(tmp_path / "results")) == 1


def test_help_names_every_target() -> None:
    listed = run("make", "help").stdout
    for target in ("setup", "ablate-rank", "compare-methods", "table13", "low-data", "latency", "test", "bench"):
        assert f"make {target} " in listed


def test_a_short_real_training_run_learns(tmp_path: Path, program: Path) -> None:
    command = [str(program), "-m", "experiments.run", "task=bbc_news", "preset=smoke", "task.train_examples=320"]
    size = ["task.max_length=32", "task.test_examples=150", "training.lr=1e-2", f"results_dir={tmp_path}/results"]
    done = run(*command, *size)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(next((tmp_path / "results").glob("runs/[!.]*/metrics.json")).read_text())
    scores = {row["split"]: row["value"] for row in metrics["metrics"] if row["metric"] == "accuracy"}
    assert scores["test"] > 0.7, "five classes: chance is 0.2"
    assert metrics["trainable_params"] == 6 * 2 * (384 + 384) * 8 + 384 * 5 + 5

"""preset=paper: the paper's models and settings, every study's grid, and runs on tiny models of its architectures."""

import functools
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from grid import job_config
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from transformers import AutoTokenizer

from experiments import assets, tasks
from experiments.checks import check

Cli = Callable[..., Any]  # conftest.cli
CONF = Path(__file__).parents[2] / "experiments" / "conf"
STUDIES = sorted(path.stem for path in CONF.glob("study/[!_]*.yaml") if path.stem != "none")
GLUE = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb")
# The paper's Tables 9 and 10, a column a task of GLUE, in this order.
BASE = {
    "batch_size": (16, 16, 16, 32, 32, 16, 32, 16),
    "epochs": (30, 60, 30, 80, 25, 25, 80, 40),
    "lr": (5e-4, 5e-4, 4e-4, 4e-4, 4e-4, 5e-4, 5e-4, 4e-4),
    "length": (512,) * 8,
}
LARGE = {
    "batch_size": (4, 4, 4, 4, 4, 4, 8, 8),
    "epochs": (10, 10, 20, 20, 10, 20, 20, 30),
    "lr": (3e-4, 4e-4, 3e-4, 2e-4, 2e-4, 3e-4, 4e-4, 2e-4),
    "length": (128, 128, 512, 128, 512, 512, 512, 512),
}
DEBERTA = {
    "batch_size": (8, 8, 32, 4, 6, 8, 4, 4),
    "epochs": (5, 16, 30, 10, 8, 11, 11, 10),
    "lr": (1e-4, 6e-5, 2e-4, 1e-4, 1e-4, 1e-4, 2e-4, 2e-4),
    "length": (256, 128, 128, 64, 512, 320, 320, 128),
}
ENCODERS = {
    "roberta_base": ("FacebookAI/roberta-base", BASE, 8, 0.06, (0.0,) * 8),
    "roberta_large": ("FacebookAI/roberta-large", LARGE, 16, 0.06, (0.0,) * 8),
    "deberta_v2_xxlarge": (
        "microsoft/deberta-v2-xxlarge", DEBERTA, 8, 0.1, (0.0, 0.01, 0.01, 0.0, 0.01, 0.01, 0.01, 0.1),
    ),
}  # fmt: skip
LR_12 = {"full": 5e-6, "prefix_embed": 5e-4, "prefix_layer": 1e-4, "bitfit": 1.6e-3, "adapter_h": 1e-4, "lora": 2e-4}


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        yield


def study(name: str) -> DictConfig:
    return compose("config", [f"study={name}", "preset=paper"], return_hydra_config=True)


@functools.cache
def jobs_of(name: str) -> list[tuple[str, ...]]:
    """The overrides of each run of a study at preset=paper, as Hydra's sweeper makes them."""
    settings = OmegaConf.to_container(study(name).hydra.sweeper, resolve=True)
    module, _, kind = settings.pop("_target_").rpartition(".")
    sweeper = getattr(importlib.import_module(module), kind)(**settings)
    params = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in settings["params"].items()])
    return [tuple(job) for batch in sweeper.split_arguments(params, None) for job in batch]


@functools.cache  # several tests read the same
def resolved(name: str, job: tuple[str, ...]) -> dict[str, Any]:
    """The config of a run, as the runner resolves it."""
    config = job_config(f"study={name}", "preset=paper", *job)
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def covering(jobs: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Jobs in which every point is there, and every model, task and other value swept; of the seeds the first."""
    swept = ("seed=", "model=", "task=")
    seen: set[Any] = set()
    chosen = []
    for job in jobs:
        point = tuple(part for part in job if not part.startswith(swept))
        parts = {point, *(part for part in job if part.startswith(swept[1:]))}
        if not parts <= seen:
            seen |= parts
            chosen.append(job)
    return chosen


@pytest.mark.parametrize("name", STUDIES)
def test_the_jobs_of_every_study_are_complete(name: str) -> None:
    jobs = jobs_of(name)
    assert len(jobs) == len(set(jobs)) > 1
    families = {path.stem for path in (CONF.parent / "tasks").glob("[!_]*.py")}
    for job in covering(jobs):
        config = resolved(name, job)
        check(config)
        assert config["model"]["path"].partition("/")[0] in ("FacebookAI", "microsoft", "openai-community")
        task = config["task"]
        assert task["family"] in families
        # All of the data, from the hub: unless a point says how many.
        sized = [part for part in job if part.startswith("task.train_examples=")]
        assert (task["train_examples"] is None) == (not sized or sized[-1].endswith("=null"))
        assert task["validation_examples"] is None and task["test_examples"] is None
        assert task["data_dir"] is None
        said = {field: value for field, value in task.items() if field not in tasks.OPTIONAL or value is not None}
        assert tasks.resolve(task) == said


@pytest.mark.parametrize("model", ENCODERS)
def test_the_encoders_have_the_settings_of_tables_9_and_10(model: str) -> None:
    path, table, alpha, warmup, decay = ENCODERS[model]
    config = compose("config", ["study=table2", "preset=paper", f"model={model}", "task=glue/mnli"])
    assert (config.model.path, config.model.dropout) == (path, None)
    assert config.method.name == "lora" and config.method.r == 8 and config.method.weight_types == "q+v"
    assert config.training.schedule == "linear" and config.training.head_lr is None
    for column, task in enumerate(GLUE):
        config.task.name = task  # what the settings are looked up by
        found = {key: config.training[key] for key in ("batch_size", "epochs", "lr")} | {
            "length": config.task.max_length
        }
        assert found == {key: values[column] for key, values in table.items()}, task
        assert config.method.alpha == alpha
        assert config.training.warmup_ratio == warmup and config.training.warmup_steps is None
        assert config.training.weight_decay == decay[column]


def test_table_2_is_three_models_on_eight_tasks_with_five_seeds() -> None:
    jobs = set(jobs_of("table2"))
    assert len(jobs) == 3 * 8 * 5
    assert {job[1:] for job in jobs} == {(f"model={m}", f"task=glue/{t}") for m in ENCODERS for t in GLUE}
    assert {CONF / "task" / f"glue/{task}.yaml" for task in GLUE} <= set(CONF.glob("task/glue/*.yaml"))


def test_other_models_and_tasks_are_trained_as_roberta_base_on_mnli() -> None:
    config = compose("config", ["preset=paper", "model=hub", "model.path=org/mine", "task=glue/wnli"])
    assert (config.training.epochs, config.training.batch_size, config.training.lr) == (30, 16, 5e-4)
    assert (config.task.max_length, config.method.alpha) == (512, 8)


@pytest.mark.parametrize(
    ("name", "task", "penalty"), [("table3", "e2e", 0.9), ("table13", "dart", 0.8), ("table14", "webnlg", 0.8)]
)
def test_data_to_text_has_the_settings_of_table_11(name: str, task: str, penalty: float) -> None:
    jobs = jobs_of(name)
    assert {part for job in jobs for part in job if part.startswith(("model=", "task=", "seed="))} == {
        "model=gpt2_medium", "model=gpt2_large", f"task={task}", "seed=0", "seed=1", "seed=2",
    }  # fmt: skip
    lora = resolved(name, next(job for job in jobs if "method=lora" in job))
    dart = task == "dart"
    training = lora["training"]
    assert (training["lr"], training["epochs"], training["batch_size"], training["warmup_steps"]) == (2e-4, 5, 8, 500)
    assert training["schedule"] == "linear"
    assert training["weight_decay"] == (0 if dart else 0.01)
    assert (training["label_smoothing"] or 0) == (0 if dart else 0.1)
    method = lora["method"]
    assert (method["r"], method["alpha"], method["weight_types"]) == (4, 32, "q+v")
    assert method["dropout"] == (0 if dart else 0.1)
    search = lora["task"]["generation"]
    assert (search["beams"], search["length_penalty"], search["no_repeat_ngram"]) == (10, penalty, 4)
    assert search["max_new_tokens"] >= 64
    # What is compared with LoRA has learning rates of its own: the paper does not list them.
    assert {resolved(name, job)["training"]["lr"] for job in covering(jobs) if "method=lora" not in job} == {"tuned"}


def test_the_adapters_of_table_3_have_the_papers_numbers_of_parameters() -> None:
    body = {"gpt2_medium": (24, 1024), "gpt2_large": (36, 1280)}
    paper = {"gpt2_medium": {0.37, 11.09}, "gpt2_large": {0.88, 23.0}}
    found: dict[str, set[float]] = {model: set() for model in body}
    for job in covering(jobs_of("table3")):
        if "method=adapter_l" in job:
            for model, (layers, d) in body.items():
                m = resolved("table3", (*job, f"model={model}"))["method"]["bottleneck"]
                found[model].add(round(layers * ((2 * d * m + m + d) + 2 * d) / 1e6, 2))
    assert found == paper


def test_table_18_is_every_rank_with_the_settings_of_table_11() -> None:
    jobs = jobs_of("rank_generation")
    assert len(jobs) == 11 * 3
    configs = [resolved("rank_generation", job) for job in covering(jobs)]
    assert sorted(config["method"]["r"] for config in configs) == [2**power for power in range(11)]
    for config in configs:
        assert config["model"]["name"] == "gpt2-medium" and config["task"]["name"] == "e2e"
        assert (config["method"]["alpha"], config["method"]["dropout"], config["training"]["lr"]) == (32, 0.1, 2e-4)
        assert config["task"]["generation"]["beams"] == 10


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("table4", {"wikisql", "text_mnli", "samsum"}),
        ("table8", {"text_mnli", "text_rte"}),
        ("table15", {"wikisql", "text_mnli"}),
    ],
)
def test_language_models_have_the_settings_of_table_12(name: str, names: set[str]) -> None:
    found = set()
    for job in covering(jobs_of(name)):
        config = resolved(name, job)
        training, method = config["training"], config["method"]["name"]
        found.add(config["task"]["name"])
        assert config["model"]["path"] == "openai-community/gpt2-large"
        if method != "frozen":
            assert training["lr"] == LR_12["lora" if method.startswith("lora") else method]
            assert (training["weight_decay"], training["schedule"]) == (0.1, "linear")
        if config["task"]["train_examples"] is None:
            assert (training["batch_size"], training["epochs"]) == (128, 2)
        assert training["accumulate"] <= training["batch_size"]
    assert found == names


def test_table_15_has_a_row_for_each_of_the_papers() -> None:
    lines = (CONF.parents[1] / "analysis" / "paper" / "table15_tradeoff.csv").read_text().splitlines()
    points = {tuple(part for part in job if part.startswith("method")) for job in jobs_of("table15")}
    assert len(points) == len(lines) - 1 == 30


def test_few_examples_are_trained_as_in_table_17() -> None:
    sizes = {100: (20, 40), 1000: (20, 40), 10000: (100, 4), None: (128, 2)}
    rates = {"lora": {2e-4}, "full": {5e-6}, "prefix_embed": {2e-4, 4e-4, 5e-4}, "prefix_layer": {5e-5, 1e-4}}
    found: dict[str, set[float]] = {name: set() for name in rates}
    seen = set()
    for job in covering(jobs_of("table16")):
        config = resolved("table16", job)
        training, size, method = config["training"], config["task"]["train_examples"], config["method"]
        assert (training["batch_size"], training["epochs"]) == sizes[size]
        found[method["name"]].add(training["lr"])
        seen.add((method["name"], size))
        if method["name"] == "prefix_embed":
            assert (method["l_p"], method["l_i"]) == ({100: 16, 1000: 32, 10000: 64, None: 256}[size], 8)
    assert found == rates
    assert len(seen) == 4 * 4


SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the name of a config in conf/model: a random model of its architecture, 2 layers of 32, with a tokenizer."""
    words, pieces = (AutoTokenizer.from_pretrained(assets.fetch(name)) for name in ("minilm", "smollm2"))
    encoder = {"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "pad_token_id": 0, **SMALL}
    # As in the xxlarge model: relative positions in buckets, and a convolution beside the first layer.
    deberta = {
        "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3, "conv_act": "gelu", "position_biased_input": False,
        "type_vocab_size": 0,
    }  # fmt: skip
    end = pieces.eos_token_id
    configs = {
        # The tokenizer is BERT's, which gives the second sentence tokens of another type.
        "roberta": transformers.RobertaConfig(max_position_embeddings=514, type_vocab_size=2, **encoder),
        "deberta": transformers.DebertaV2Config(**deberta, **encoder),
        "gpt2": transformers.GPT2Config(
            vocab_size=len(pieces), n_embd=32, n_layer=2, n_head=4, bos_token_id=end, eos_token_id=end
        ),
    }
    root = tmp_path_factory.mktemp("architectures")
    torch.manual_seed(0)
    for name, config in configs.items():
        kind = transformers.AutoModelForCausalLM if name == "gpt2" else transformers.AutoModelForSequenceClassification
        kind.from_config(config).save_pretrained(root / name)
        (pieces if name == "gpt2" else words).save_pretrained(root / name)
    return {path.stem: root / path.stem.partition("_")[0] for path in CONF.glob("model/*.yaml") if "_" in path.stem}


def first_jobs() -> list[tuple[str, tuple[str, ...]]]:
    """A study's name and the first words that choose a job of it: the first of each model and task."""
    return [(name, ()) for name in STUDIES] + [
        ("table2", ("model=deberta_v2_xxlarge", "task=glue/rte")),
        ("table2", ("model=roberta_large", "task=glue/rte")),
        ("table3", ("model=gpt2_large",)),
        ("table4", ("task=samsum",)),
        ("table4", ("task=text/mnli", "method=prefix_embed")),
        ("table8", ("method=lora", "task=text/rte")),
        ("table15", ("method=lora+prefix_layer",)),
    ]


@pytest.mark.parametrize(("name", "chosen"), first_jobs(), ids=lambda value: str(value))
def test_a_job_runs_on_a_tiny_model_of_its_architecture(
    name: str, chosen: tuple[str, ...], models: dict[str, Path], corpora: Path, cli: Cli, tmp_path: Path
) -> None:
    job = next(job for job in jobs_of(name) if set(chosen) <= set(job))
    config = resolved(name, job)
    models_of = [part.removeprefix("model=") for part in job if part.startswith("model=")]
    folder = models[models_of[0] if models_of else "roberta_base"]
    data = corpora / config["task"]["name"].removeprefix("text_")
    small = [f"model.path={folder}", f"task.data_dir={data}", "task.train_examples=16", "training.epochs=1"]
    small += ["task.validation_examples=4", "task.test_examples=4", "runtime.device=cpu", "runtime.threads=1"]
    generation = config["task"].get("generation", {})
    if generation.get("beams", 1) > 1:
        small += ["task.generation.beams=2"]
    if generation:
        small += ["task.generation.max_new_tokens=8"]
    if config["training"]["lr"] == "tuned":
        small += ["training.lr=1e-3"]
    if config["method"].get("l_p", 0) > 64:
        small += ["method.l_p=16"]
    if config["method"].get("budget") is not None:
        small += ["method.budget=q@2"]  # the study's is too large for a tiny model
    result = cli(f"study={name}", "preset=paper", *job, *small, "hydra.mode=RUN")
    assert result.code == 0, result.err
    (run,) = (path for path in (tmp_path / "results" / "runs").iterdir() if not path.name.startswith("."))
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored["model"]["name"] == config["model"]["name"]
    assert stored["method"]["name"] == config["method"]["name"]
    assert stored["training"]["batch_size"] == config["training"]["batch_size"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["main_metric"] == config["task"]["metric"]
    assert (run / "predictions.jsonl").is_file() == bool(generation)
    (entry,) = (tmp_path / "results" / "paper" / name / "sweep.jsonl").read_text().splitlines()
    listed = json.loads(entry)
    assert (listed["run_id"], listed["role"]) == (run.name, "study") and "error" not in listed

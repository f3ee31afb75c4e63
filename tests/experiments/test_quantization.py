"""model.quantization: which layers, how many bytes, runs with it as a user types them, and what it alone does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up_runs
import pandas as pd
import pytest
import torch
from command import Cli
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from made_up_runs import composed
from networks import BATCH, KINDS, METHODS, network
from quantized_bytes import stored_bytes
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
)

from experiments import assets, methods, quantization
from experiments.config import ModelSettings
from experiments.measure import forgetting, held_out, quantized_base
from experiments.models import head_modules, load_language_model
from experiments.problems.base import Problem
from experiments.store import Store
from lora import io, quantized
from lora.config import QUANTIZATIONS, InputError
from lora.layer import shape
from lora.model import lora_layers, merge, trainable_parameters, unmerge

CPU = torch.device("cpu")
WIDE = {"hidden_size": 64, "intermediate_size": 128}
LAYERS = {  # of each layer of the tiny networks
    "bert": 6, "roberta": 6, "deberta-v2": 8, "gpt2": 4, "llama": 7,
}  # fmt: skip
SMALL = ("task.train_examples=16", "task.validation_examples=8", "task.test_examples=4")


def wide(kind: str, task: str = "ForSequenceClassification") -> Any:
    """A tiny network whose widths are multiples of 64, as nf4 and int2 need them."""
    sizes = {"gpt2": {"n_embd": 64}, "llama": {**WIDE, "num_key_value_heads": 2}}
    return network(kind, task, **sizes.get(kind, WIDE))


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_that_are_quantised(kind: str) -> None:
    """All linear ones of the body's layers, whether there is a head or not, and without any weight in memory."""
    model = wide(kind)
    names = quantization.quantized_modules(model)
    prefix = f"{model.base_model_prefix}."
    assert len(names) == 3 * LAYERS[kind] and all(name.startswith(prefix) for name in names)
    assert not any(part in name for name in names for part in ("embed", "norm", "pooler", "head", "classifier"))
    with torch.device("meta"):
        body = AutoModel.from_config(model.config)
    assert quantization.quantized_modules(body) == [name.removeprefix(prefix) for name in names]
    before, heads = quantization.size(model), head_modules(model)
    quantization.quantize(model, "nf4", CPU)
    assert [name for name, module in model.named_modules() if quantized.is_quantized(module)] == names
    assert heads and not any(name.startswith(tuple(heads)) for name in names)
    shapes = [shape(model.get_submodule(name)) for name in names]
    assert quantization.layers_size(model).bytes == sum(stored_bytes("nf4", d, k) for d, k in shapes)
    after = quantization.size(model)
    assert after.numbers == before.numbers and before.bytes == 4 * before.numbers
    assert before.bytes - after.bytes == sum(4 * d * k - stored_bytes("nf4", d, k) for d, k in shapes)


def test_the_output_layer_stays_as_it_is() -> None:
    model = wide("llama", "ForCausalLM")
    head = model.lm_head.weight
    quantization.quantize(model, "int2", CPU)
    assert model.lm_head.weight is head and type(model.model.embed_tokens) is nn.Embedding


@pytest.mark.parametrize("name", ["adapter_h", "adapter_d", "prefix_layer", "prefix_embed", "lora+prefix_layer"])
@pytest.mark.parametrize("few", QUANTIZATIONS)
def test_methods_that_add_parameters_train_on_quantised_weights(name: str, few: str) -> None:
    for kind in ("bert", "llama"):
        model = wide(kind)
        quantization.quantize(model, few, CPU)
        methods.apply(model, METHODS[name], head_modules(model))
        model.train()
        model(**BATCH).loss.backward()
        trained = trainable_parameters(model)
        assert trained and all(parameter.grad is not None for parameter in trained.values())


def test_what_cannot_be_quantised() -> None:
    model = wide("bert")
    with pytest.raises(InputError, match="nf4 runs on cpu and cuda, but not on mps"):
        quantization.quantize(model, "nf4", torch.device("mps"))
    with pytest.raises(InputError, match="model.quantization = nf3: choose from int2, int8, nf4, or null"):
        quantization.quantize(model, "nf3", CPU)
    with pytest.raises(InputError, match=r"int2: bert\.encoder\.layer\.0\.\S+: int2 takes weights in groups of 64"):
        quantization.quantize(network("bert"), "int2", CPU)


@pytest.fixture(scope="session")
def wide_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "wide"
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30522, num_hidden_layers=2, num_attention_heads=4, **WIDE)
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(assets.fetch("minilm")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def wide_llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder = tmp_path_factory.mktemp("models") / "writer"
    torch.manual_seed(0)
    sizes = {**WIDE, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def typed(folder: Path, reviews: Path) -> list[str]:
    """Overrides of a run of a classifier that takes a second."""
    model = ["model=hub", f"model.path={folder}", "runtime.threads=1", "runtime.precision=fp32"]
    return [*model, "task=local", f"task.path={reviews}", "preset=smoke", "training.lr=1e-2"]


def stored(results: Path) -> dict[str, Any]:
    """metrics.json of the only run."""
    (file,) = results.glob("runs/*/metrics.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_a_run_of_a_classifier(kind: str, wide_bert: Path, reviews: Path, cli: Cli, tmp_path: Path) -> None:
    own = [*typed(wide_bert, reviews), f"model.quantization={kind}", "method.weight_types=q+v+up"]
    done = cli(*own)
    assert (done.code, done.err) == (0, "")
    assert "(stored)" in cli(*own).out
    (folder,) = tmp_path.glob("results/runs/*/adapter")
    adapter = io.read(folder)
    layer = quantized.quantize(pretrained_weight(wide_bert, adapter.targets[0].module), None, kind)
    assert adapter.targets[0].w0_norm == pytest.approx(quantized.dequantize(layer).norm().item(), rel=1e-5)
    config = composed(*own)
    again = made_up_runs.load(config)
    methods.load(again.model, config["method"], again.heads, folder)
    scores = again.evaluate("test").scores
    rows = [row for row in stored(tmp_path / "results")["metrics"] if row["split"] == "test"]
    assert {row["metric"]: row["value"] for row in rows} == pytest.approx(scores, rel=1e-5)


def pretrained_weight(folder: Path, module: str) -> Tensor:
    model = BertForSequenceClassification.from_pretrained(folder)
    return model.get_submodule(module).get_parameter("weight").detach()


def test_it_is_part_of_what_defines_a_run(wide_bert: Path, reviews: Path, cli: Cli, tmp_path: Path) -> None:
    own = typed(wide_bert, reviews)
    assert cli(*own).code == 0 and cli(*own, "model.quantization=nf4").code == 0
    assert len(list((tmp_path / "results" / "runs").glob("[!.]*"))) == 2
    assert "(stored)" in cli(*own, "model.quantization=null").out


@pytest.fixture
def writer(wide_llama: Path) -> Callable[..., tuple[Problem, dict[str, Any]]]:
    """The problem of a tiny language model on text2sql, with LoRA of random A and B, and its config."""

    def make(kind: str, *overrides: str) -> tuple[Problem, dict[str, Any]]:
        small = [*SMALL, "task=text2sql", "task.generation.max_new_tokens=6", "runtime.eval_batch_size=2"]
        model = ["model=hub", f"model.path={wide_llama}", f"model.quantization={kind}"]
        config = composed("preset=smoke", *model, *small, *overrides)
        loaded = made_up_runs.load(config)
        methods.apply(loaded.model, config["method"], loaded.heads)
        made_up_runs.noise(loaded.model)
        loaded.model.eval()
        return loaded, config

    return make


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_what_is_written_merged_is_what_is_written(kind: str, writer: Callable[..., tuple[Problem, Any]]) -> None:
    """Generation merges; greedy text and logits are those of the quantised base with A and B beside it."""
    with torch.no_grad():
        problem, _ = writer(kind, "method.weight_types=q+v+down")
    model, tokenizer = problem.model, problem.tokenizer
    ids = torch.tensor([problem.rows["test"][0]["input_ids"][:12]])
    with torch.inference_mode():
        unmerged = model(input_ids=ids).logits
        options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
        text = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        codes = {name: quantized.tensors(layer.base)[0].clone() for name, layer in lora_layers(model)}
        merge(model)
        merged = model(input_ids=ids).logits
        if kind != "int8":  # which rounds x when it is not merged
            assert torch.equal(model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options), text)
        unmerge(model)
    assert (merged - unmerged).norm() < (0.05 if kind == "int8" else 1e-5) * unmerged.norm()
    problem.evaluate("test")
    for name, layer in lora_layers(model):
        assert not layer.merged and torch.equal(quantized.tensors(layer.base)[0], codes[name])


def test_a_run_of_a_language_model(wide_llama: Path, cli: Cli, tmp_path: Path) -> None:
    """bf16 weights where the machine has them; 4-bit weights are not packed anew between its two epochs."""
    own = ["model=hub", f"model.path={wide_llama}", "model.quantization=nf4", "preset=smoke", "task=text2sql", *SMALL]
    own += ["training.lr=1e-2", "training.epochs=2", "task.generation.max_new_tokens=4", "runtime.threads=1"]
    done = cli(*own)
    assert (done.code, done.err) == (0, "")
    (run,) = (tmp_path / "results" / "runs").glob("[!.]*")
    assert len((run / "predictions.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=full"], "freezes the linear layers, which method full trains, weights or biases: choose a method"),
        (["method=ft_top2"], "which method ft_top2 trains"),
        (["method=bitfit"], "which method bitfit trains"),
        (["model.quantization=int4"], "model.quantization = 'int4': choose from int2, int8, nf4, or null"),
        (["method=pissa"], "init pissa takes its start out of the base weight, which is quantised here"),
        (["method=lora_ga"], "init lora_ga takes its start out of the base weight, which is quantised here"),
        (
            ["method=loftq", "model.quantization=null"],
            "init loftq starts from what quantisation loses, but this Linear",
        ),
    ],
)
def test_errors_are_one_line(overrides: list[str], message: str, wide_bert: Path, reviews: Path, cli: Cli) -> None:
    done = cli(*typed(wide_bert, reviews), "model.quantization=nf4", *overrides)
    assert done.code == 2 and message in done.err and done.err.startswith("error: ") and done.err.count("\n") == 1


def test_a_width_that_does_not_fit_is_one_line(tiny_model: Path, reviews: Path, cli: Cli) -> None:
    done = cli(*typed(tiny_model, reviews), "model.quantization=nf4")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "model.quantization = nf4: bert.encoder.layer.0.attention.self.query: nf4 takes weights in" in done.err


def test_a_run_from_loftq(wide_bert: Path, reviews: Path, cli: Cli, tmp_path: Path) -> None:
    """The weights from before quantisation are read again; so they are when the run is loaded."""
    own = [*typed(wide_bert, reviews), "model.quantization=int2", "method=loftq", "method.r=8"]
    done = cli(*own)
    assert (done.code, done.err) == (0, "")
    (folder,) = tmp_path.glob("results/runs/*/adapter")
    assert io.read(folder).init == "loftq"
    config = composed(*own)
    again = made_up_runs.load(config)
    methods.load(again.model, config["method"], again.heads, folder)
    rows = [row for row in stored(tmp_path / "results")["metrics"] if row["split"] == "test"]
    assert {row["metric"]: row["value"] for row in rows} == pytest.approx(again.evaluate("test").scores, rel=1e-5)


def test_the_weights_before_quantisation(wide_bert: Path, reviews: Path) -> None:
    """They are those of the checkpoint, and reading them draws from no one's random numbers."""
    problem = made_up_runs.load(composed(*typed(wide_bert, reviews), "model.quantization=int2"))
    state = torch.get_rng_state()
    weights = quantization.pretrained(problem.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(weights) == 2 * 6
    for name, weight in weights.items():
        assert torch.equal(weight, pretrained_weight(wide_bert, name))


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small corpora in place of the real ones."""
    texts = [f"The minister said on day {n} that the economy of his country grew by {n} per cent" for n in range(9)]
    monkeypatch.setattr(forgetting, "CORPORA", {"bbc_news": (lambda: texts, ('"bbc_news"',))})


@pytest.mark.usefixtures("corpora")
def test_what_quantisation_alone_does_to_a_language_model(
    wide_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("task.train_examples=2", "task.validation_examples=2", "task.test_examples=2")
    own = [*few, "task=text2sql", "task.generation.max_new_tokens=2", "model=hub", f"model.path={wide_llama}"]
    for kind, seed in (("null", 0), ("nf4", 0), ("nf4", 1), ("int2", 0)):
        made_up_runs.store(tmp_path / "results", "qlora", *own, f"model.quantization={kind}", f"seed={seed}")
    arguments = [str(tmp_path / "results/smoke/qlora"), f"model.path={wide_llama}", "--windows=5", "--tokens=12"]
    assert quantized_base.main(arguments) == 0
    base = pd.read_csv(tmp_path / "results/smoke/qlora/quantized_base.csv", keep_default_na=False)
    assert base["quantization"].unique().tolist() == ["none", "nf4", "int2"] and set(base["start"]) == {""}
    values = base.set_index(["quantization", "measure", "on"])["value"]
    runtime = made_up_runs.load(composed(*own, "preset=smoke")).runtime
    for kind in ("none", "nf4", "int2"):
        model, tokenizer = load_language_model(
            ModelSettings(name="wide", path=str(wide_llama), quantization=None if kind == "none" else kind), runtime
        )
        windows = held_out.windows(forgetting.CORPORA["bbc_news"][0](), tokenizer, 5, 12, "")
        with torch.no_grad():
            loss = model(input_ids=windows, labels=windows).loss.item()
        assert values[kind, "loss", "bbc_news"] == pytest.approx(loss, rel=1e-5)
        assert values[kind, "bytes", "model"] == quantization.size(model).bytes
    assert values["none", "bits", "layers"] == 32 and 4 < values["nf4", "bits", "layers"] < 6
    weights = pd.read_csv(tmp_path / "results/smoke/qlora/quantized_weights.csv", keep_default_na=False)
    assert len(weights) == 2 * 2 * 7 and set(weights["weight_type"]) == set("qkvo") | {"up", "gate", "down"}
    row = weights[(weights["quantization"] == "int2") & (weights["module"] == "model.layers.1.mlp.up_proj")].iloc[0]
    exact = AutoModelForCausalLM.from_pretrained(wide_llama).model.layers[1].mlp.up_proj.weight.detach()
    layer = quantized.quantize(exact, None, "int2")
    assert row["error"] == pytest.approx(((exact - quantized.dequantize(layer)).norm() / exact.norm()).item())
    assert (row["layer"], row["d"], row["k"]) == (1, 128, 64)

    monkeypatch.setattr(quantized_base, "_measure", lambda *_: pytest.fail("it is stored"))
    capsys.readouterr()
    assert quantized_base.main(arguments) == 0
    assert "3 models, 3 of them stored" in capsys.readouterr().out


@pytest.mark.usefixtures("corpora")
def test_what_quantisation_alone_does_to_an_encoder(
    wide_bert: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has hidden states in place of a loss, and LoftQ's start is a model of its own, nearer to the exact one."""
    own = ["model=hub", f"model.path={wide_bert}", "task=local", f"task.path={reviews}"]
    own += ["method.weight_types=q+k+v+o+up+down"]
    made_up_runs.store(tmp_path / "results", "qlora", *own)
    made_up_runs.store(tmp_path / "results", "qlora", *own, "model.quantization=int2", "method.r=16")
    run = made_up_runs.store(tmp_path / "results", "qlora", *own, "model.quantization=int2", "method.r=16", "seed=1")
    config = tmp_path / "results" / "runs" / run / "config.yaml"
    config.write_text(config.read_text().replace("init: gaussian", "init: loftq"))
    places = [f"model.path={wide_bert}", f"task.path={reviews}", "--windows=4", "--tokens=12"]
    assert quantized_base.main([str(tmp_path / "results/smoke/qlora"), *places]) == 0
    base = pd.read_csv(tmp_path / "results/smoke/qlora/quantized_base.csv", keep_default_na=False)
    errors = base[base["measure"] == "hidden_error"].set_index("start")["value"]
    start = "loftq, r=16, q+k+v+o+up+down"
    assert 0 < errors[start] < errors[""]
    weights = pd.read_csv(tmp_path / "results/smoke/qlora/quantized_weights.csv", keep_default_na=False)
    means = weights.groupby("start")["error"].mean()
    assert means[start] < 0.9 * means[""]
    assert Store(tmp_path / "results" / "runs").metrics(run)["main_metric"]


def test_the_study() -> None:
    """Every quantisation is tuned with itself, at the places of the studies of Section 7."""
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        config = compose("config", ["study=qlora", "preset=desk"], return_hydra_config=True)
        places = [place for place in config.hydra.sweeper.places if "smollm2" in place]
        section7 = compose("config", ["study=spectrum", "preset=desk"], return_hydra_config=True)
    assert config.tuning.at == {"seed": 0} and config.training.lr == "tuned"
    assert section7.hydra.sweeper.places[2].split() == places[0].split()

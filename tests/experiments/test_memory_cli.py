"""python -m experiments.measure.memory as a user types it: real plans of MiniLM and of a small Llama."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import transformers

from experiments import names
from experiments.measure.memory import __main__ as cli
from experiments.measure.memory import compose, tables
from experiments.measure.memory.contenders import traits
from experiments.measure.memory.setup import Plan, Setup
from experiments.measure.memory.units import KINDS

MINILM = 22_713_216  # parameters of the body
HEAD = 384 * 2 + 2


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "it's tiny"
    transformers.LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=96, architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def test_without_arguments_it_is_lora_on_minilm(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command()
    assert (code, err) == (0, "")
    assert out.startswith("minilm: 16 × 128 tokens, a classifier, checkpointing off, ")
    trained = 6 * 2 * 2 * 8 * 384 + HEAD
    assert "| lora (r=8, q+v), bf16" in out and f"{trained:,}" in out
    assert f"{100 * trained / (MINILM + trained):.3g}%" in out


def test_one_of_several_devices(command: Callable[..., tuple[int, str, str]], tiny: str, tmp_path: Path) -> None:
    arguments = ("--model", tiny, "--batch", "3", "--length", "16", "--device", "cuda", "--devices", "2")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("each of 2 devices, runtime.parallel=fsdp: ") and "it's tiny: 2 × 16 tokens, " in out
    assert "- weights: a device's share of the frozen ones" in out
    for more, message in ((("--method", "full"), "method full trains all of it"), (("--out", str(tmp_path)), "--out")):
        code, out, err = command(*arguments, *more)
        assert (code, out) == (2, "") and message in err


def test_methods_are_columns_and_files_have_exact_numbers(
    command: Callable[..., tuple[int, str, str]], tiny: str, tmp_path: Path
) -> None:
    arguments = ("--model", tiny, "--method", "full,lora", "--batch", "2", "--length", "16", "method.r=4")
    code, out, err = command(*arguments, "--device", "cuda", "--out", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert "it's tiny: 2 × 16 tokens, logits at 15 tokens of each" in out
    assert "| full, bf16" in out and "| lora (r=4, q+v), bf16" in out
    frame = pd.read_csv(tmp_path / "out" / "plan.csv").set_index("method")
    assert frame.loc["full", "trainable_params"] == traits(tiny).parameters == frame.loc["full", "gradients"] // 4
    assert frame.loc["lora", "trainable_params"] == 2 * 4 * ((64 + 64) + (64 + 32))
    assert (frame["peak"] <= frame[list(KINDS)].sum(axis=1)).all()
    assert f"`python -m analysis.studies.memory.picture {tmp_path / 'out'}` draws it" in out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Setup]:
    """The setups of which plans, made up, were asked for."""
    setups: list[Setup] = []

    def plan(setup: Setup, devices: int = 1) -> Plan:
        setups.append(setup)
        return Plan(1000, 10, 40, 2000, 0, 40, 80, 300, 20, 5, 2400, notes=("made up",))

    monkeypatch.setattr("experiments.measure.memory.planner.plan", plan)
    return setups


def test_options_and_fields_reach_the_setup(
    command: Callable[..., tuple[int, str, str]], asked: list[Setup], tiny: str
) -> None:
    fields = ("method.weight_types=q", "model.quantization=nf4", "training.state_precision=bf16", "model.dropout=0.1")
    code, out, _ = command("--model", tiny, "--precision", "bf16,pure16", "--checkpointing", "--targets", "3", *fields)
    assert code == 0 and "- made up" in out and out.count("made up") == 1
    assert [setup.precision for setup in asked] == ["bf16", "pure16"]
    setup = asked[0]
    assert (setup.method["weight_types"], setup.model["quantization"], setup.model["dropout"]) == ("q", "nf4", 0.1)
    assert (setup.state_precision, setup.checkpointing, setup.targets, setup.batch, setup.length) == (
        "bf16", True, 3, 16, 128,
    )  # fmt: skip
    assert setup.model["path"] == tiny


@pytest.mark.parametrize(
    ("arguments", "optimizer"), [(("--optimizer", "galore"), "galore"), (("--optimizer", "badam"), "badam"),
                                 (("--optimizer", "adamw"), None), ((), None)],
)  # fmt: skip
def test_an_optimizer_is_one_of_full_fine_tuning(
    command: Callable[..., tuple[int, str, str]], asked: list[Setup], arguments: tuple[str, ...], optimizer: str | None
) -> None:
    assert command("--method", "full", *arguments)[0] == 0
    assert asked[0].method["name"] == "full" and asked[0].method.get("optimizer") == optimizer


def test_a_name_an_asset_and_a_shipped_config(command: Callable[..., tuple[int, str, str]], asked: list[Setup]) -> None:
    for name in ("smollm2", "asset:smollm2", "llama-7b", "config:llama-7b"):
        assert command("--model", name)[0] == 0
    assert [setup.model["path"] for setup in asked] == [*["asset:smollm2"] * 2, *["config:llama-7b"] * 2]
    assert [setup.model["dropout"] for setup in asked] == [0.0, 0.0, None, None]
    assert {setup.targets for setup in asked} == {127}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "llama-8b"), "unknown model 'llama-8b': did you mean llama-7b"),
        (("--model", "config:none"), "unknown model 'config:none'"),
        (("--method", "lorra"), "unknown method 'lorra'; did you mean lora?"),
        (("--method", "full,"), "unknown method ''"),
        (("method.r=0",), "r"),
        (("method.r=x",), "r"),
        (("method.rank=4",), "method.rank=4 is no setting of lora: FIELD=VALUE with FIELD one of method.r, "),
        (("training.lr=1e-3",), "training.lr=1e-3 is no setting of lora"),
        (("model.quantization",), "model.quantization is no setting of lora"),
        (("method.weight_types=gate",), "gate"),
        (("--batch", "0"), "argument --batch: '0' is no whole number of at least 1"),
        (("--length", "-4"), "argument --length: '-4' is no whole number of at least 1"),
        (("--length", "1024"), "--length 1024: minilm reads at most 512 tokens"),
        (("--precision", "fp8"), "argument --precision: 'fp8' is none of fp32, bf16, amp, pure16"),
        (("--optimizer", "galore"), "--optimizer galore is for --method full, not for lora"),
        (("--optimizer", "adamw", "--method", "galore"), "--optimizer adamw is for --method full, not for galore"),
        (("--model", "llama-7b", "--length", "1"), "--length 1: the first token of a row is predicted from nothing"),
        (("--targets", "5"), "--targets 5: minilm does not write text"),
        (("runtime.checkpointing=no",), "runtime.checkpointing = 'no': it must be true or false"),
        (("model.dropout=1",), "model.dropout = 1: it must be a number from 0 to below 1"),
        (("method.weight_types=[q,v]",), "method.weight_types = ['q', 'v']: join them by +, as q+v"),
        (("--method", "badam", "method.order=foo"), "method.order = 'foo': choose from ascending"),
        (("--method", "badam", "method.switch=0"), "method.switch = 0"),
        (("--out", __file__), "cannot be a folder"),
        (("--method", "frozen", "--model", "llama-7b"), "train"),
        (("--model", "llama-7b", "--length", "8", "--targets", "8"), "targets"),
    ],
)
def test_bad_input_is_one_line(
    command: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_a_config_that_transformers_refuses_is_one_line(
    command: Callable[..., tuple[int, str, str]], tiny: str, tmp_path: Path
) -> None:
    config = json.loads((Path(tiny) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    code, out, err = command("--model", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"model {tmp_path} cannot be read" in err and err.count("\n") == 1


def test_rows_of_one_token_and_a_budget_for_a_config_that_ships(command: Callable[..., tuple[int, str, str]]) -> None:
    assert command("--length", "1", "--batch", "3")[0] == 0
    code, out, _ = command("--model", "llama-7b", "--batch", "1", "--length", "8", "method.budget=4194304")
    assert code == 0 and "lora (r=8, q+v), bf16" in out and "4,194,304" in out


def test_a_folder_without_config_is_named(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = command("--model", str(tmp_path))
    assert code == 2 and str(tmp_path) in err and err.count("\n") == 1


def test_every_method_composes() -> None:
    parts = compose.composed("minilm", names.options("method"), ["method.r=2"])
    assert {part.method["r"] for part in parts if "r" in part.method} == {2}
    assert {"galore", "badam", "freeze", "lora", "full"} <= set(names.options("method"))


def test_tables_of_the_smallest_preset(asked: list[Setup], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--preset", "smoke", "--out", str(tmp_path)]
    assert tables.main(arguments) == 0
    made = {"plans.csv", "published.csv", "paper_figures.csv", "fits.csv", "setups.csv"}
    assert {path.name for path in tmp_path.iterdir()} == made
    planned = len(asked)
    assert tables.main(arguments) == 0 and len(asked) == planned
    frame = pd.read_csv(tmp_path / "plans.csv")
    assert len(frame) == 2 * frame["title"].nunique() == 2
    assert capsys.readouterr().out.count(f"{tmp_path}: plans.csv, published.csv, paper_figures.csv, fits.csv") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cards", "16,x"), "argument --cards: '16,x' is no list of GiB"),
        (("--cards", ""), "argument --cards: '' is no list of GiB"),
        (("--reserve", "-1"), "argument --reserve: '-1' is no number of GiB"),
        (("--preset", "none"), "--preset = none; there are: smoke"),
        (("--model", "no-model"), "unknown model 'no-model'"),
    ],
)
def test_bad_input_of_the_tables_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables.main(["--preset", "smoke", "--out", str(tmp_path / "out"), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1

"""Truncated updates against numpy's SVD and runs' own scores; the command as typed, killed, and with bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up_runs
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from made_up_runs import composed, load
from networks import network
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments import methods
from experiments.measure import cuts, truncation
from experiments.problems.base import Problem
from lora import io
from lora.config import InputError
from lora.model import lora_layers

STUDY = "truncation"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(tiny_model: Path, reviews: Path) -> list[str]:
    """Where the model and the data are, for a run and for the measurement."""
    return [f"model.path={tiny_model}", f"task.path={reviews}", "runtime.threads=1"]


@pytest.fixture
def store(tmp_path: Path, typed: list[str]) -> Callable[..., str]:
    def one(*overrides: str, **options: Any) -> str:
        own = ["model=hub", "task=local", *typed, *overrides]
        return made_up_runs.store(tmp_path / "results", STUDY, *own, **options)

    return one


@pytest.fixture
def measure(tmp_path: Path, typed: list[str], capsys: pytest.CaptureFixture[str]) -> Command:
    """The command; returns its exit code and standard error."""

    def call(*arguments: str, places: list[str] | None = None) -> tuple[int, str]:
        capsys.readouterr()
        study_dir = str(tmp_path / "results" / "smoke" / STUDY)
        code = truncation.main([study_dir, *(typed if places is None else places), *arguments])
        return code, capsys.readouterr().err

    return call


def results(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "results" / "smoke" / STUDY / "truncation.csv", dtype={"r": str})


def own_scores(tmp_path: Path, run_id: str) -> dict[tuple[str, str], float]:
    metrics = json.loads((tmp_path / "results" / "runs" / run_id / "metrics.json").read_text())["metrics"]
    return {(row["split"], row["metric"]): row["value"] for row in metrics}


def best(delta_w: Tensor, k: int) -> Tensor:
    """The best approximation of rank k, by numpy in double precision."""
    U, S, Vh = np.linalg.svd(delta_w.detach().double().numpy(), full_matrices=False)
    return torch.from_numpy(U[:, :k] * S[:k] @ Vh[:k]).float()


TYPES = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


def by_hand(tmp_path: Path, typed: list[str], run_id: str, k: int) -> Problem:
    """The model of a run of full fine-tuning, put together from the stored file and the pretrained weights."""
    loaded = load(composed("preset=smoke", "model=hub", "task=local", "method=full", *typed))
    trained = load_file(tmp_path / "results" / "runs" / run_id / "adapter" / "adapter.safetensors")
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if name.endswith(tuple(f"{kind}.weight" for kind in TYPES)):
                parameter += best(trained[name] - parameter, k)
            else:
                parameter.copy_(trained[name])
    return loaded


def test_full_fine_tuning_is_cut_as_numpy_would(
    store: Callable[..., str], measure: Command, typed: list[str], tmp_path: Path
) -> None:
    run_id = store("method=full")
    assert measure() == (0, "")
    found = results(tmp_path)
    assert list(found.columns) == ["run_id", "model", "task", "method", "r", "seed", "k", "split", "metric", "value"]
    assert set(found["run_id"]) == {run_id} and set(found["method"]) == {"full"} and found["r"].isna().all()
    assert sorted(found["k"].unique()) == [0, 1, 2, 4, 8, 16, 32]  # the model is 32 wide: 32 is the whole
    scores = found.set_index(["k", "split", "metric"])["value"]
    for (split, metric), value in own_scores(tmp_path, run_id).items():
        assert scores[32, split, metric] == pytest.approx(value, abs=1e-6)
    assert scores[0, "test", "loss"] != pytest.approx(scores[32, "test", "loss"], abs=1e-4)
    for k in (0, 4):
        loaded = by_hand(tmp_path, typed, run_id, k)
        for split in ("validation", "test"):
            assert scores[k, split, "loss"] == pytest.approx(loaded.evaluate(split).scores["loss"], abs=1e-5), k
    energy = scores.xs(("update", "energy"), level=("split", "metric")).sort_index()
    assert energy[0] == 0 and energy[32] == pytest.approx(1) and energy.is_monotonic_increasing


def test_lora_is_cut_below_its_rank(
    store: Callable[..., str], measure: Command, typed: list[str], tmp_path: Path
) -> None:
    run_id = store("method=lora", "method.r=4", "method.weight_types=q+v")
    assert measure()[0] == 0
    found = results(tmp_path)
    assert sorted(found["k"].unique()) == [0, 1, 2, 4] and set(found["r"]) == {"4"}
    scores = found.set_index(["k", "split", "metric"])["value"]
    for (split, metric), value in own_scores(tmp_path, run_id).items():
        assert scores[4, split, metric] == pytest.approx(value, abs=1e-6)
    for k in (0, 2):
        config = composed("preset=smoke", "model=hub", "task=local", "method=lora", "method.r=4", *typed)
        loaded = load(config)
        methods.load(loaded.model, config["method"], loaded.heads, tmp_path / "results" / "runs" / run_id / "adapter")
        with torch.no_grad():
            for _, layer in lora_layers(loaded.model):
                for part in layer.parts:
                    layer.weight.add_(best(layer.delta_w(part.name), k))
                    layer.lora_B[part.name].zero_()
        assert scores[k, "test", "loss"] == pytest.approx(loaded.evaluate("test").scores["loss"], abs=1e-5), k


def blocks(model: Any, kind: str) -> dict[str, Tensor]:
    """Every matrix that is cut on its own, by a name."""
    found = {}
    for own, module in model.named_modules():
        name = own.removesuffix(".base")  # of a layer that LoRA has adapted
        if ".wte" in name or ".wpe" in name or not hasattr(module, "weight") or module.weight.ndim < 2:
            continue
        if kind == "gpt2" and ".h." in name:  # Conv1D holds W transposed; c_attn is q, k and v side by side
            parts = module.weight.T.chunk(3) if name.endswith("c_attn") else [module.weight.T]
            found |= {f"{name}.{place}": part.clone() for place, part in enumerate(parts)}
        elif kind == "llama" and isinstance(module, nn.Linear) and "layers" in name:
            found[name] = module.weight.clone()
    return found


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora", "r": 3, "alpha": 4, "weight_types": "q+v+up"}])
def test_every_weight_type_is_a_matrix_of_its_own(kind: str, method: dict[str, Any], tmp_path: Path) -> None:
    trained = network(kind, "LMHeadModel" if kind == "gpt2" else "ForCausalLM")
    w0 = blocks(trained, kind)
    kept = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    methods.apply(trained, method, [])
    with torch.no_grad():
        made_up_runs.noise(trained)
    io.save(trained, tmp_path / "adapter")
    if method["name"] == "lora":
        for _, layer in lora_layers(trained):
            layer.merge()
    full = blocks(trained, kind)
    assert full.keys() == w0.keys()

    model = network(kind, "LMHeadModel" if kind == "gpt2" else "ForCausalLM")
    update = cuts.load(model, method, [], tmp_path / "adapter", 64)
    assert update.whole == (16 if method["name"] == "full" else 3)
    for k in (1, 2, update.whole, 0):  # any order: nothing of the last cut is left
        update.to(k)
        copied = network(kind, "LMHeadModel" if kind == "gpt2" else "ForCausalLM")
        if method["name"] == "lora":
            methods.load(copied, method, [], tmp_path / "adapter")
            for (_, cut), (_, target) in zip(lora_layers(model), lora_layers(copied), strict=True):
                for part in cut.parts:
                    expected = best(target.delta_w(part.name), k)
                    torch.testing.assert_close(cut.delta_w(part.name), expected, atol=1e-4, rtol=1e-4)
        else:
            for name, matrix in blocks(model, kind).items():
                expected = w0[name] + best(full[name] - w0[name], k)
                torch.testing.assert_close(matrix, expected, atol=1e-4, rtol=1e-4)
        total = sum((full[name] - w0[name]).square().sum() for name in w0)
        share = sum(best(full[name] - w0[name], k).square().sum() for name in w0) / total
        assert update.energy(k) == pytest.approx(share.item(), abs=1e-4)
    stored = load_file(tmp_path / "adapter" / "adapter.safetensors")
    for name, parameter in model.named_parameters():
        if "norm" in name or ".ln_" in name or "embed" in name or ".wte" in name or ".wpe" in name:
            assert torch.equal(parameter, stored[name] if method["name"] == "full" else kept[name]), name


def test_an_unknown_architecture_is_an_error(tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=2)
    model = transformers.MambaModel(config)
    with pytest.raises(InputError, match="weight types are not known for a mamba model"):
        cuts.load(model, {"name": "full"}, [], tmp_path, 64)


def test_text_is_generated_only_where_it_is_asked_for(
    decoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"{n}:", "completion": " it is so"}) + "\n" for n in range(40)))
    places = [f"model.path={decoders['llama']}", f"task.path={pairs}", "runtime.threads=1"]
    small = ["model=hub", "task=local", "task.max_length=32", "task.generation.max_new_tokens=4", *places]
    run_id = made_up_runs.store(tmp_path / "results", STUDY, "method=lora", "method.r=2", *small)
    study_dir = str(tmp_path / "results" / "smoke" / STUDY)
    assert truncation.main([study_dir, *places]) == 0
    without = results(tmp_path)
    assert set(without["metric"]) == {"loss", "energy"}
    whole = without[(without["k"] == 2) & (without["split"] == "test") & (without["metric"] == "loss")]
    assert whole["value"].item() == pytest.approx(own_scores(tmp_path, run_id)["test", "loss"], abs=1e-6)
    assert truncation.main([study_dir, *places, "--generate"]) == 0
    found = results(tmp_path)
    assert set(found.loc[found["metric"] == "rouge_lf", "split"]) == {"test"}
    assert set(found.loc[found["metric"] == "rouge_lf", "k"]) == {0, 1, 2}
    pd.testing.assert_frame_equal(found[found["metric"] != "rouge_lf"].reset_index(drop=True), without)
    capsys.readouterr()
    assert truncation.main([study_dir, *places]) == 0
    assert "1 runs, 1 of them stored" in capsys.readouterr().out


def test_a_killed_measurement_goes_on(
    store: Callable[..., str], measure: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store("method=lora", "method.r=2")
    other = store("method=lora", "method.r=2", "seed=1")
    real, cut = cuts.Cuts.to, []

    def killed(self: cuts.Cuts, k: int) -> None:
        cut.append(k)
        if len(cut) == 5:
            raise KeyboardInterrupt
        real(self, k)

    monkeypatch.setattr(cuts.Cuts, "to", killed)
    code, error = measure()
    assert code == 130 and "continues" in error
    first = results(tmp_path)
    assert cut == [2, 0, 1, 2, 0] and len(first.groupby(["run_id", "k"])) == 4
    (tmp_path / "results" / "smoke" / STUDY / ".truncation.csv").write_text("run_id,mod")  # killed while it wrote
    assert measure()[0] == 0
    assert cut[5:] == [0, 1]
    found = results(tmp_path)
    pd.testing.assert_frame_equal(found[: len(first)], first)
    assert not found.duplicated(["run_id", "k", "split", "metric"]).any() and len(found) == 2 * 3 * 5
    made_up_runs.forget(tmp_path / "results" / "smoke" / STUDY, other)
    assert measure()[0] == 0
    assert other not in set(results(tmp_path)["run_id"]) and len(cut) == 7


def test_bad_input_is_one_line(
    store: Callable[..., str], measure: Command, typed: list[str], tmp_path: Path, decoders: dict[str, Path]
) -> None:
    study_dir = tmp_path / "results" / "smoke" / STUDY

    def error(*arguments: str, places: list[str] | None = None) -> str:
        code, text = measure(*arguments, places=places)
        assert code == 2 and text.startswith("error: ") and text.count("\n") == 1, text
        return text

    assert "no readable sweep.jsonl" in error()
    store("method=head_only")
    assert "no run of full fine-tuning or LoRA" in error()
    run_id = store("method=lora", "method.r=2")
    assert "is of a model folder of your own: say where, with model.path=PATH" in error(places=typed[1:])
    assert "is of data files of your own" in error(places=[typed[0]])
    other = [f"model.path={decoders['llama']}", *typed[1:]]
    assert "was not of the model in" in error(places=other)
    notes = tmp_path / "notes.csv"
    notes.write_text("text,label\na,b\n")
    assert "was not of the task in" in error(places=[typed[0], f"task.path={notes}"])
    assert "is no setting here: there are model.path" in error("method.r=4")
    assert "is no whole number" in error("runtime.threads=none")
    assert "unknown option --k" in error("--k=3")
    assert measure()[0] == 0
    file = study_dir / "truncation.csv"
    whole = file.read_text()
    for damaged in (whole[:-30], whole.replace(",value", ",worth", 1), "\0", whole.replace(",0,", ",zero,")):
        file.write_text(damaged)
        assert "truncation.csv is damaged; delete it, the same command measures anew" in error(), damaged[-60:]
    file.write_text(whole)
    config = tmp_path / "results" / "runs" / run_id / "config.yaml"
    config.write_text("model: [")
    assert "is damaged" in error()
    config.parent.rename(tmp_path / "gone")
    assert f"run {run_id} of" in error()

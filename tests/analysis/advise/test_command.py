"""The command as a user types it: it reads no test data before it is told to, goes on where it was, and says what is
wrong in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from analysis.advise import plan
from analysis.advise.__main__ import main
from analysis.advise.looks import check
from lora.errors import InputError

FEW = (
    "engine.jobs=1", "runtime.threads=1", "task.train_examples=96", "task.validation_examples=24", "training.epochs=3",
    "training.batch_size=8",
)  # fmt: skip


def command(encoder: Path, reviews: Path, results: Path, *more: str) -> list[str]:
    given = ["--model", str(encoder), "--task", str(reviews), "--preset", "smoke", "--results", str(results)]
    return [*given, "--rates", "1e-2,3e-2", *FEW, *more]


@pytest.fixture(scope="module")
def results(encoder: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the command."""
    folder = tmp_path_factory.mktemp("advice") / "results"
    assert main(command(encoder, reviews, folder)) == 0
    return folder


def read(results: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((results / "advice" / "tiny_reviews" / "advice.json").read_text())
    return content


def splits(results: Path) -> dict[str, set[str]]:
    """Of each stored run the splits that it has scored."""
    found = {}
    for path in results.glob("runs/*/metrics.json"):
        found[path.parent.name] = {row["split"] for row in json.loads(path.read_text())["metrics"]}
    return found


def test_it_advises_from_validation_data_alone(results: Path) -> None:
    advice = read(results)
    assert set(splits(results)) == set(advice["runs"]) and set(map(frozenset, splits(results).values())) == {
        frozenset({"validation"})
    }
    found = advice["found"]
    scores = [
        row["value"]
        for run in advice["runs"]
        for row in json.loads((results / "runs" / run / "metrics.json").read_text())["metrics"]
        if row["metric"] == "accuracy" and (results / "runs" / run / "adapter").is_dir()
    ]
    largest = found["curve"][-1]
    assert min(scores) <= largest["score"]["value"] <= max(scores), "uncut, the largest is as it was trained"
    assert largest["above"]["value"] == 0 and largest["bound"] == 0
    assert found["best"]["bound"] >= -found["margin"] and found["best"]["parameters"] <= largest["parameters"]
    cheaper = [one for one in found["candidates"] if one["parameters"] < found["best"]["parameters"]]
    assert all(one["bound"] < -found["margin"] for one in cheaper)
    folder = results / "advice" / "tiny_reviews"
    page = (folder / "advice.md").read_text()
    assert "The test set was not read" in page and f"lr = {advice['lr']:g}" in page
    assert (folder / "advice.png").stat().st_size > 10_000


def test_peft_opens_what_is_to_be_pasted(results: Path, encoder: Path) -> None:
    folder = results / "advice" / "tiny_reviews"
    config = peft.LoraConfig.from_pretrained(str(folder))
    model = peft.get_peft_model(AutoModelForSequenceClassification.from_pretrained(encoder), config)
    ranks: dict[str, int] = read(results)["ranks"]
    names = {"query": "q", "key": "k", "value": "v", "intermediate.dense": "up"}
    names |= {"attention.output.dense": "o", "output.dense": "down"}
    found = {
        name: layer.r["default"]
        for name, layer in model.named_modules()
        if isinstance(layer, peft.tuners.lora.LoraLayer)
    }
    for name, rank in found.items():
        kind = next(kind for ending, kind in names.items() if name.endswith(ending))
        assert ranks[kind] == rank, name
    assert len(found) == 2 * len(ranks)
    pasted: dict[str, Any] = {}
    exec((folder / "peft_config.py").read_text(), pasted)
    assert pasted["config"].target_modules == config.target_modules
    assert pasted["config"].rank_pattern == config.rank_pattern


def test_it_goes_on_where_it_was_and_tests_when_told(
    results: Path, encoder: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(results, tmp_path / "results")
    first = read(results)
    shutil.rmtree(tmp_path / "results" / "runs" / first["runs"][-1])
    again = command(encoder, reviews, tmp_path / "results", "--confirm")
    assert main(again) == 0
    confirmed = read(tmp_path / "results")
    assert confirmed["ranks"] == first["ranks"] and confirmed["lr"] == first["lr"]
    tested = {run for run, own in splits(tmp_path / "results").items() if "test" in own}
    assert tested.isdisjoint(first["runs"]) and len(tested) in (6, 9)
    assert [one["name"] for one in confirmed["confirmed"]] == ["the advice", "the common default", "the largest"]
    assert confirmed["confirmed"][0]["ours"]["value"] == 0
    capsys.readouterr()
    assert main(again) == 0
    out = capsys.readouterr().out
    assert "to do" in out and not [line for line in out.splitlines() if " 0 to do" not in line and "to do" in line]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--budget", "6"), "BUDGET=6: the smallest plan takes 7 runs: give so many, or a time"),
        (("--budget", "15", "--confirm"), "BUDGET=15: the smallest plan takes 16 runs, 9 of them for CONFIRM=1"),
        (("--budget", "soon"), "BUDGET=soon: give a time"),
        (("--rates", ","), "--rates ,: give numbers"),
        (("--out", __file__), f"{__file__} cannot be a folder"),
        (("method.r=4",), "method.r=4: this is what the advice, which is of LoRA, chooses or sets: leave it out"),
        (("method=full",), "method=full: this is what"),
        (("seed=3",), "seed=3: this is what"),
        (("preset=desk",), "preset=desk: give --preset desk"),
        (("--model", "hub"), "--model hub --task "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_timed(
    more: tuple[str, ...],
    message: str,
    encoder: Path,
    reviews: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "fitting", lambda subject: pytest.fail("it is timed"))
    assert main(command(encoder, reviews, tmp_path / "results", *more)) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--budget", "1s"), "BUDGET=1s is too small: one run takes about"),
        (("--margin", "much"), "MARGIN=much: give points"),
        (("--rates", "fast"), "--rates fast: give numbers"),
        (("--rates", "1e30"), "every learning rate diverged (1e+30): give lower ones"),
        (("task.train_examples=4",), "reviews has 4 train rows, 16 are needed at least"),
        (("method.weight_types=gate",), "a bert model has no weight type 'gate'"),
        (("--preset", "huge"), "unknown preset huge"),
        (("task.lenght=3",), "unknown setting task.lenght"),
    ],
)
def test_bad_input_is_one_line(
    more: tuple[str, ...],
    message: str,
    encoder: Path,
    reviews: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(encoder, reviews, tmp_path / "results", *more)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors[-1].startswith(f"error: {message}")


def test_a_model_that_cannot_compute_is_one_line(
    encoder: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(*_: object) -> None:
        raise RuntimeError("mixed dtype (CPU):\nexpect parameter to have scalar type of Float")

    monkeypatch.setattr("experiments.problems.base.Problem.backward", backward)
    assert main(command(encoder, reviews, tmp_path / "results")) == 2
    error = "error: a training step of tiny fails: mixed dtype (CPU): expect parameter to have scalar type of Float"
    assert capsys.readouterr().err.splitlines()[-1].startswith(error)


def test_a_file_too_small_to_split(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few.csv").write_text("text,label\na,good\nb,bad\n")
    assert main(command(encoder, tmp_path / "few.csv", tmp_path / "results")) == 2
    assert "too few" in capsys.readouterr().err


def test_an_adapter_with_nan_is_one_line(results: Path, tmp_path: Path) -> None:
    run = next(path for path in results.glob("runs/*") if (path / "adapter").is_dir())
    shutil.copytree(run, tmp_path / run.name)
    file = tmp_path / run.name / "adapter" / "adapter.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name][0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(
        InputError, match=rf"run {run.name} has NaN in {name}: delete .*the same command trains it again"
    ):
        check(tmp_path / run.name)
    check(run)


def test_a_share_of_the_gain_over_the_head_alone(results: Path, encoder: Path, reviews: Path, tmp_path: Path) -> None:
    """In the main metric, also where a preset chooses by the loss."""
    shutil.copytree(results, tmp_path / "results")
    assert main(command(encoder, reviews, tmp_path / "results", "--margin", "20%", "tuning.by=loss")) == 0
    advice = read(tmp_path / "results")
    assert 0 <= advice["floor"] <= 1
    gain = advice["found"]["curve"][-1]["score"]["value"] - advice["floor"]
    assert advice["found"]["margin"] == pytest.approx(0.2 * gain)
    assert "the head alone" in (tmp_path / "results" / "advice" / "tiny_reviews" / "advice.md").read_text()

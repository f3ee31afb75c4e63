"""The examples, run as they are, on tiny models."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

import lora
from experiments import assets

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of the user's own, 32 wide."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertForSequenceClassification(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(assets.fetch("minilm")).save_pretrained(folder)
    return folder


def example(name: str, *arguments: str | Path) -> str:
    line = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(line, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_alone(tiny: Path) -> None:
    said = example("core_alone.py", tiny)
    first, last = (float(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith("step"))
    assert last < 0.5 * first
    differences = [float(line.rpartition(" ")[2]) for line in said.splitlines() if "differ by" in line]
    assert len(differences) == 2 and max(differences) < 1e-4


def test_section_7_of_two_adapters(tiny: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        model = AutoModelForSequenceClassification.from_pretrained(tiny)
        lora.inject(model, lora.LoRAConfig(r=4))
        lora.freeze(model)
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                torch.nn.init.normal_(parameter)
        lora.save_peft(model, tmp_path / f"adapter-{seed}")
    said = example(
        "section7_of_two_hub_adapters.py", tmp_path / "adapter-0", tmp_path / "adapter-1", tiny, tmp_path / "out"
    )
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line[:1] in ("q", "v")}
    assert set(rows) == {"q", "v"} and all(row[0] == "2" and 0 <= float(row[1]) <= 1 for row in rows.values())
    assert (tmp_path / "out" / "top_directions.png").stat().st_size > 10_000


def test_the_notebook(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cell by cell, in this process: what a kernel would do, without one."""
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        rows = [(("a dull film", "a warm film")[n % 2] + f" {n}", ("bad", "good")[n % 2]) for n in range(120)]
        csv.writer(file).writerows([("text", "label"), *rows])
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "which_rank.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs")], "stored without outputs"
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    small = {
        '"minilm"': repr(str(tiny)),
        "preset=quick": "preset=smoke",
        "1,2,4,8,16": "1,2",
        "seed=0,1,2": "engine.jobs=1",
    }
    for old, new in small.items():
        assert old in code[0]
        code[0] = code[0].replace(old, new)
    place: dict[str, object] = {}
    for cell in code:
        exec(compile(cell, "which_rank.ipynb", "exec"), place)
    assert place["rank"] in (1, 2)
    assert capsys.readouterr().out.splitlines()[-1] in ("bad", "good")
    assert (tmp_path / str(place["adapter"]) / "adapter_config.json").is_file()

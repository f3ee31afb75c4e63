from pathlib import Path

import pandas as pd
import pytest
from measured_files import write

from analysis import study
from analysis.studies import gradients
from lora.config import InputError

STUDY = "gradients"
T, N = 10, 600


@pytest.fixture
def measured(study_dir: Path) -> Path:
    """The CSVs of `experiments.measure.gradients`, made up."""
    checks = [
        {"model": "tiny", "module": kind, "weight_type": types, "gradient": gradient, "precision": precision, "r": r,
         "modules": 2, "error": error * r}
        for kind, types, gradients in (("Linear", "q", "ABx"), ("Conv1D", "v", "AB"), ("Conv1D", "q+v", "x"))
        for gradient in (f"dL/d{side}" for side in gradients)
        for precision, error in (("fp64", 1e-15), ("fp32", 1e-7))
        for r in (1, 8)
    ]  # fmt: skip
    steps = []
    for start, a, b in (("gaussian", 1.0, 0.0), ("both_zero", 0.0, 0.0)):
        for step in (0, 1, 16):
            moving = float(start == "gaussian" and step > 0)
            norms = {"norm_A": a, "norm_B": b + moving, "gradient_A": moving, "gradient_B": a, "moved_B": moving}
            moved = {"moved_A": float(moving and step > 1)}
            steps.append({"start": start, "step": step, "loss": 0.7, "model": "tiny"} | norms | moved)
    flops = []
    for method, r, factor in (("full", 0, 4), ("lora", 1, 2), ("lora", 8, 2)):
        for name, rule in (("forward", 2 * N * T + 10 * r), ("backward", factor * N * T + 20 * r)):
            row = {"model": "tiny", "method": method, "r": r, "weight_types": "q+v", "texts": 2, "tokens": 5}
            counted = {"pass": name, "counted": rule - 10 * r, "exact": rule - 10 * r, "rule": rule, "attention": 7}
            took = {"seconds": 0.1, "ratio": 1.0 if method == "full" else 0.6, "ratio_low": 0.5, "ratio_high": 1.1}
            flops.append(row | counted | took | {"trials": 3, "threads": 2, "device": "cpu"})
    for schema, rows in zip(gradients.FILES, (checks, steps, flops), strict=True):
        write(rows, study_dir, schema)
    return study_dir


def test_tables_and_figure(measured: Path, tmp_path: Path) -> None:
    outputs = study.run_study(measured, tmp_path / "no runs")
    assert {path.name for path in outputs} == {"table.csv", "table.md", "gradients.png", "provenance.json"}
    assert all(path.stat().st_size for path in outputs)
    table = pd.read_csv(measured / "table.csv").set_index(["part", "item", "quantity"])["value"].sort_index()
    assert table["checks", "tiny, Linear, q", "dL/dA fp64"] == pytest.approx(8e-15)  # the largest over ranks
    assert ("checks", "tiny, Conv1D, v", "dL/dx fp64") not in table.index
    assert table["steps", "gaussian, step 0", "gradient_A"] == 0
    assert table["flops", "tiny, lora, 8, q+v, 2, 5, backward", "of_full"] == pytest.approx(
        (2 * N * T + 80) / (4 * N * T)
    )
    both = table["flops", "tiny, lora, 1, q+v, 2, 5, both"]
    assert both["counted"] == pytest.approx(4 * N * T + 10)
    assert both["of_rule"] == pytest.approx((4 * N * T + 10) / (4 * N * T + 30))
    assert "ratio" not in both.index


def test_the_report_says_what_the_numbers_say(measured: Path) -> None:
    study.run_study(measured, measured)
    text = (measured / "table.md").read_text()
    assert "differ by at most 8.0e-15 in fp64 and 8.0e-07 in fp32: tiny and r = 1, 8." in text
    assert (
        "gaussian (B = 0): at the start exactly zero: B, dL/dA; after one step: the move of A; after 16: nothing."
        in text
    )
    zero = "at the start exactly zero: everything; after one step: everything; after 16: everything."
    assert f"both_zero (A = B = 0): {zero}" in text
    assert "equal the count exactly in 9 of 9 passes" in text
    assert "A backward pass of LoRA counts 0.50 to 0.50 times" in text and "took 0.60 to 0.60 times as long" in text
    assert "| 0.60 [0.50, 1.10]" in text


def test_a_count_that_differs_is_not_called_exact(measured: Path) -> None:
    flops = pd.read_csv(measured / "flops.csv")
    flops.loc[3, "counted"] += 1
    flops.to_csv(measured / "flops.csv", index=False)
    study.run_study(measured, measured)
    assert "in 7 of 9 passes" in (measured / "table.md").read_text()  # the backward pass, and the sum of both


@pytest.mark.parametrize("content", [None, "", "model,module\n", "step,loss\n1,2\n"])
@pytest.mark.parametrize("name", gradients.STUDY.reads)
def test_missing_or_damaged_files_name_the_command(name: str, content: str | None, measured: Path) -> None:
    (measured / name).unlink()
    if content is not None:
        (measured / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}[ ;].*`make .* PRESET=quick` makes it") as caught:
        study.run_study(measured, measured)
    assert "\n" not in str(caught.value)


def test_a_file_without_rows_is_refused(measured: Path) -> None:
    checks = measured / "checks.csv"
    checks.write_text(checks.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="checks.csv has no rows"):
        study.run_study(measured, measured)

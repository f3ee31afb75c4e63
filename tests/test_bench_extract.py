"""The benchmark of extraction: contenders that are to be exact are, and all are measured on the same update."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.extract.delta import delta
from bench import extract, extract_commands


@pytest.mark.parametrize("spectrum", ["flat", "falling"])
def test_errors_are_those_of_the_best_approximation_or_above(spectrum: str, tmp_path: Path) -> None:
    rows = {row["contender"]: row for row in extract.projection(160, spectrum, 6, with_dense=True)}
    both = extract.opened(160, extract.files(160, spectrum, tmp_path))
    S = np.linalg.svd(delta(both, extract.MODULE).matrix.astype(np.float64), compute_uv=False)
    best = np.linalg.norm(S[6:]) / np.linalg.norm(S)
    assert rows["lora-lab"]["error"] == pytest.approx(best, rel=1e-6)
    assert rows["dense SVD"]["error"] == pytest.approx(best, rel=1e-6)
    assert best < rows["svd_lowrank"]["error"] < 1.05 * best
    assert all(row["above the best"] >= 0 for row in rows.values())


def test_the_update_has_the_norm_that_the_note_says(tmp_path: Path) -> None:
    found = delta(extract.opened(300, extract.files(300, "falling", tmp_path)), extract.MODULE)
    assert (found.energy / found.energy_base) ** 0.5 == pytest.approx(extract.UPDATE, rel=0.02)


def test_an_adapter_made_smaller_here_and_by_peft_is_the_same(tmp_path: Path) -> None:
    extract_commands._models(64, 1, tmp_path)
    ours, theirs = extract_commands.shrinking(64, 1, 3, tmp_path)
    for contender in (ours, theirs):
        contender.work()
    assert ours.error() == pytest.approx(theirs.error(), rel=1e-5)
    assert 0 < ours.error() < 1


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "64", "96", "--dense", "64", "--rank", "4", "--spectrum", "falling", "--only-projections"]
    threads = str(torch.get_num_threads())
    assert extract.main([*arguments, "--threads", threads, "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "extract.csv")
    assert table["contender"].tolist() == ["lora-lab", "svd_lowrank", "dense SVD", "lora-lab", "svd_lowrank"]
    assert table["input"].tolist() == ["64 x 64, falling"] * 3 + ["96 x 96, falling"] * 2
    text = (tmp_path / "extract.md").read_text()
    assert "as B A of rank 4" in text and f"with {threads} threads" in text
    assert extract.main(["--size", "0"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == "error: argument --size: '0' is no whole number of at least 1"

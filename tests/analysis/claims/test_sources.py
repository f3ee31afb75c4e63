"""The tables that claims are read from: what is damaged or missing is one clear line."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import pytest
from makers import MAKERS

from analysis.claims.board import CLAIMS
from analysis.claims.engine import Verdict, judge
from analysis.claims.sources import COLUMNS, read
from lora.config import InputError

CLAIM = {claim.key: claim for claim in CLAIMS}


@pytest.mark.parametrize(
    ("content", "reason"),
    [("run_id,model\n1,2\n", "no column task"), ("", "damaged"), (b"\xff\xfe\x00", "damaged"), ("split", "no column")],
)
def test_damaged_tables_are_one_clear_line(content: str | bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "quick" / "compare_methods" / "runs.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read(tmp_path / "quick", ["compare_methods/runs.csv"])
    message = str(caught.value)
    assert reason in message and str(path) in message and "`make compare-methods PRESET=quick`" in message
    assert "\n" not in message


@pytest.mark.parametrize("key", MAKERS)
def test_no_column_is_read_that_is_not_checked(key: str, tmp_path: Path) -> None:
    entry = CLAIM[key]
    MAKERS[key](tmp_path, (1, 2, 3) if key == "larger_base" else (0.1, 0.2, 0.4))
    expected = [number for one in judge([entry], read(tmp_path, entry.files))[0].cases for number in one.estimate]
    assert expected
    for name in entry.files:
        texts, numbers = next(columns for pattern, columns in COLUMNS.items() if fnmatch(name, pattern))
        for path in tmp_path.glob(name):
            table = pd.read_csv(path)
            known = [*texts, *numbers, "model", *(["label", "settings"] if "role" in texts else [])]
            known += [column for column in table if re.fullmatch(r"j\d+", column) and "j1" in numbers]
            table[[column for column in table if column in known]].to_csv(path, index=False)
    found = [number for one in judge([entry], read(tmp_path, entry.files))[0].cases for number in one.estimate]
    assert found == pytest.approx(expected, nan_ok=True)


def test_runs_csv_says_which_runs_have_collapsed(tmp_path: Path) -> None:
    MAKERS["as_good_as_full"](tmp_path, (0.1, 0.2))
    path = tmp_path / "compare_methods/runs.csv"
    table = pd.read_csv(path)
    lost = table["run_id"] == table["run_id"].iloc[0]
    table.assign(collapsed=lost).to_csv(path, index=False)
    runs = read(tmp_path, ["compare_methods/runs.csv"])["compare_methods/runs.csv"]
    assert runs["collapsed"].tolist() == lost.tolist()
    (found,) = judge([CLAIM["as_good_as_full"]], {"compare_methods/runs.csv": runs})
    assert "runs predict about one class" in found.cases[0].note


def test_numbers_must_be_numbers(tmp_path: Path) -> None:
    MAKERS["as_good_as_full"](tmp_path, (0.1, 0.2))
    path = tmp_path / "compare_methods/runs.csv"
    table = pd.read_csv(path).astype({"value": object})
    table.loc[3, "value"] = "high"
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match="damaged .*high"):
        read(tmp_path, ["compare_methods/runs.csv"])


def test_studies_of_lora_alone_need_no_labels(tmp_path: Path) -> None:
    MAKERS["small_rank"](tmp_path, (0.1, 0.11, 0.12))
    path = tmp_path / "rank_ablation/runs.csv"
    table = pd.read_csv(path)
    table[table["label"] == "lora"].drop(columns=["label", "settings"]).to_csv(path, index=False)
    entry = CLAIM["small_rank"]
    assert judge([entry], read(tmp_path, entry.files))[0].verdict == Verdict.FAILS


def test_every_file_of_a_claim_is_known() -> None:
    for entry in CLAIMS:
        for name in entry.files:
            assert any(fnmatch(name, pattern) for pattern in COLUMNS)

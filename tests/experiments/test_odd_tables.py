"""Files whose header or labels say less than they seem to."""

import logging
from pathlib import Path

import pytest

from experiments.tasks import _labels
from experiments.tasks._reading import read
from lora.config import InputError


@pytest.mark.parametrize(("name", "sep"), [("a.csv", ","), ("a.tsv", "\t")])
def test_two_columns_of_one_name_are_refused(name: str, sep: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"text{sep}label{sep}label\nx{sep}1{sep}2\n")
    with pytest.raises(InputError, match=f"{name} has 2 columns named 'label': leave one"):
        read(tmp_path / name)


def test_numbers_with_leading_zeros_are_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _labels.warn({"01": 3, "1": 5, "0": 4}, "zeros.csv")
    (record,) = caplog.records
    assert "'01' (3 rows) and '1' (5 rows)" in record.getMessage()

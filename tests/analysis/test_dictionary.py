"""docs/data.md, and the schemas that it is made from, against the files that are committed."""

from pathlib import Path

import pytest

from analysis import dictionary
from experiments.csv_schema import Schema

DESK = Path(__file__).parents[2] / "results" / "desk"
COMMITTED = [schema for schema in (*dictionary.MEASURED, *dictionary.MEMORY) if schema.study]


def test_the_page_is_that_of_the_schemas() -> None:
    assert dictionary.PAGE.read_text(encoding="utf-8") == dictionary.page(), "run `python -m analysis.dictionary`"


@pytest.mark.parametrize("schema", COMMITTED, ids=lambda schema: schema.file)
def test_committed_files_follow_their_schemas(schema: Schema) -> None:
    path = DESK / schema.study / schema.file
    assert path.read_text(encoding="utf-8").splitlines()[0].split(",") == schema.names
    rows = schema.read(path)
    assert len(rows) and not rows.duplicated(list(schema.key)).any()
    assert all(column.what and (not column.unit or column.type in (int, float)) for column in schema.columns)


def test_every_study_has_the_columns_of_runs() -> None:
    headers = {path: path.open(encoding="utf-8").readline().strip().split(",") for path in DESK.glob("*/runs.csv")}
    assert len(headers) > 20
    for path, header in headers.items():
        assert header[: len(dictionary.RUNS.names)] == dictionary.RUNS.names, path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("run_id,model", "run,model", "no run_id"),
        (",12,256,", ",12.5,256,", "12.5"),
        (",12,256,", ",,256,", "invalid literal"),
        ("\n", "\nx,y\n", "a line is cut short"),
    ],
)
def test_a_file_that_does_not_follow_its_schema(old: str, new: str, message: str, tmp_path: Path) -> None:
    schema = dictionary.schemas.FORGETTING
    text = (DESK / schema.study / schema.file).read_text(encoding="utf-8")
    (tmp_path / schema.file).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        schema.read(tmp_path / schema.file)


def test_truth_values_are_read_as_such(tmp_path: Path) -> None:
    schema = dictionary.memory.FITS
    text = (DESK / schema.study / schema.file).read_text(encoding="utf-8")
    (tmp_path / schema.file).write_text(text)
    assert schema.read(tmp_path / schema.file)["checkpointing"].value_counts().to_dict().keys() == {True, False}
    (tmp_path / schema.file).write_text(text.replace(",False,", ",no,", 1))
    with pytest.raises(ValueError, match="checkpointing is neither True nor False"):
        schema.read(tmp_path / schema.file)

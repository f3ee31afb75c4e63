"""The kit of studies: a study that a test adds, blocks of a page, parts of the data, what tests establish."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis.studies
from analysis import study
from analysis.kit import cells, compare, pages, sentences
from analysis.kit.data import Data
from analysis.kit.study import Study
from analysis.maths import statistics

STUDY = "mine"
MODULE = """
from analysis.kit import cells, marks, pages
from analysis.kit.study import Study

STUDY = Study(
    cell=["model", "task", "metric", "weight_types", "r"],
    tables={"table.csv": cells.means, "none.csv": lambda data: None},
    page=[
        "# Mine",
        pages.text("Of {metrics}.", metrics=pages.metrics),
        pages.sections("## {task}", pages.under("Means on {task}:", lambda data: cells.mean_texts(data["table.csv"]))),
        pages.failed_runs,
    ],
    answers=lambda runs: ["all is well"],
    figures={
        "lines.png": marks.Lines(x="r", line="weight_types", label="r", legend="on"),
        "none.png": lambda data, path: None,
    },
)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of one file more."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "mine.py").write_text(MODULE)
    monkeypatch.setattr(analysis.studies, "__path__", [*analysis.studies.__path__, str(tmp_path / "studies")])
    monkeypatch.delitem(sys.modules, "analysis.studies.mine", raising=False)


@pytest.mark.usefixtures("mine")
def test_a_study_is_one_file(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for task, test in (("a", 0.5), ("b", 0.7)):
        for seed, more in enumerate((0.0, 0.1)):
            make_run(task=task, seed=seed, test=test + more)
    lost = make_run(task="b", seed=2, error="the loss is nan")
    outputs = study.run_study(study_dir, runs_dir)
    assert [path.name for path in outputs] == ["runs.csv", "table.csv", "table.md", "lines.png", "provenance.json"]
    assert all(path.is_file() for path in outputs)
    assert pd.read_csv(study_dir / "table.csv")["mean"].tolist() == [0.55, 0.75]
    text = (study_dir / "table.md").read_text()
    wide = f"{100 * 12.706 * 0.1 / 2:.1f}"  # the t quantile of two seeds
    assert text.startswith("# Mine\n\n> all is well\n\nOf accuracy.\n\n## a\n\n")
    assert f"## a\n\nMeans on a:\n\n55.0 ± {wide} (2)\n\n## b\n\nMeans on b:\n\n75.0 ± {wide} (2)\n\n" in text
    assert text.count("## Failed runs") == 1
    assert f"- Run `{lost}` (lora (r=8, q+v) on b, lr 0.001, seed 2) failed" in text


@pytest.mark.usefixtures("mine")
def test_what_runs_say_of_themselves(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    """Which protocol they are of stands at the head of the page, and whether they have collapsed in runs.csv."""
    ids = [make_run(seed=seed) for seed in (0, 1)]

    def head(**says: list[object]) -> str:
        for number, run_id in enumerate(ids):
            path = runs_dir / run_id / "metrics.json"
            metrics = {key: value for key, value in json.loads(path.read_text()).items() if key != "protocol"}
            path.write_text(json.dumps(metrics | {key: values[number] for key, values in says.items()}))
        study.run_study(study_dir, runs_dir)
        return (study_dir / "table.md").read_text().partition("Of accuracy.")[0]

    assert "Protocol" not in head() and "collapsed" not in pd.read_csv(study_dir / "runs.csv")
    said = head(protocol=[2, 2], collapsed=[False, True])
    assert "Protocol 2 (docs/evidence.md)." in said and "Collapsed" in said
    runs = pd.read_csv(study_dir / "runs.csv")
    assert runs.groupby("seed")["collapsed"].first().tolist() == [False, True]
    assert "Runs of protocols 1 and 2 (docs/evidence.md)" in head(protocol=[1, 2])
    study_dir = study_dir.parent.rename(study_dir.parents[1] / "desk") / STUDY
    assert "Protocol 1, which `PRESET=desk1` makes;" in head()  # desk's runs of before they said it


def files_alone(page: list[pages.Block]) -> Study:
    """A study that no run is behind."""
    frame = pd.DataFrame({"task": ["a", "a", "b"], "x": [1, 2, 3]})
    both = lambda data, path: [path, path.with_name("second.png")]  # noqa: E731
    return Study(runs=None, tables={"table.csv": lambda data: frame}, page=page, figures={"first.png": both})


def test_a_study_of_files_alone_and_figures_by_the_dozen(tmp_path: Path) -> None:
    outputs = files_alone(["# Title", lambda data: ""]).build(tmp_path, tmp_path)
    assert [path.name for path in outputs] == ["table.csv", "table.md", "first.png", "second.png"]
    assert (tmp_path / "table.md").read_text() == "# Title\n"


def test_blocks_that_give_nothing_leave_no_trace(tmp_path: Path) -> None:
    data = Data(files_alone([]), tmp_path, tmp_path)
    nothing: list[pages.Block] = [lambda data: [], "", pages.under("## None", lambda data: "")]
    nothing.append(pages.table(lambda data: pd.DataFrame({"a": []})))
    assert pages.render(["a", *nothing, pages.lines("b", *nothing, "c")], data) == "a\n\nb\nc"


def test_a_section_sees_its_own_part_alone(tmp_path: Path) -> None:
    made: list[int] = []

    def total(data: Data) -> str:
        made.append(1)
        return str(data["table.csv"]["x"].sum())

    data = Data(files_alone([]), tmp_path, tmp_path)
    block = pages.sections("## {task}", lambda data: data.once(total), lambda data: data.once(total), by=["task"])
    assert pages.render([block, lambda data: data.once(total)], data) == "## a\n\n3\n\n3\n\n## b\n\n3\n\n3\n\n6"
    assert len(made) == 3  # once in each section, and once for the whole


def test_a_row_has_a_column_for_each_value_and_cells_that_are_missing_are_empty() -> None:
    rows = [("a", 1, 0.5, 0.01, 3.0, 2), ("a", 8, 0.6, np.nan, 1.0, 0), ("b", 8, 0.7, np.nan, np.nan, np.nan)]
    rows.append(("c", 8, np.nan, np.nan, 0.0, 3))
    wide = cells.wide(pd.DataFrame(rows, columns=["line", "r", "mean", "interval", "n", "collapsed"]), ["line"], "r")
    assert list(wide) == ["line", *(f"r{r}{part}" for r in (1, 8) for part in ("", "_interval", "_n", "_collapsed"))]
    assert cells.wide_texts(wide, "r") == {
        "r = 1": ["50.0 ± 1.0 (3; 2 collapsed)", None, None],
        "r = 8": ["60.0 (1)", "70.0", "all 3 collapsed"],
    }


def test_what_tests_establish() -> None:
    rows = pd.DataFrame(
        {"name": list("abcde"), "difference": [1.0, -1, 1, -1, 2], "p_holm": [0.01, 0.01, 0.05, 0.5, np.nan]}
    )
    found = sentences.told(rows)
    assert [list(part["name"]) for part in found] == [["a"], ["b"], ["c", "d"]]
    assert found.tests == 4
    losses = sentences.told(rows.add_prefix("x_").rename(columns={"x_name": "name"}), "x_", lower=True)
    assert [list(part["name"]) for part in losses] == [["b"], ["a"], ["c", "d"]]
    assert sentences.listed([]) == "none"


def test_methods_are_compared_with_each_reference_within_their_task() -> None:
    generator = np.random.default_rng(0)
    rows = [
        (task, label, "", seed, generator.random())
        for task in ("a", "b")
        for label in ("full", "lora", "bitfit")
        for seed in range(4)
        if (task, label) != ("b", "full")
    ]
    scores = pd.DataFrame(rows, columns=["task", "label", "settings", "seed", "value"])
    table = scores.groupby(["task", "label", "settings"], sort=False)["value"].agg(n="count").reset_index()
    found = compare.with_differences(table, scores, ["task"]).set_index(["task", "label"])
    values = dict(list(scores.set_index("seed").groupby(["task", "label"])["value"]))
    bitfit = statistics.paired(values["a", "bitfit"], values["a", "full"])
    assert found.loc[("a", "bitfit"), "full_difference"] == bitfit.difference
    others = [statistics.paired(values["a", name], values["a", "full"]).p for name in ("lora", "bitfit")]
    assert found.loc[("a", "bitfit"), "full_p_holm"] == statistics.holm(others)[1]
    assert found.loc["b", "full_pairs"].isna().all()
    assert compare.minus_texts(found.reset_index(), "full")[3:] == [None, None]


def test_a_row_for_each_group_in_order_of_appearance() -> None:
    rows = pd.DataFrame({"task": ["b", "a", "b", "c"], "value": [1, 2, 3, 4]})
    found = cells.each(rows, ["task"], lambda own: {"sum": own["value"].sum()} if own["task"].iloc[0] != "c" else None)
    assert found.to_dict("list") == {"task": ["b", "a"], "sum": [4, 2]}
    assert cells.each(rows.iloc[:0], ["task"], lambda own: {}).empty

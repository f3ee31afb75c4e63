from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from analysis import study
from analysis.kit import figures, tables
from analysis.maths.statistics import holm
from analysis.studies import forgetting
from lora.config import InputError

STUDY = "forgetting"
LORA: dict[str, Any] = {"name": "lora", "alpha": 16, "weight_types": "q+v"}
FULL, NORM, PREFIX = {"name": "full"}, {"name": "norm_only"}, {"name": "prefix_embed", "l_p": 32, "l_i": 8}
BEFORE = {"bbc_news": 3.0, "newsgroups": 4.5}
NOISE = (0.000, 0.010, 0.021)
# method -> (rise of the loss on a text, test loss of the task)
METHODS: list[tuple[Mapping[str, Any], float, float]] = [
    (FULL, 0.60, 0.40),
    (LORA | {"r": 1}, 0.05, 0.70),
    (LORA | {"r": 8}, 0.20, 0.55),
    (LORA | {"r": 64}, 0.40, 0.405),
    (LORA | {"r": 8, "weight_types": "q+k+v+o+up+gate+down"}, 0.70, 0.30),
    (NORM, 0.0, 0.80),
    (PREFIX, -0.02, 0.90),
]
Add = Callable[..., None]


@pytest.fixture
def add(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> Add:
    """A run of text2sql with this test loss, and its lines in forgetting.csv."""

    def one(
        method: Mapping[str, Any], rise: float, loss: float, seed: int = 0, measured: bool = True, **more: Any
    ) -> None:
        run_id = store(method, 1 - loss, "text2sql", seed, **more)
        if not measured:
            return
        path = study_dir / "forgetting.csv"
        about = {"model": "smollm2", "task": "text2sql", "method": method["name"], "label": "", "settings": ""}
        about |= {"r": method.get("r", ""), "seed": seed, "windows": 64, "tokens": 256, "sha256": "0"}
        rows = [
            {"run_id": run_id} | about | {"text": text, "loss_before": before, "loss_after": before + rise}
            for text, before in BEFORE.items()
        ]
        pd.DataFrame(rows).to_csv(path, index=False, mode="a", header=not path.exists())

    return one


@pytest.fixture
def three_seeds(add: Add) -> None:
    for seed, noise in enumerate(NOISE):
        for place, (method, rise, loss) in enumerate(METHODS):
            # The differences to full are not all the same, and norm_only's rise has both signs.
            own = (-1) ** seed * 0.001 * (place + 1)
            add(method, rise + (noise if rise else 0) + own, loss + noise - own, seed)


def test_numbers_are_those_of_scipy(three_seeds: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = forgetting.STUDY.build(study_dir, runs_dir)
    assert {path.name for path in outputs} == {
        "runs.csv",
        "table.csv",
        "ranks.csv",
        "table.md",
        "forgetting.png",
        "tradeoff.png",
    }
    assert (study_dir / "forgetting.png").stat().st_size > 20_000

    def rises(place: int) -> np.ndarray[Any, Any]:
        rise = METHODS[place][1]
        values = [rise + (noise if rise else 0) + (-1) ** s * 0.001 * (place + 1) for s, noise in enumerate(NOISE)]
        return np.array(values)

    table = pd.read_csv(study_dir / "table.csv", keep_default_na=False, na_values=[""], dtype={"settings": str})
    assert table["metric"].iloc[:: len(METHODS)].tolist()[:2] == ["loss", "logical_form"]  # all of one, then the other
    table = table.fillna({"settings": ""}).set_index(["metric", "label", "settings"]).sort_index()
    found = table.loc["forgetting_bbc_news"]
    assert found.loc[("lora", "r=8, q+v"), "mean"] == pytest.approx(rises(2).mean(), rel=1e-5)
    assert found.loc[("lora", "r=8, q+v"), "before"] == BEFORE["bbc_news"]
    zero = {METHODS[i][0]["name"] + str(i): stats.ttest_1samp(rises(i), 0).pvalue for i in range(len(METHODS))}
    against_full = [stats.ttest_rel(rises(i), rises(0)).pvalue for i in range(1, len(METHODS))]
    names = [("full", ""), ("lora", "r=1, q+v"), ("lora", "r=8, q+v"), ("lora", "r=64, q+v")]
    names += [("lora", "r=8, q+k+v+o+up+gate+down"), ("norm_only", ""), ("prefix_embed", "l_p=32, l_i=8")]
    for name, p in zip(names, holm(list(zero.values())), strict=True):
        assert found.loc[name, "zero_p_holm"] == pytest.approx(p, rel=1e-4), name
    for name, p in zip(names[1:], holm(against_full), strict=True):
        assert found.loc[name, "full_p_holm"] == pytest.approx(p, rel=1e-4), name
    by_seed = [
        np.array([METHODS[i][2] + noise - (-1) ** s * 0.001 * (i + 1) for s, noise in enumerate(NOISE)])
        for i in range(len(METHODS))
    ]
    learnt = [stats.ttest_rel(own, by_seed[0]).pvalue for own in by_seed[1:]]
    for name, p in zip(names[1:], holm(learnt), strict=True):
        assert table.loc["loss"].loc[name, "full_p_holm"] == pytest.approx(p, rel=1e-4), name
    assert table.loc["loss", "zero_p_holm"].isna().all() and table.loc["logical_form", "before"].isna().all()

    ranks = pd.read_csv(study_dir / "ranks.csv").set_index("metric")
    assert list(ranks.index) == ["forgetting_bbc_news", "forgetting_newsgroups"]  # of the other set there is one rank
    row = ranks.loc["forgetting_bbc_news"]
    assert (row["line"], row["smallest"], row["largest"]) == ("lora q+v", 1, 64)
    assert row["difference"] == pytest.approx((rises(3) - rises(1)).mean(), rel=1e-5)
    assert row["p_holm"] == pytest.approx(2 * stats.ttest_rel(rises(3), rises(1)).pvalue, rel=1e-4)  # two texts


def test_sentences_follow_the_numbers(three_seeds: None, study_dir: Path, runs_dir: Path) -> None:
    forgetting.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "- **bbc_news** (64 windows of 256 tokens): the base model's loss is 3.000." in text
    assert "not told apart from 0 with norm_only, prefix_embed" in text
    assert (
        "forgets less and learns less: norm_only, prefix_embed (l_p=32, l_i=8), lora (r=1, q+v), lora (r=8, q+v);"
        in text
    )
    assert "forgets less and learning not told apart: lora (r=64, q+v)" in text
    assert "forgets more and learns more: lora (r=8, q+k+v+o+up+gate+down)" in text
    assert (
        "lora q+v: from 0.061 at r = 1 to 0.412 at r = 64 (+0.351 ± 0.006, p < 0.001 *): more rank forgets more."
        in text
    )
    head = next(line for line in text.splitlines() if line.startswith("| method"))
    learnt = [cell.strip() for cell in head.split("|")][5:8]
    assert learnt == ["test loss", "test loss, minus full", "test logical_form"]
    line = next(line for line in text.splitlines() if line.startswith("| norm_only"))
    assert "| +0.398 ± 0.014, p < 0.001 * " in line and line.count("| -0.609 ± 0.029, p < 0.001 * ") == 2


def test_ranks_are_joined_in_their_order_and_named(
    three_seeds: None, study_dir: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Figure] = {}

    def keep(figure: Figure, path: Path) -> Path:
        drawn[path.name] = figure
        return path

    monkeypatch.setattr(figures, "save", keep)
    forgetting.STUDY.build(study_dir, runs_dir)
    for axis in drawn["tradeoff.png"].axes:
        (line,) = (bars.lines[0] for bars in axis.containers if bars.get_label() == "lora q+v")
        losses = np.array(line.get_xdata(), float)
        np.testing.assert_allclose(losses, [0.71, 0.56, 0.415], atol=0.01)  # of r = 1, 8, 64
        marks = {text.get_text(): text.xy[0] for text in axis.texts if text.get_color() == line.get_color()}
        assert list(marks) == ["1", "8", "64"]
        assert list(marks.values()) == list(losses)


def test_one_seed_without_full_says_so(add: Add, study_dir: Path, runs_dir: Path) -> None:
    add(NORM, 0.01, 0.8)
    add(LORA | {"r": 1}, 0.2, 0.6)
    add(LORA | {"r": 8}, 0.1, 0.5)
    forgetting.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "No run of full: nothing is compared with it." in text
    assert "not tested: two seeds that differ are needed" in text
    assert "corrected tests" not in text
    front = next(line for line in text.splitlines() if "By their means alone" in line)
    assert "r=8" in front and "norm_only" in front and "r=1" not in front


def test_what_is_not_measured_is_one_line(add: Add, study_dir: Path, runs_dir: Path) -> None:
    add(NORM, 0.01, 0.8, measured=False)
    with pytest.raises(InputError, match=r"has no forgetting\.csv; `make forgetting PRESET=quick` measures it"):
        forgetting.STUDY.build(study_dir, runs_dir)
    add(LORA | {"r": 1}, 0.2, 0.6)
    with pytest.raises(InputError, match="lacks 1 runs of the study"):
        forgetting.STUDY.build(study_dir, runs_dir)
    file = study_dir / "forgetting.csv"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(InputError, match=r"forgetting\.csv is damaged .* delete it, `make forgetting PRESET=quick`"):
        forgetting.STUDY.build(study_dir, runs_dir)


def test_the_study_is_made_anew_when_its_measurement_changes(add: Add, study_dir: Path, runs_dir: Path) -> None:
    for seed in range(2):
        add(NORM, 0.01 + seed, 0.8, seed)
    outputs = study.run_study(study_dir, runs_dir)
    stamp = (study_dir / "table.md").stat().st_mtime_ns
    assert study.run_study(study_dir, runs_dir) == outputs
    assert (study_dir / "table.md").stat().st_mtime_ns == stamp
    file = study_dir / "forgetting.csv"
    file.write_text(file.read_text().replace("3.01", "3.02"))
    study.run_study(study_dir, runs_dir)
    assert (study_dir / "table.md").stat().st_mtime_ns != stamp
    assert tables.make_command(study_dir) == "make forgetting PRESET=quick"

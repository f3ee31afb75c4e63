import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.kit import metrics, sentences, tables, tuning
from analysis.studies import rank_generation, table3, table13, table14
from lora.config import InputError

STUDY = "table3"
LORA: dict[str, Any] = {"name": "lora", "r": 4, "alpha": 32, "weight_types": "q+v"}
FULL: dict[str, Any] = {"name": "full"}
SMALL, LARGE = ({"name": "adapter_l", "bottleneck": size} for size in (5, 120))
SIZES = {"full": 134_500_000, "adapter_l5": 220_000, "adapter_l120": 4_200_000}
E2E = {"bleu": 0.55, "nist": 6.5, "meteor_stem": 0.38, "rouge_l": 0.60, "cider": 1.4, "loss": 1.2}


@pytest.fixture
def store(make_run: Callable[..., str], runs_dir: Path) -> Callable[..., str]:
    """Stores a run of a task whose text is generated; returns its run_id. test: the test metrics, the main one first;
    loss: on validation data."""

    def make(test: Mapping[str, float], loss: float = 1.2, task: str = "e2e", group: str = "", **run: Any) -> str:
        method = run["method"]
        name = method["name"] + str(method.get("bottleneck", ""))
        run["trainable_params"] = 57_600 * method["r"] if name == "lora" else SIZES[name]
        run_id = make_run(task=task, **run)
        if "error" in run:
            return run_id
        folder = runs_dir / run_id
        metrics = json.loads((folder / "metrics.json").read_text())
        entries = [{"split": "validation", "metric": "loss", "value": loss}]
        entries += [{"split": "test", "metric": name, "value": value} for name, value in test.items()]
        metrics |= {"main_metric": next(iter(test)), "validation_metric": "loss", "metrics": entries}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        rows = [{"prompt": "name[Clowns]\n", "references": ["Clowns."], "output": "Clowns"} for _ in range(3)]
        rows = [row | {"group": "seen"} for row in rows] if group else rows
        (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return run_id

    return make


def shifted(by: float) -> dict[str, float]:
    """E2E's metrics, all better by as many hundredths (the loss in nats)."""
    return {name: value + (-1 if name == "loss" else 1) * by / 100 for name, value in E2E.items()}


@pytest.fixture
def study(store: Callable[..., str]) -> None:
    noise = {0: 0.0, 1: 0.4, 2: -0.5}
    for method, better, wobble in ((FULL, 1.0, 0.1), (LORA, 0.0, 0.0), (SMALL, -3.0, 0.02), (LARGE, 0.5, 0.8)):
        best = 1e-4 if method is FULL else 1e-3
        for step, loss in enumerate((1.25, 1.2, 1.4)):
            store(shifted(better), loss, method=method, lr=best * 10.0 ** (step - 1), role="tuning")
        for seed, by in noise.items():
            store(shifted(better + by + wobble * seed * (-1) ** seed), 1.2, method=method, lr=best, seed=seed)


def test_table_has_a_column_a_metric_and_the_papers_rows(study: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = table3.STUDY.build(study_dir, runs_dir)
    assert {path.name for path in outputs} == {
        "runs.csv", "table.csv", "differences.csv", "table.md", "table3.png", "samples.md", "samples.csv",
        "learning_rates.csv", "learning_rates.png",
    }  # fmt: skip
    assert all(path.stat().st_size for path in outputs)
    assert list(pd.read_csv(study_dir / "runs.csv").columns) == tables.RUNS_COLUMNS

    table = pd.read_csv(study_dir / "table.csv")
    ours = table[table["source"] == "ours"]
    ours = ours.set_index(ours["label"] + ours["settings"].fillna(""))
    assert list(ours.index) == ["full", "adapter_lbottleneck=5", "adapter_lbottleneck=120", "lorar=4, alpha=32, q+v"]
    assert ours["n"].tolist() == [3] * 4
    values = np.array([0.55, 0.554, 0.545])
    assert ours.loc["lorar=4, alpha=32, q+v", "bleu"] == pytest.approx(values.mean(), abs=1e-6)
    half = stats.t(2).ppf(0.975) * values.std(ddof=1) / 3**0.5
    assert ours.loc["lorar=4, alpha=32, q+v", "bleu_interval"] == pytest.approx(half, rel=1e-4)
    assert ours["share"].tolist() == pytest.approx([1, 220 / 134_500, 4.2 / 134.5, 230.4 / 134_500], rel=1e-4)
    assert ours["tried"].tolist() == [3] * 4
    assert ours["lr"].tolist() == [1e-4, 1e-3, 1e-3, 1e-3]

    paper = table[table["source"] == "paper"].set_index("model")
    assert len(paper) == 12
    lora = paper[paper["label"] == "lora"].loc["gpt2-medium"]
    assert lora[["bleu", "nist", "meteor_stem", "rouge_l", "cider"]].tolist() == pytest.approx(
        [0.704, 8.85, 0.468, 0.718, 2.53]
    )
    assert (lora["trainable_params"], lora["share"]) == (350_000, pytest.approx(0.35 / 354.92, rel=1e-4))


def test_differences_are_paired_by_seed_and_corrected(study: None, study_dir: Path, runs_dir: Path) -> None:
    table3.STUDY.build(study_dir, runs_dir)
    found = pd.read_csv(study_dir / "differences.csv")
    assert len(found) == 2 * 6 * 3
    small = found[(found["reference"] == "lora") & (found["metric"] == "bleu")].set_index("settings", drop=False)
    values, base = (np.array([0.52, 0.5238, 0.5154]), np.array([0.55, 0.554, 0.545]))
    assert small.loc["bottleneck=5", "difference"] == pytest.approx((values - base).mean(), rel=1e-4)
    p = stats.ttest_rel(values, base).pvalue
    assert small.loc["bottleneck=5", ["p", "p_holm"]].tolist() == pytest.approx([p, 3 * p], rel=1e-4)
    assert small.loc["bottleneck=120", "p_holm"] > 0.05


def test_report_says_what_was_found_and_what_seeds_can_bear(study: None, study_dir: Path, runs_dir: Path) -> None:
    table3.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "## e2e (minilm)\n\n- 3 test inputs.\n" in text
    line = next(line for line in text.splitlines() if "Against lora" in line)
    every = "test loss, BLEU, NIST, stem METEOR, ROUGE-L, CIDEr"
    told = f"better: full in {every} – worse: adapter_l (bottleneck=5) in {every} – not told apart: 6."
    assert f"18 tests, corrected metric by metric: {told}" in line
    # t of 2 degrees of freedom at 97.5%, and at 1 - 0.025/3
    corrected = f"{stats.t(2).ppf(1 - 0.025 / 3):.1f}"
    assert f"must be 4.3 times its standard error if it is the only one, and {corrected}" in text
    assert "Stem METEOR matches words and stems but no synonyms" in text
    assert "best validation loss" in text
    rows = [line for line in text.splitlines() if line.startswith("| paper, gpt2-medium")]
    assert [cell.strip() for cell in rows[-1].split("|")[2:-1]] == [
        "lora", "–", "350,000", "0.0986%", "–", "70.4", "8.85", "46.8", "71.8", "2.53",
    ]  # fmt: skip
    ours = next(line for line in text.splitlines() if line.startswith("| ours, minilm") and "| lora" in line)
    assert "| 55.0 ± 1.1 (3) " in ours
    assert "Best rate still at the edge of those tried, so that a better one may lie outside: none." in text


def test_the_loss_is_chosen_by_the_lowest(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for lr, loss in ((1e-3, 1.24), (1e-2, 1.20), (1e-1, 1.30)):
        store(E2E, loss, lr=lr, role="tuning", method=LORA)
    store(E2E, lr=1.0, role="tuning", method=LORA, error="the loss is nan")
    store(E2E, 1.2, lr=1e-2, method=LORA)
    grid = tuning.rates(tables.load_runs(study_dir, runs_dir), tables.load_failed(study_dir, runs_dir))
    assert grid["metric"].unique().tolist() == ["loss"]
    assert grid["chosen"].tolist() == [False, True, False, False]
    found = tuning.outcomes(grid).iloc[0]
    assert (found["best_lr"], found["at_edge"], found["isolated"], found["failed"]) == (1e-2, False, True, 1)
    # 0.02 nats above 1.20: to the left half of the decade, to the right a fifth of it
    assert (found["decades_2"], found["bounded_2"]) == (pytest.approx(0.7, abs=1e-4), True)


def test_one_seed_has_no_interval_and_says_so(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(E2E, method=LORA)
    store(shifted(2), method=FULL)
    outputs = {path.name for path in table3.STUDY.build(study_dir, runs_dir)}
    assert "learning_rates.csv" not in outputs
    text = (study_dir / "table.md").read_text()
    assert "One seed a method: there is no interval and no test." in text
    assert "Against full: no test, which takes two seeds that both have." in text
    assert "No learning rate was tuned in this study" in text
    assert "| +2.0 " in text
    assert "±" not in text.partition("## e2e")[2]


def test_seeds_in_common_are_what_counts(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for seed in range(3):
        store(shifted(seed), method=LORA, seed=seed)
        store(shifted(1.5 * seed), method=SMALL, seed=seed)
    for seed in (0, 1):
        store(shifted(2 * seed), method=LARGE, seed=seed)
    store(E2E, method=FULL, seed=7)
    table3.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    rows = text.partition("Minus lora")[2].splitlines()
    assert "(2 pairs)" in next(row for row in rows if "bottleneck=120" in row)
    assert "no seed in common" in text
    assert "Some methods have 1, which bear less." in text


def test_dart_and_webnlg_have_the_papers_columns(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    of_all = {"bleu": 0.4, "meteor_stem": 0.33, "ter": 0.5}
    groups = {f"{name}{suffix}": value for name, value in of_all.items() for suffix in ("", "_seen", "_unseen")}
    for seed in (0, 1):
        for by, method in enumerate((FULL, LORA)):
            values = {name: value + (seed + by) / 100 for name, value in groups.items()} | {"loss": 1.0}
            store(values, task="webnlg", group="seen", method=method, seed=seed)
    folder = study_dir.rename(study_dir.parent / "table14")
    table14.STUDY.build(folder, runs_dir)
    text = (folder / "table.md").read_text()
    header = next(line for line in text.splitlines() if line.startswith("| from"))
    assert [cell.strip() for cell in header.split("|")[6:-1]] == [
        *("test loss ↓", "BLEU unseen", "BLEU seen", "BLEU"),
        *("stem METEOR unseen", "stem METEOR seen", "stem METEOR"),
        *("TER unseen ↓", "TER seen ↓", "TER ↓"),
    ]  # fmt: skip
    assert "3 test inputs (3 seen)" in text
    paper = pd.read_csv(folder / "table.csv").query("source == 'paper' and label == 'lora' and model == 'gpt2-medium'")
    assert paper[["bleu_unseen", "bleu", "meteor_stem_seen", "ter_unseen"]].iloc[0].tolist() == pytest.approx(
        [0.467, 0.553, 0.44, 0.46]
    )
    # A lower TER is better: LoRA's is higher by 0.01 in both seeds, which has no spread, and so is no test.
    assert "+0.010 " in text

    folder = folder.rename(folder.parent / "table13")
    table13.STUDY.build(folder, runs_dir)
    paper = pd.read_csv(folder / "table.csv").query("source == 'paper' and label == 'ft_top2'")
    assert paper[["bleu", "meteor_stem", "ter"]].iloc[0].tolist() == pytest.approx([0.41, 0.34, 0.56])
    assert "| 34.0" in (folder / "table.md").read_text()


def test_another_task_shows_its_own_metrics(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store({"rouge_1": 0.4, "accuracy": 0.5, "loss": 2.0}, task="samsum", method=LORA)
    table3.STUDY.build(study_dir, runs_dir)
    table = pd.read_csv(study_dir / "table.csv")
    assert table["source"].tolist() == ["ours"]
    text = (study_dir / "table.md").read_text()
    assert "| 40.0 " in text
    assert text.startswith("# Text generation on samsum (as in the paper's Table 3)\n")


def test_metrics_that_are_shown() -> None:
    seen, bleu, accuracy, loss = map(metrics.of, ("ter_seen", "bleu", "accuracy", "val_loss"))
    assert (seen.heading, seen.scale, seen.lower) == ("TER seen ↓", 1, True)
    assert (bleu.heading, bleu.axis, accuracy.heading, accuracy.scale) == ("BLEU", "test BLEU (%)", "accuracy", 100)
    assert (loss.title, loss.axis, loss.digits) == ("validation loss", "validation loss", 3)


@pytest.mark.parametrize(("seeds", "alone", "corrected"), [(2, "12.7", "89.1"), (3, "4.3", "11.8")])
def test_what_few_seeds_can_bear(seeds: int, alone: str, corrected: str) -> None:
    text = sentences.caution(pd.Series([seeds] * 8), 7)
    assert f"must be {alone} times" in text
    assert f"and {corrected} times if it is the clearest of 7" in text


@pytest.fixture
def ranks(store: Callable[..., str]) -> None:
    for lr, loss in ((1e-3, 1.2), (1e-2, 1.3)):
        store(E2E, loss, lr=lr, role="tuning", method=LORA)
    for r, better in ((1, -1.5), (4, 0.0), (16, 0.3), (64, 0.25), (256, 0.2)):
        for seed, by in enumerate((0.0, 0.4)):
            wobble = 0.1 * seed * (r % 3)
            store(shifted(better + by + wobble), 1.2 - better / 100, lr=1e-3, seed=seed, method=LORA | {"r": r})


def test_ranks_beside_the_papers(ranks: None, study_dir: Path, runs_dir: Path) -> None:
    folder = study_dir.rename(study_dir.parent / "rank_generation")
    outputs = rank_generation.STUDY.build(folder, runs_dir)
    assert {path.name for path in outputs} == {
        "runs.csv", "table.csv", "differences.csv", "table.md", "rank_generation.png", "samples.md", "samples.csv",
        "learning_rates.csv", "learning_rates.png",
    }  # fmt: skip
    table = pd.read_csv(folder / "table.csv")
    ours = table[table["source"] == "ours"].set_index("r")
    assert list(ours.index) == [1, 4, 16, 64, 256]
    assert ours["val_loss"].to_dict() == pytest.approx({1: 1.215, 4: 1.2, 16: 1.197, 64: 1.1975, 256: 1.198}, rel=1e-4)
    paper = table[table["source"] == "paper"].set_index("r")
    assert len(paper) == 11
    assert paper.loc[4, ["val_loss", "bleu", "meteor_stem", "rouge_l"]].tolist() == pytest.approx(
        [1.18, 0.7038, 0.4689, 0.7186]
    )
    differences = pd.read_csv(folder / "differences.csv")
    assert set(differences["reference"]) == {"r=4"}
    assert differences["label"].eq("lora").all()
    assert len(differences) == 7 * 4

    text = (folder / "table.md").read_text()
    assert "- validation loss: best at r = 16; from 1.197 to 1.215" in text
    mine, theirs = [1.215, 1.2, 1.197, 1.1975, 1.198], [1.23, 1.18, 1.16, 1.16, 1.16]
    rho = stats.spearmanr(mine, theirs).statistic
    agreement = f"over the 5 ranks of both Spearman's rho of the two is {rho:.2f}"
    assert f"The paper's is best at r = 16, 32, 64, 128, 256, 512; {agreement}" in text
    assert "The paper's is best at r = 4;" in text
    assert "Minus lora (r=4, alpha=32, q+v):" in text
    assert "(validation loss by rate: 0.001: 1.200, 0.01: 1.300): **0.001** is used. It is at the edge" in text


def test_without_the_papers_best_rank_the_smallest_is_the_reference() -> None:
    cells = pd.DataFrame({"label": "lora", "settings": ["r=2, q+v", "r=8, q+v"]})
    assert rank_generation.reference_rank(cells) == {"r=2": ("lora", "r=2, q+v")}


def test_a_method_without_a_rank_is_refused(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(E2E, method=FULL)
    store(E2E, method=LORA)
    with pytest.raises(InputError, match=r"a run without one rank, full; delete"):
        rank_generation.STUDY.build(study_dir, runs_dir)


def test_two_runs_of_one_seed_are_refused(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(E2E, method=LORA, lr=1e-3)
    store(E2E, method=LORA, lr=2e-3)
    with pytest.raises(InputError, match="same seed with different settings"):
        table3.STUDY.build(study_dir, runs_dir)

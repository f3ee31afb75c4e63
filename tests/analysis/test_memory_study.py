"""The study of memory, from made-up measurements and plans."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from measured_files import write

from analysis import study
from analysis.studies.memory import options as memory_options
from analysis.studies.memory import picture
from analysis.studies.memory import study as memory
from analysis.studies.memory import tables as memory_tables
from experiments.measure.memory.schemas import OPTIONS, PLAN
from lora.config import InputError

STUDY = "memory"
GB = 10**9
KINDS = {
    "weights": 13.5, "master": 0.0, "gradients": 0.1, "optimizer": 0.2, "activations": 3.0, "logits": 1.0,
    "temporary": 0.0,
}  # fmt: skip
SETUP = {
    "method": "lora", "settings": "r=8, q+v", "quantization": "", "precision": "bf16", "batch": 4, "length": 128,
    "targets": "127", "checkpointing": False, "state_precision": "", "device": "cpu",
}  # fmt: skip


def measured() -> pd.DataFrame:
    rows = [
        SETUP | {"model": model, "method": method, "settings": settings, "predicted_peak": int(size * factor),
                 "measured_peak": int(size), "resident_peak": int(2 * size), "resident_before": GB // 10}
        for model, method, settings, size, factor in (
            ("smollm2", "lora", "r=8, q+v", 1.1 * GB, 0.98), ("smollm2", "full", "", 2.2 * GB, 1.3),
            ("minilm", "lora", "r=8, q+v", 0.2 * GB, 1.02), ("minilm", "full", "", 0.5 * GB, 0.905),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def options(rounds: int = 5) -> pd.DataFrame:
    """A machine that slows down; checkpointing takes 1.3 times as long and half the memory."""
    random = np.random.default_rng(0)
    rows = [
        (model, option, index, 2.0**index * factor * (1 + noise * random.standard_normal()), int(share * GB))
        for model, noise in (("smollm2", 0.0), ("minilm", 0.02))
        for option, factor, share in (("none", 1.0, 1.0), ("checkpointing", 1.3, 0.5), ("bf16 moments", 0.98, 0.9))
        for index in range(rounds)
    ]
    frame = pd.DataFrame(rows, columns=["model", "option", "round", "seconds", "peak"])
    return frame.assign(batch=8, length=64, precision="bf16")


def plans() -> pd.DataFrame:
    rows = []
    for model, scale in (("llama-7b", 1.0), ("smollm2", 0.02)):
        for title, more in (("full, AMP", 8.0), ("LoRA", 1.0), ("QLoRA, 4 bits", 0.3)):
            for again in (False, True):
                kinds = {kind: int(size * GB * scale * more) for kind, size in KINDS.items()}
                rows.append(
                    SETUP | kinds | {"title": title, "model": model, "checkpointing": again, "total_params": 7 * GB,
                    "trainable_params": 2 * 10**7, "checkpoint_bytes": 4 * 10**7, "notes": "",
                    "peak": int(0.9 * sum(kinds.values()))}
                )  # fmt: skip
    return pd.DataFrame(rows)


def published() -> pd.DataFrame:
    rows = [
        {"method": method, "bits": bits, "size": size, "model": model, "ours": ours, "batch": 1, "length": 1024,
         "theirs": theirs * GB, "peak": int(theirs * GB * ratio), "ratio": ratio, "why": f"because of {ours}"}
        for size, model in (("7B", "llama-7b"), ("70B", "llama-70b"))
        for method, bits, ours, theirs, ratio in (
            ("Full AMP", "AMP", "full, AMP", 120, 0.9), ("LoRA/GaLore/BAdam", "16", "LoRA", 16, 1.1),
            ("LoRA/GaLore/BAdam", "16", "BAdam", 16, 1.2), ("QLoRA", "4", "QLoRA, 4 bits", 6, 0.8),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def paper_figures() -> pd.DataFrame:
    rows = [
        ("checkpoint, LoRA", "LoRA, section 4.2", "MB", 35, 37.7, 37.7 / 35, "A and B in 16 bits"),
        ("fewer bytes", "guides", "%", 99.22, 99.21875, 1.0, "1 - 2 r / d"),
    ]
    return pd.DataFrame(rows, columns=["quantity", "source", "unit", "theirs", "ours", "ratio", "how"])


def fits() -> pd.DataFrame:
    rows = []
    for model in ("llama-7b", "own/model"):
        for method, power in (("full, AMP", 0), ("LoRA", 1), ("QLoRA, 4 bits", 4)):
            for again in (False, True):
                shared = {"model": model, "positions": 4096, "method": method, "checkpointing": again, "reserve": 1.0}
                for card in (16.0, 80.0):
                    batches = {
                        length: int(power * card * 1024 / length * (1 + 9 * again)) for length in (512, 2048, 8192)
                    }
                    rows += [
                        shared | {"card": card, "asked": "batch", "length": length, "batch": batch}
                        for length, batch in batches.items()
                    ]
                    rows.append(
                        shared | {"card": card, "asked": "length", "length": 64 * power * int(card), "batch": 1}
                    )
    return pd.DataFrame(rows)


MADE = (measured, options, plans, published, paper_figures, fits)


@pytest.fixture
def stored(study_dir: Path) -> Path:
    for schema, made in zip(memory.FILES, MADE, strict=True):
        write(made(), study_dir, schema)
    (study_dir / "machine.json").write_text(json.dumps({"processor": "Quick 9000", "torch": "2.13"}))
    return study_dir


def test_build_writes_tables_and_figures(stored: Path, runs_dir: Path) -> None:
    paths = study.run_study(stored, runs_dir)[:-1]
    assert [path.name for path in paths] == [
        "table.csv", "table.md", "measured.png", "bytes_llama-7b.png", "bytes_smollm2.png", "published.png",
        "fits_llama-7b.png", "fits_own_model.png", "options.png",
    ]  # fmt: skip
    assert all(path.stat().st_size > 10_000 for path in paths if path.suffix == ".png")
    text = (stored / "table.md").read_text()
    assert (
        "Of 4 measured steps 3 were predicted within 10%" in text
        and "worst +30% (smollm2: full, bf16, 4 × 128)" in text
    )
    assert "nan" not in text and "because of QLoRA, 4 bits" in text
    assert "- processor: Quick 9000" in text and "- device: None" in text
    table = pd.read_csv(stored / "table.csv")
    assert table["part"].value_counts().to_dict() == {
        "LLaMA-Factory": 8, "measured": 4, "LoRA, section 4.2": 1, "guides": 1,
    }  # fmt: skip
    assert (table["ratio"] > 0).all()


def test_the_study_runs_from_the_command_and_again_only_after_a_change(stored: Path, runs_dir: Path) -> None:
    study.run_study(stored, runs_dir)
    first = (stored / "table.md").stat().st_mtime_ns
    study.run_study(stored, runs_dir)
    assert (stored / "table.md").stat().st_mtime_ns == first
    write(options(rounds=3), stored, OPTIONS)
    study.run_study(stored, runs_dir)
    assert (stored / "table.md").stat().st_mtime_ns > first
    assert json.loads((stored / "provenance.json").read_text())["trainings"] == []


@pytest.mark.parametrize("name", memory.STUDY.reads)
def test_missing_and_damaged_files_are_named(stored: Path, runs_dir: Path, name: str) -> None:
    (stored / name).write_text("model\nx\n")
    with pytest.raises(InputError, match=rf"{name} is damaged.*; delete .*, `make memory PRESET=quick` m.* again"):
        study.run_study(stored, runs_dir)
    (stored / name).unlink()
    with pytest.raises(InputError, match=rf"no {name}; `make memory PRESET=quick`"):
        study.run_study(stored, runs_dir)


def test_slow_downs_are_taken_within_a_round() -> None:
    saved = memory_options.savings(options()).set_index(["model", "option"])
    own = saved.loc[("smollm2", "checkpointing")]
    assert own["saving"] == pytest.approx(0.5)
    assert own["slowdown"] == pytest.approx(0.3) and own["slowdown_median"] == pytest.approx(0.3)
    assert own["interval"] == pytest.approx(0, abs=1e-9)
    assert saved.loc[("minilm", "checkpointing"), "interval"] > 0.01
    assert saved.loc[("smollm2", "none"), "slowdown"] == 0


def test_a_single_round_has_no_interval(stored: Path, runs_dir: Path) -> None:
    write(options(rounds=1), stored, OPTIONS)
    study.run_study(stored, runs_dir)
    text = (stored / "table.md").read_text()
    assert "| +30.0% (+30.0)" in text and "nan" not in text


def test_the_worst_prediction_comes_first() -> None:
    table = memory_options.table(measured())
    assert table["deviation"].tolist() == ["+30%", "-9.5%", "-2%", "+2%"]
    assert table.loc[table.index[0], "setup"] == "full, bf16, 4 × 128"


def test_llama_factorys_layout_has_a_row_a_method_and_a_column_a_size() -> None:
    table = memory_tables.published(published())
    assert list(table.columns) == ["LLaMA-Factory", "planned", "7B", "70B"]
    assert table.loc[2].tolist() == ["LoRA/GaLore/BAdam, 16", "BAdam", "16 / 19.2 (1.20)", "16 / 19.2 (1.20)"]


def test_what_fits_is_a_row_a_method_and_a_column_a_card() -> None:
    table = memory_tables.fits(fits().query("model == 'llama-7b'"))
    assert list(table.columns) == ["method", "checkpointing", "16 GiB", "80 GiB"]
    rows = table.set_index(["method", "checkpointing"])
    assert rows.loc[("full, AMP", "no"), "16 GiB"] == "– / – / –, –"
    assert rows.loc[("LoRA", "yes"), "16 GiB"] == "320 / 80 / 20, 1,024"


def test_a_method_has_its_bytes_by_kind() -> None:
    table = memory_tables.methods(plans().query("model == 'llama-7b' and checkpointing")).set_index("method")
    assert len(table) == 3
    assert table.loc["LoRA", "weights"] == "13.5 GB" and table.loc["LoRA", "peak"] == "16.0 GB"
    assert table.loc["LoRA", "trained"] == "20,000,000 (0.29%)"


@pytest.fixture
def draw(tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    from analysis.studies.memory.draw import draw_bytes

    return lambda frame: draw_bytes({"one": frame}, tmp_path / "plan.png")


def test_one_plan_alone_is_drawn_with_its_methods_name(draw: Callable[[pd.DataFrame], Path]) -> None:
    assert draw(plans().drop(columns="title").head(1)).stat().st_size > 10_000


def test_a_plan_is_drawn_where_it_was_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = plans()
    write(own[own["model"] == "llama-7b"].drop(columns="title"), tmp_path, PLAN)
    assert picture.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'plan.png'}\n"
    assert (tmp_path / "plan.png").stat().st_size > 10_000


@pytest.mark.parametrize("content", [None, "", "setup,model\nx,y\n"])
def test_what_is_no_plan_is_one_line(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "plan.csv").write_text(content)
    assert picture.main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"{tmp_path / 'plan.csv'} is no plan (" in err and err.count("\n") == 1

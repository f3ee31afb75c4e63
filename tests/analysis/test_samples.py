import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.kit import naming, samples, tables
from lora.config import InputError

STUDY = "table3"
REFERENCES = [["The Vaults is a pub."], ["Clowns, by the river.", "Clowns is by the river."], ["a"] * 5]
FULL = {"name": "full"}


@pytest.fixture
def store(make_run: Callable[..., str], runs_dir: Path) -> Callable[..., Path]:
    """Stores a run with what it wrote for the three inputs; returns its folder."""

    def make(outputs: list[str], prompts: list[str] | None = None, references: Any = None, **run: Any) -> Path:
        folder = runs_dir / make_run(task="e2e", **run)
        prompts = prompts or [f"name[{place}]\nText:" for place in "abc"]
        rows = zip(prompts, references or REFERENCES, outputs, strict=True)
        lines = [json.dumps({"prompt": prompt, "references": texts, "output": text}) for prompt, texts, text in rows]
        (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
        return folder

    return make


def write(study_dir: Path, runs_dir: Path, count: int = 8) -> tuple[str, pd.DataFrame]:
    final = tables.in_role(naming.arranged(tables.load_runs(study_dir, runs_dir)), "study")
    paths = samples.write(final, runs_dir, study_dir, count)
    assert [path.name for path in paths] == ["samples.md", "samples.csv"]
    return paths[0].read_text(), pd.read_csv(paths[1], keep_default_na=False)


def test_each_method_at_its_first_seed_in_the_order_of_methods(
    store: Callable[..., Path], study_dir: Path, runs_dir: Path
) -> None:
    store(["lora seed 2", "x", "y"], seed=2)
    store(["lora seed 1", "x", ""], seed=1)
    store(["full seed 0", "a_b *c* <d> _e_", "two\nlines"], seed=0, method=FULL)
    text, table = write(study_dir, runs_dir)
    assert table["output"].tolist() == ["full seed 0", "lora seed 1", "a_b *c* <d> _e_", "x", "two\nlines", ""]
    assert table["seed"].tolist() == [0, 1] * 3
    assert table["example"].tolist() == [1, 1, 2, 2, 3, 3]
    assert [json.loads(found) for found in table["references"][::2]] == REFERENCES
    assert "> name[a]\\\n> Text:\n\n- reference: The Vaults is a pub.\n- **full** (seed 0): full seed 0\n" in text
    assert r": a_b \*c\* \<d> \_e\_" in text
    assert "two lines\n" in text
    assert "- **lora (r=8, q+v)** (seed 1): *(nothing)*" in text
    assert "- … and 2 more references" in text


def test_the_first_inputs_and_no_others(store: Callable[..., Path], study_dir: Path, runs_dir: Path) -> None:
    store(["best", "middling", "worst"])
    text, table = write(study_dir, runs_dir, count=2)
    assert table["output"].tolist() == ["best", "middling"]
    assert "worst" not in text


def test_of_inputs_with_and_without_demonstrations_the_shorter_is_shown(
    store: Callable[..., Path], study_dir: Path, runs_dir: Path
) -> None:
    store(["0", "1", "2"], prompts=["demonstrations\nname[a]", "name[b]", "name[c]" * 200], method=FULL)
    store(["0", "1", "2"], prompts=["name[a]", "demonstrations\nname[b]", "name[c]" * 200])
    text, table = write(study_dir, runs_dir)
    assert table["input"].unique().tolist() == ["name[a]", "name[b]", "name[c]" * 200]
    assert "demonstrations\\\n" not in text
    assert f"> {('name[c]' * 200)[:800]} …\n" in text


def test_groups_are_told(store: Callable[..., Path], study_dir: Path, runs_dir: Path) -> None:
    path = store(["0", "1", "2"]) / "predictions.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    grouped = [entry | {"group": group} for entry, group in zip(entries, ("seen", "unseen", "seen"), strict=True)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in grouped))
    text, table = write(study_dir, runs_dir)
    assert table["group"].tolist() == ["seen", "unseen", "seen"]
    assert "### 2 (unseen)" in text


def test_runs_of_other_test_data_are_refused(store: Callable[..., Path], study_dir: Path, runs_dir: Path) -> None:
    store(["0", "1", "2"])
    store(["0", "1", "2"], references=REFERENCES[::-1], method=FULL)
    with pytest.raises(InputError, match=r"sweep\.jsonl were tested on different inputs"):
        write(study_dir, runs_dir)


@pytest.mark.parametrize("content", [None, "{", '{"prompt": "a", "output": "b"}', '{"references": ["a"]}', "[1]"])
def test_a_run_without_readable_predictions_is_named(
    content: str | None, store: Callable[..., Path], study_dir: Path, runs_dir: Path
) -> None:
    path = store(["0", "1", "2"]) / "predictions.jsonl"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=r"predictions\.jsonl is missing or damaged .*make table3 PRESET=quick"):
        write(study_dir, runs_dir)

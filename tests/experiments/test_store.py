import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.manifest import verify
from experiments.store import Store, definition, run_id
from lora.config import InputError


def config(**changes: Any) -> dict[str, Any]:
    whole = {
        "model": {"name": "minilm", "path": "asset:minilm"},
        "task": {"name": "bbc_news", "family": "bbc_news"},
        "method": {"name": "lora", "r": 8},
        "training": {"lr": 1e-3},
        "seed": 0,
        "runtime": {"threads": 2},
        "results_dir": "results",
    }
    return whole | changes


def write(store: Store, identifier: str) -> None:
    with store.writing(identifier, {"seed": 0}) as folder:
        (folder / "metrics.json").write_text('{"main_metric": "f1", "metrics": []}')
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights").write_bytes(b"12345")


def test_run_id_is_of_what_defines_the_result_only() -> None:
    one = run_id(definition(config()))
    assert len(one) == 12
    assert one == run_id(definition(dict(reversed(config().items()))))
    assert one == run_id(definition(config(runtime={"threads": 1}, results_dir="elsewhere")))
    assert one == run_id(definition(config(training={"lr": 1e-3, "head_lr": None})))
    for change in (
        {"seed": 1},
        {"training": {"lr": 1e-3, "head_lr": 1e-2}},
        {"method": {"name": "lora", "r": 4}},
        {"training": {"lr": 2e-3}},
    ):
        assert run_id(definition(config(**change))) != one


def test_the_users_data_count_by_content(tmp_path: Path) -> None:
    def identifier(path: Path) -> str:
        return run_id(definition(config(task={"name": "mine", "family": "local", "path": str(path)})))

    here, there = tmp_path / "a.csv", tmp_path / "elsewhere" / "a.csv"
    there.parent.mkdir()
    for path in (here, there):
        path.write_text("text,label\nx,1\n")
    assert identifier(here) == identifier(there)
    before = identifier(here)
    here.write_text("text,label\nx,2\n")
    assert identifier(here) != before
    with pytest.raises(InputError, match=r"no file or folder .*none\.csv"):
        identifier(tmp_path / "none.csv")


def test_weights_in_the_middle_of_a_file_count(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "model.safetensors"
    file.parent.mkdir()
    whole = bytearray(3 * 2**20)
    file.write_bytes(whole)
    one = run_id(definition(config(model={"name": "mine", "path": str(file.parent)})))
    whole[len(whole) // 2] = 1
    file.write_bytes(whole)
    assert run_id(definition(config(model={"name": "mine", "path": str(file.parent)}))) != one


def test_the_users_model_counts_by_content(tmp_path: Path) -> None:
    def identifier(path: Path) -> str:
        return run_id(definition(config(model={"name": "mine", "path": str(path)})))

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    assert identifier(tmp_path / "a") == identifier(tmp_path / "b")
    unnamed = [{"name": str(path), "path": str(path)} for path in (tmp_path / "a", tmp_path / "b")]
    assert [definition(config(model=model))["model"]["name"] for model in unnamed] == ["a", "b"]
    (tmp_path / "b" / "model.safetensors").write_bytes(b"Weights")
    assert identifier(tmp_path / "a") != identifier(tmp_path / "b")


def test_a_run_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    with pytest.raises(ZeroDivisionError), store.writing("abc", {"seed": 0}) as folder:  # noqa: PT012
        (folder / "history.csv").write_text("step\n1\n")
        assert "abc" not in store
        1 / 0  # noqa: B018
    assert "abc" not in store
    assert (store.failure("abc") / "history.csv").read_text() == "step\n1\n"
    write(store, "abc")
    assert "abc" in store
    assert not store.failure("abc").exists()
    assert sorted(path.name for path in store.root.iterdir()) == ["abc"]


def test_what_a_killed_process_left_is_no_run_and_is_cleared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    left = tmp_path / ".abc.x1y2"
    left.mkdir()
    (left / "metrics.json").write_text("{}")
    assert "abc" not in store
    write(store, "abc")
    assert "abc" in store
    assert not left.exists()


def test_a_run_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    here, there = Store(tmp_path), Store(tmp_path)
    with here.claim("abc") as mine, there.claim("abc") as theirs, there.claim("abd") as another:
        assert (mine, theirs, another) == (True, False, True)
        assert there.claimed("abc")
    assert not there.claimed("abc")
    with there.claim("abc") as mine:
        assert mine


def test_the_claim_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    code = """
import os, sys
from experiments.store import Store
from pathlib import Path
with Store(Path(sys.argv[1])).claim("abc") as mine:
    os._exit(0 if mine else 1)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
    assert list((tmp_path / ".leases").glob("abc")), "it did not say that it ended"
    with Store(tmp_path).claim("abc") as mine:
        assert mine


def damages(folder: Path) -> dict[str, Callable[[], object]]:
    return {
        "metrics.json emptied": lambda: (folder / "metrics.json").write_text(""),
        "metrics.json cut": lambda: (folder / "metrics.json").write_text('{"main_me'),
        "metrics.json a list": lambda: (folder / "metrics.json").write_text("[]"),
        "metrics.json not UTF-8": lambda: (folder / "metrics.json").write_bytes(b"\xff\xfe{}"),
        "metrics.json other": lambda: (folder / "metrics.json").write_text('{"main_metric": "f2", "metrics": []}'),
        "config.yaml gone": lambda: (folder / "config.yaml").unlink(),
        "config.yaml no mapping": lambda: (folder / "config.yaml").write_text("- 1"),
        "a weight gone": lambda: (folder / "adapter" / "weights").unlink(),
        "a weight cut": lambda: (folder / "adapter" / "weights").write_bytes(b"1"),
        "manifest no JSON": lambda: (folder / "manifest.json").write_text("{"),
    }


@pytest.mark.parametrize("what", damages(Path()))
def test_a_damaged_run_is_set_aside_and_can_be_written_again(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    write(store, "abc")
    assert store.holds("abc", weights=True)
    damages(store.folder("abc"))[what]()
    assert not store.holds("abc")
    assert "run abc is damaged (" in capsys.readouterr().out
    assert (tmp_path / "abc.damaged-1").is_dir() and "abc" not in store
    write(store, "abc")
    assert store.holds("abc")


def test_a_changed_byte_of_a_weight_is_found_by_its_hash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, "abc")
    assert verify(store.folder("abc")) == ""
    (store.folder("abc") / "adapter" / "weights").write_bytes(b"98765")
    assert verify(store.folder("abc")) == "adapter/weights has changed"


def test_a_run_without_weights_is_stored_for_who_wants_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing("abc", {"seed": 0}) as folder:
        (folder / "metrics.json").write_text("{}")
    assert store.holds("abc") and not store.holds("abc", weights=True)

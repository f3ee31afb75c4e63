import threading
from pathlib import Path
from typing import Any

import pytest

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


def test_who_comes_second_waits_for_the_run(tmp_path: Path) -> None:
    store, computed = Store(tmp_path), []

    def ensure() -> None:
        with store.lock("abc"):
            if "abc" not in store:
                computed.append(1)
                write(store, "abc")

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [1]

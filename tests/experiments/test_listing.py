import json
from pathlib import Path

import pytest

from experiments import listing
from experiments.listing import SWEEP, RunList


def entry(run_id: str, role: str = "study", **more: str) -> dict[str, str]:
    return {"run_id": run_id, "role": role, **more}


def listed(folder: Path) -> list[str]:
    return [json.loads(line)["run_id"] for line in listing.text(folder).splitlines()]


def test_a_sweep_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    RunList(tmp_path).commit([entry("a"), entry("b")])
    RunList(tmp_path).commit([entry("c")])
    assert listed(tmp_path) == ["c"]


def test_a_sweep_of_a_part_leaves_the_others(tmp_path: Path) -> None:
    RunList(tmp_path).commit([entry("a"), entry("b", error="it failed")])
    RunList(tmp_path, part=True).commit([entry("b"), entry("c")])
    assert listed(tmp_path) == ["b", "c", "a"]
    RunList(tmp_path).commit([entry("c")])
    assert listed(tmp_path) == ["c"]


@pytest.mark.parametrize("first_ends_last", [True, False])
def test_two_sweeps_at_once_keep_what_both_have_done(first_ends_last: bool, tmp_path: Path) -> None:
    RunList(tmp_path).commit([entry("old")])
    first, second = RunList(tmp_path), RunList(tmp_path)
    first.add(entry("a"))
    second.add(entry("b"))
    done = [(second, [entry("b"), entry("both")]), (first, [entry("a"), entry("both")])]
    for sweep, entries in done if first_ends_last else done[::-1]:
        sweep.commit(entries)
    assert sorted(listed(tmp_path)) == ["a", "b", "both"]


def test_a_sweep_that_is_killed_leaves_the_list_as_it_was(tmp_path: Path) -> None:
    RunList(tmp_path).commit([entry("a"), entry("b")])
    RunList(tmp_path).add(entry("c"))
    assert listed(tmp_path) == ["a", "b"]
    first, second = RunList(tmp_path), RunList(tmp_path)
    second.add(entry("d"))  # and is killed
    first.commit([entry("a")])
    assert listed(tmp_path) == ["a"]


def test_the_first_sweep_of_a_study_can_be_read_when_it_was_killed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listing.text(tmp_path)
    assert not listing.exists(tmp_path)
    sweep = RunList(tmp_path)
    sweep.add(entry("a"))
    sweep.add(entry("b", error="the loss is nan"))
    assert listed(tmp_path) == ["a", "b"] and listing.exists(tmp_path)
    RunList(tmp_path).commit([entry("a"), entry("c")])
    assert listed(tmp_path) == ["a", "c"]
    assert [path.name for path in tmp_path.glob("*.jsonl")] == [SWEEP], "what was begun and never ended is gone"


def test_each_run_is_listed_once_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    sweep = RunList(tmp_path)
    for run in ("c", "a", "b"):  # as they end
        sweep.add(entry(run))
    sweep.commit([entry("t", "tuning"), entry("a"), entry("t", "tuning"), entry("b"), entry("t"), entry("c")])
    assert listed(tmp_path) == ["t", "a", "b", "t", "c"]

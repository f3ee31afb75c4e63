import gzip
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import recorded_runs as made
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.records import __main__ as command
from experiments.records import archive
from experiments.records.schema import Predictions, Record
from experiments.records.source import Runs
from experiments.records.sweep import read_sweep
from experiments.records.transfer import merge, pack, unpack
from experiments.store import Store, run_id
from lora.config import InputError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def study(results: Path) -> Path:
    """Two runs, one of them of both roles, one that diverged, and one that could not begin."""
    both, plain, lost = made.store(results, 0), made.store(results, 1, written=10), made.fail(results, 2)
    return made.listed(
        results / "desk" / "init",
        (both, "tuning"),
        (lost, "tuning", "the loss is nan"),
        (plain, "study"),
        (both, "study"),
        ("method=bitfit seed=0", "study", "no biases"),
    )


def facts(runs: Runs) -> dict[str, object]:
    return {
        run.run_id: (list(run.config["method"]["r"].items()), run.config, run.metrics, runs.sweep.roles[run.run_id])
        for run in runs
    }


def test_the_analysis_reads_the_same_of_folders_records_and_unpacked_runs(study: Path, results: Path) -> None:
    runs = Runs(study, results / "runs")
    before, written = facts(runs), [run for run in runs if (run.place / "predictions.jsonl").exists()]
    predictions, histories = written[0].predictions, [run.history() for run in runs]
    pack(study, results / "runs")
    stored = results / "runs"
    stored.rename(results / "away")
    (study / "sweep.jsonl").unlink()
    for step in ("records", "unpacked"):
        if step == "unpacked":
            unpack(study, results)
        found = Runs(study, stored)
        assert facts(found) == before, step
        assert found[written[0].run_id].predictions == predictions
        assert [run.history() for run in found] == histories
        lost = next(name for name, error in found.sweep.failed if error == "the loss is nan")
        failed = found.failed(lost)
        assert failed and failed.config == made.definition(2)
        assert found.sweep.failed == [(lost, "the loss is nan"), ("method=bitfit seed=0", "no biases")]
    assert (stored / f"{lost}.failed" / "diverged.txt").read_text() == "the loss is nan"


def test_what_is_written_is_summarised_by_hand() -> None:
    entries = [
        {"prompt": "one two", "references": ["a", "b"], "output": "x", "group": "seen"},
        {"prompt": "one", "references": ["b"], "output": "y", "group": "unseen"},
        {"prompt": "one two three", "references": ["a"], "output": "", "group": "seen"},
    ]
    assert Predictions.of(entries) == Predictions(3, {"seen": 2, "unseen": 1}, 2 / 3, 2.0, entries)
    assert len(Predictions.of(entries * 5).shown or []) == 8
    with pytest.raises(ValueError, match="no prompt, references or output"):
        Predictions.of([])


def test_packing_is_the_same_bytes_wherever_the_runs_are(study: Path, results: Path, tmp_path: Path) -> None:
    first = pack(study, results / "runs").read_bytes()
    assert pack(study, results / "runs").read_bytes() == first
    shutil.copytree(study, tmp_path / "other" / "desk" / "init")
    unpack(study, tmp_path / "other")
    (tmp_path / "other" / "desk" / "init" / archive.ARCHIVE).unlink()
    assert pack(tmp_path / "other" / "desk" / "init", tmp_path / "other" / "runs").read_bytes() == first
    assert gzip.decompress(first).count(b"\n") == 4


def test_what_is_packed_anew_is_the_last_sweep_alone(results: Path) -> None:
    old, new = made.store(results, 0), made.store(results, 1)
    study = made.listed(results / "desk" / "alpha", (old, "study"))
    pack(study, results / "runs")
    made.listed(study, (new, "study"))
    assert [record.run_id for record in archive.read(pack(study, results / "runs"))] == [new, old]
    assert command.main(["pack", "--anew", str(study)]) == 0
    assert [record.run_id for record in archive.read(study / archive.ARCHIVE)] == [new]


def test_a_study_that_draws_no_curves_keeps_no_history(results: Path) -> None:
    study = made.listed(results / "desk" / "alpha", (made.store(results), "study"))
    (record,) = archive.read(pack(study, results / "runs"))
    assert record.history is None and record.config == made.definition()


def test_two_packs_of_a_study_are_merged_by_run(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    laptop, cluster = tmp_path / "laptop", tmp_path / "cluster"
    for where, seeds, test in ((laptop, (0, 1), 0.8), (cluster, (1, 2), 0.9)):
        ids = [made.store(where, seed, test) for seed in seeds]
        pack(made.listed(where / "desk" / "alpha", *[(one, "study") for one in ids]), where / "runs")
    zero, one, two = (run_id(made.definition(seed)) for seed in range(3))
    assert command.main(["unpack", str(cluster / "desk" / "alpha"), "--results", str(laptop)]) == 0
    said = capsys.readouterr().out
    assert "1 runs stored" in said and f"run {one} is stored with other results, and stays" in said
    assert "test accuracy 0.8 here, 0.9 there" in said
    store = Store(laptop / "runs")
    scores = [{row["split"]: row["value"] for row in store.metrics(each)["metrics"]} for each in (zero, one, two)]
    assert [each["test"] for each in scores] == [0.8, 0.8, 0.9]
    assert [store.has_adapter(each) for each in (zero, one, two)] == [True, True, False]
    study = laptop / "desk" / "alpha"
    assert set(read_sweep(study).roles) == {zero, one, two}
    (study / "sweep.jsonl").unlink()
    assert [record.run_id for record in archive.read(study / archive.ARCHIVE)] == [zero, one, two]
    assert set(read_sweep(study).roles) == {zero, one, two}


def test_a_last_sweep_of_other_runs_loses_no_record(study: Path, results: Path) -> None:
    before = archive.read(pack(study, results / "runs"))
    new = made.store(results, 7)
    made.listed(study, (new, "study"))
    shutil.rmtree(results / "runs" / before[0].run_id)
    found = archive.read(pack(study, results / "runs"))
    assert [record.run_id for record in found] == [new, *(record.run_id for record in before)]
    assert found[1:] == before


def test_a_run_that_is_nowhere_and_one_of_another_config_are_not_packed(study: Path, results: Path) -> None:
    run = next(iter(Runs(study, results / "runs")))
    path = run.place / "config.yaml"
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 3"))
    with pytest.raises(InputError, match=rf"run {run.run_id} .* cannot be packed: its config is that of run"):
        pack(study, results / "runs")
    shutil.rmtree(run.place)
    with pytest.raises(InputError, match=rf"run {run.run_id} .*`make init-study PRESET=desk` trains it"):
        pack(study, results / "runs")
    assert not (study / archive.ARCHIVE).exists()


def rewrite(path: Path, change: dict[int, str]) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("\n".join(change.get(i, line) for i, line in enumerate(lines)).encode()))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda line: line[: len(line) // 2], "the line is damaged"),
        (lambda line: line.replace('"lr":1e-05', '"lr":1e-04'), "its config is that of run"),
        (lambda line: line.replace('"train_seconds":1.5,', ""), "its metrics lack train_seconds"),
        (lambda line: line.replace('"split":"test"', '"split":"tset"'), "its metrics lack the accuracy on test data"),
        (lambda line: line.replace('"value":0.8', '"value":"0.8"'), "no split, metric and number"),
    ],
)
def test_a_wrong_record_is_named_by_its_run(
    damage: object, said: str, study: Path, results: Path, capsys: pytest.CaptureFixture
) -> None:
    path = pack(study, results / "runs")
    assert command.main(["verify", str(study)]) == 0
    line = gzip.decompress(path.read_bytes()).decode().splitlines()[0]
    run = json.loads(line)["run_id"]
    rewrite(path, {0: damage(line)})  # type: ignore[operator]
    capsys.readouterr()
    assert command.main(["verify", str(study)]) == 2
    error = capsys.readouterr().err
    assert f"line 1, run {run}: " in error and said in error
    (study / "sweep.jsonl").unlink()
    with pytest.raises(InputError, match=run):
        read_sweep(study)
    with pytest.raises(InputError, match="nothing was unpacked"):
        unpack(study, results / "elsewhere")
    assert not (results / "elsewhere").exists()


def test_a_file_that_is_cut_short_is_one_line(study: Path, results: Path, capsys: pytest.CaptureFixture) -> None:
    path = pack(study, results / "runs")
    path.write_bytes(path.read_bytes()[:-9])
    assert command.main(["verify", str(study)]) == 2
    assert "cut short or damaged" in capsys.readouterr().err
    assert command.main(["verify", str(results / "desk" / "none")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_records_are_stored_runs_for_a_sweep_but_have_no_weights(study: Path, results: Path) -> None:
    pack(study, results / "runs")
    shutil.rmtree(results / "runs")
    result = unpack(study, results)
    store = Store(results / "runs")
    assert all(store.holds(one) and not store.holds(one, weights=True) for one in result.new)
    again = unpack(study, results)
    assert (again.new, again.known, again.other) == ([], result.new, [])


texts = st.text(max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)


@st.composite
def records(draw: st.DrawFn) -> Record:
    seed = draw(st.integers(0, 20))
    roles = draw(st.sampled_from([("study",), ("tuning",), ("study", "tuning")]))
    config = made.definition(seed, lr=draw(st.sampled_from([1e-5, 3e-4, 1])), note=draw(texts))
    rows = [{"split": "test", "metric": "accuracy", "value": draw(numbers)}]
    metrics = {
        "trainable_params": 1, "train_seconds": draw(numbers), "tokens_per_second": None, "peak_memory_bytes": 0,
        "main_metric": "accuracy", "metrics": rows, "note": draw(texts),
    }  # fmt: skip
    history = draw(st.none() | st.dictionaries(texts, st.lists(texts, max_size=3), max_size=3))
    entry = {"prompt": draw(texts), "references": [draw(texts)], "output": draw(texts)}
    predictions = draw(st.none() | st.just(Predictions.of([entry])))
    return Record(run_id(config), roles, config, metrics, history=history, predictions=predictions)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records(), min_size=1, max_size=5, unique_by=lambda record: record.run_id))
def test_any_records_come_back_as_they_were(tmp_path: Path, given_records: list[Record]) -> None:
    for record in given_records:
        assert Record.parse(record.line()) == record
    path = tmp_path / hashlib.sha256(repr(given_records).encode()).hexdigest()[:16] / archive.ARCHIVE
    archive.write(path, given_records)
    assert archive.read(path) == given_records
    content = path.read_bytes()
    archive.write(path, given_records)
    assert path.read_bytes() == content
    stored = yaml.safe_load(yaml.safe_dump(given_records[0].config, sort_keys=False))
    assert run_id(stored) == given_records[0].run_id


@settings(max_examples=60, deadline=None)
@given(*[st.lists(records(), max_size=4, unique_by=lambda record: record.run_id)] * 2)
def test_a_merge_has_every_run_once_and_ours_where_both_have_it(ours: list[Record], theirs: list[Record]) -> None:
    merged = {record.run_id: record for record in merge(ours, theirs)}
    assert merged.keys() == {record.run_id for record in [*ours, *theirs]}
    first = {record.run_id: record for record in reversed([*ours, *theirs])}
    for name, record in merged.items():
        assert record.metrics == first[name].metrics
        assert set(record.roles) == {r for one in [*ours, *theirs] if one.run_id == name for r in one.roles}

"""Runs into records and out of them: pack, unpack, merge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.listing import SWEEP
from experiments.places import study_of
from experiments.records import archive
from experiments.records.schema import DRAWN, HASHED, Record
from experiments.records.source import Run, Runs
from experiments.records.sweep import Sweep, listed_here
from experiments.store import DIVERGED, RECORD, Store
from lora.config import InputError


def pack(study_dir: Path, runs_dir: Path, anew: bool = False) -> Path:
    """Writes the records of a study, and returns where they are.

    Of the runs that its list names, from their folders where these are; and of those that are recorded already, which
    stay as they are, unless `anew`: nothing is lost if the last sweep was of other runs. Raises InputError if a run
    that is listed is neither stored nor recorded, or is damaged or wrong.
    """
    runs = Runs(study_dir, runs_dir)
    found = [_of_run(run, tuple(sorted(runs.sweep.roles[run.run_id])), study_of(study_dir)) for run in runs]
    found += [_of_failed(runs, *failed) for failed in runs.sweep.failed]
    for record in found:
        fault = record.fault()
        if fault:
            raise InputError(f"run {record.run_id} of {study_dir} cannot be packed: {fault}")
    path = study_dir / archive.ARCHIVE
    archive.write(path, found if anew else merge(found, archive.read(path), roles=False))
    return path


def _of_run(run: Run, roles: tuple[str, ...], study: str) -> Record:
    if run.record:
        return replace(run.record, roles=roles)
    history = run.history() if study in DRAWN and (run.place / "history.csv").is_file() else None
    predictions = run.predictions if (run.place / "predictions.jsonl").is_file() else None
    return Record(
        run.run_id, roles, run.config, run.metrics, history=history, predictions=predictions, items=run.packed_items
    )


def _of_failed(runs: Runs, run_id: str, error: str) -> Record:
    run = runs.failed(run_id)
    if run is None:
        return Record(run_id, (), error=error)
    diverged = run.record.diverged if run.record else (run.place / DIVERGED).is_file()
    return Record(run_id, (), run.config, error=error, diverged=diverged)


def merge(ours: Iterable[Record], theirs: Iterable[Record], roles: bool = True) -> list[Record]:
    """One list of both: of a run that is in both, ours, but one that failed gives way to one that did not.

    roles: a run has the roles of both; otherwise those of ours.
    """
    merged = {record.run_id: record for record in ours}
    for record in theirs:
        known = merged.get(record.run_id)
        if known is None or (known.error is not None and record.error is None):
            merged[record.run_id] = record
        elif roles:
            merged[record.run_id] = replace(known, roles=tuple(sorted({*known.roles, *record.roles})))
    return list(merged.values())


class Unpacked(NamedTuple):
    """What became of a study's records: run_ids of those stored now, those that were, and, of the latter, those stored
    with other results, with what differs."""

    new: list[str]
    known: list[str]
    other: list[tuple[str, str]]


def unpack(study_dir: Path, results_dir: Path) -> Unpacked:
    """Stores the runs of study_dir/records.jsonl.gz in results_dir/runs, each in a folder without an adapter, and lists
    them in the same study of results_dir.

    A run that is stored there stays as it is, and one that is being computed there is left to that. Raises InputError
    if the records are missing or damaged.
    """
    source = study_dir / archive.ARCHIVE
    records, faults = archive.scan(source)
    if faults:
        raise InputError(f"{faults[0]}; nothing was unpacked")
    store = Store(results_dir / "runs")
    result = Unpacked([], [], [])
    for record in records:
        if record.error is not None:
            _store_failed(store, record)
        elif not store.holds(record.run_id) and _store(store, record):
            result.new.append(record.run_id)
        elif record.run_id in store:
            result.known.append(record.run_id)
            changed = _changes(store.metrics(record.run_id), record.metrics or {})
            result.other.extend([(record.run_id, changed)] if changed else [])
    _list(results_dir / study_dir.parent.name / study_dir.name, records)
    return result


def _store(store: Store, record: Record) -> bool:
    """False if another process computes this run now."""
    with store.claim(record.run_id) as free:
        if free:
            with store.writing(record.run_id, record.config or {}) as folder:
                (folder / "metrics.json").write_text(json.dumps(record.metrics, indent=1), encoding="utf-8")
                (folder / RECORD).write_text(record.line() + "\n", encoding="utf-8")
    return free


def _store_failed(store: Store, record: Record) -> None:
    """What a failed run has left: its config, and that it would diverge again."""
    place = store.failure(record.run_id)
    if record.config is None or not HASHED.fullmatch(record.run_id) or place.exists() or record.run_id in store:
        return
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(yaml.safe_dump(record.config, sort_keys=False), encoding="utf-8")
    if record.diverged:
        (place / DIVERGED).write_text(str(record.error), encoding="utf-8")


def _changes(here: dict[str, Any], there: dict[str, Any]) -> str:
    """How the results of a run that is stored differ from those of its record, or "" if they do not."""
    ours, theirs = (
        {f"{row['split']} {row['metric']}": row["value"] for row in found.get("metrics", [])} for found in (here, there)
    )
    texts = [
        f"{name} {_number(ours.get(name))} here, {_number(theirs.get(name))} there"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
    others = [name for name in sorted({*here, *there} - {"metrics"}) if here.get(name) != there.get(name)]
    if others and not texts:
        texts = [f"the same scores, but not {', '.join(others)}"]
    return "; ".join(texts)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _list(study_dir: Path, records: list[Record]) -> None:
    """Adds records to what a study lists: to its records, and to the list of its last sweep if there was one."""
    path = study_dir / archive.ARCHIVE
    merged = merge(archive.read(path), records)
    if merged != archive.read(path):
        archive.write(path, merged)
    listed = listed_here(study_dir)
    if listed is not None and (study_dir / SWEEP).exists():  # what a killed sweep has left, the next one lists
        with (study_dir / SWEEP).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for record in records for entry in _new_lines(listed, record))


def _new_lines(listed: Sweep, record: Record) -> Iterator[dict[str, str]]:
    if record.error is not None:
        if record.run_id not in listed.roles and record.run_id not in dict(listed.failed):
            yield {"run_id": record.run_id, "role": "study", "error": record.error}
        return
    for role in sorted({*record.roles} - listed.roles.get(record.run_id, set())):
        yield {"run_id": record.run_id, "role": role}

"""Runs, stored by what defines them: results/runs/<run_id>/, written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import SoftFileLease, Timeout

from experiments import progress, tasks
from experiments.manifest import MANIFEST, damage, digest, seal, sync
from experiments.paths import user_path, write
from lora.config import InputError

RECIPE = 1  # part of every run_id: raise it when the same config would from now on give another result
DEFINING = ("model", "task", "method", "training", "seed")


def definition(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that defines a run's result. The user's own files count by content, not place, and
    a training field, a model's quantization, or one of a task's OPTIONAL fields that is null does not count.

    A precision that is asked for counts: fp32 and bf16 give tensors that differ by several per cent. `auto` does not:
    it asks for the run, in whichever of the two the machine is fast at, and metrics.json says which that was.

    Raises InputError for a data file or folder that is not there.
    """
    defined = {key: config[key] for key in DEFINING} | {"recipe": RECIPE}
    defined["training"] = {key: value for key, value in config["training"].items() if value is not None}
    model = {key: value for key, value in config["model"].items() if key != "quantization" or value is not None}
    defined["model"] = model
    task = tasks.resolve(config["task"])
    defined["task"] = {
        key: value for key, value in task.items() if "data_sha256" not in task or key not in tasks.PATH_FIELDS
    }
    precision = config.get("runtime", {}).get("precision", "auto")
    if precision != "auto":
        defined["precision"] = precision
    folder = user_path(model["path"])
    if folder.is_dir():
        name = folder.name if model["name"] == model["path"] else model["name"]
        defined["model"] = {**model, "name": name, "path": f"fingerprint:{fingerprint(folder)}"}
    return defined


def fingerprint(folder: Path) -> str:
    """Hash of a model folder: the place in it and the content of each file."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            status = file.stat()
            digest.update(
                f"{file.relative_to(folder)}\0{_content(file, status.st_size, status.st_mtime_ns)}\0".encode()
            )
    return digest.hexdigest()[:16]


@functools.cache  # a sweep asks for every run, and weights run to gigabytes
def _content(file: Path, size: int, changed: int) -> str:
    return digest(file)


def run_id(defined: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON of a definition."""
    canonical = json.dumps(defined, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


DIVERGED = "diverged.txt"  # in the folder of a failed run: why
RECORD = "record.json"  # in the folder of a run that was unpacked from a study's records: all that is known of it
LEASE_SECONDS = 60.0  # without a sign of life for so long, who computes a run on another machine counts as gone


class DivergedError(InputError):
    """Training stopped because the loss was not finite."""


def store_of(results_dir: str) -> Store:
    """The store of the runs of a folder of results."""
    return Store(Path(results_dir) / "runs")


class Store:
    """The folder of all runs. Safe for many processes and machines: who computes a run has claimed it, by a lease.

    A lease is a file with a sign of life in it, not a lock of the file system: those do not reach from one machine to
    another on some shared file systems.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._watched: dict[str, SoftFileLease] = {}

    def folder(self, identifier: str) -> Path:
        """Where a run is, or would be."""
        return self.root / identifier

    def failure(self, identifier: str) -> Path:
        """Where the history of a run that failed is, or would be."""
        return self.root / f"{identifier}.failed"

    def checkpoint(self, identifier: str) -> Path:
        """Where a run that is under way keeps what it needs to go on after a kill (`runtime.checkpoint_every`)."""
        return self.root / ".resume" / f"{identifier}.pt"

    def __contains__(self, identifier: str) -> bool:
        return (self.folder(identifier) / "metrics.json").is_file()

    def holds(self, identifier: str, weights: bool = False) -> bool:
        """True if a run is stored, whole, and with all that it trained where `weights` are wanted.

        A run that is damaged is set aside, with a line, and counts as not stored: it will be computed anew.
        """
        if identifier not in self:
            return False
        folder = self.folder(identifier)
        damaged = damage(folder)
        if damaged:
            aside = self._aside(identifier)
            with suppress(FileNotFoundError):  # another process has done the same
                folder.rename(aside)
                progress.report(f"run {identifier} is damaged ({damaged}): set aside as {aside}, computed anew")
            return False
        return not weights or (folder / "adapter").is_dir()

    def _aside(self, identifier: str) -> Path:
        number = 1
        while (place := self.root / f"{identifier}.damaged-{number}").exists():
            number += 1
        return place

    def has_adapter(self, identifier: str) -> bool:
        """True for a stored run that can be measured: not one unpacked from records, nor one whose adapter was pruned.
        Tables need no adapter, so that a sweep does not compute such a run again; if it is deleted, it does."""
        return identifier in self and (self.folder(identifier) / "adapter").is_dir()

    def remove(self, folder: Path) -> None:
        """Removes the folder of a run, or `adapter` in it: then the run stays whole, without it."""
        run = folder.parent
        if run != self.root and (run / MANIFEST).exists():
            listed = json.loads((run / MANIFEST).read_bytes())
            kept = {name: entry for name, entry in listed.items() if not name.startswith(f"{folder.name}/")}
            write(run / MANIFEST, json.dumps(kept, indent=0))
        # Renamed first: what is cut off half-way must not pass for an adapter or a run.
        gone = self.root / f".{(folder if run == self.root else run).name}.removed"
        folder.rename(gone)
        shutil.rmtree(gone)

    def metrics(self, identifier: str) -> dict[str, Any]:
        """metrics.json of a stored run."""
        return json.loads((self.folder(identifier) / "metrics.json").read_text())

    def main_scores(self, identifier: str) -> dict[str, float]:
        """The main metric of a stored run by split."""
        content = self.metrics(identifier)
        return {row["split"]: row["value"] for row in content["metrics"] if row["metric"] == content["main_metric"]}

    def validation_score(self, identifier: str, by_loss: bool = False) -> float:
        """What a learning rate is chosen by, higher is better: the main metric on validation data, or -loss where text
        is generated, or always if `by_loss`."""
        content = self.metrics(identifier)
        metric = "loss" if by_loss else content.get("validation_metric", content["main_metric"])
        scores = {(row["split"], row["metric"]): row["value"] for row in content["metrics"]}
        return -scores["validation", metric] if metric == "loss" else scores["validation", metric]

    def raise_if_diverged(self, identifier: str) -> None:
        """Raises DivergedError if this run was tried before and did: the same settings do so again."""
        reason = self.failure(identifier) / DIVERGED
        if reason.is_file():
            raise DivergedError(reason.read_text())

    @contextmanager
    def claim(self, identifier: str) -> Iterator[bool]:
        """Held while a run is computed: false if another process, here or on another machine, holds it.

        It ends with the process. One that ended elsewhere is seen by its silence, LEASE_SECONDS after the first look.
        """
        lease = self._lease(identifier)
        try:
            lease.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lease.release()

    def claimed(self, identifier: str) -> bool:
        """True while another process computes a run."""
        with self.claim(identifier) as free:
            return not free

    def _lease(self, identifier: str) -> SoftFileLease:
        # Kept: a lease can tell that another is silent only by what it saw before.
        if identifier not in self._watched:
            leases = self.root / ".leases"
            leases.mkdir(parents=True, exist_ok=True)
            self._watched[identifier] = SoftFileLease(leases / identifier, lease_duration=LEASE_SECONDS)
        return self._watched[identifier]

    @contextmanager
    def writing(self, identifier: str, defined: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to write a run into, by who has claimed it; renamed to its place at the end, when all of it is on
        the disk, or after an error to <run_id>.failed. After an interruption nothing is left."""
        self.root.mkdir(parents=True, exist_ok=True)
        for stale in self.root.glob(f".{identifier}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{identifier}.", dir=self.root))
        temporary.chmod(0o755)
        try:
            (temporary / "config.yaml").write_text(yaml.safe_dump(dict(defined), sort_keys=False))
            yield temporary
            seal(temporary)
        except Exception as error:
            (temporary / (DIVERGED if isinstance(error, DivergedError) else "error.txt")).write_text(
                str(error) if isinstance(error, InputError) else traceback.format_exc()
            )
            self._put(temporary, self.failure(identifier))
            raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(self.failure(identifier), ignore_errors=True)
        self._put(temporary, self.folder(identifier))
        self.checkpoint(identifier).unlink(missing_ok=True)

    def _put(self, temporary: Path, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)
        sync(self.root)

"""Runs, stored by what defines them: results/runs/<run_id>/, written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from experiments import tasks
from experiments.places import user_path
from lora.config import InputError

RECIPE = 1  # part of every run_id: raise it when the same config would from now on give another result
DEFINING = ("model", "task", "method", "training", "seed")


def definition(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that defines a run's result. The user's own files count by content, not place, and
    a training field or a model's quantization that is null does not count.

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
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run_id(defined: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON of a definition."""
    canonical = json.dumps(defined, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


DIVERGED = "diverged.txt"  # in the folder of a failed run: why


class DivergedError(InputError):
    """Training stopped because the loss was not finite."""


class Store:
    """The folder of all runs. Safe for many processes: who computes a run holds its lock, others wait and then read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, identifier: str) -> Path:
        """Where a run is, or would be."""
        return self.root / identifier

    def failure(self, identifier: str) -> Path:
        """Where the history of a run that failed is, or would be."""
        return self.root / f"{identifier}.failed"

    def __contains__(self, identifier: str) -> bool:
        return (self.folder(identifier) / "metrics.json").is_file()

    def metrics(self, identifier: str) -> dict[str, Any]:
        """metrics.json of a stored run."""
        content: dict[str, Any] = json.loads((self.folder(identifier) / "metrics.json").read_text())
        return content

    def main_scores(self, identifier: str) -> dict[str, float]:
        """The main metric of a stored run by split."""
        content = self.metrics(identifier)
        return {row["split"]: row["value"] for row in content["metrics"] if row["metric"] == content["main_metric"]}

    def validation_score(self, identifier: str) -> float:
        """What a learning rate is chosen by, higher is better: the main metric on validation data, or -loss."""
        content = self.metrics(identifier)
        metric = content.get("validation_metric", content["main_metric"])
        value: float = next(
            row["value"] for row in content["metrics"] if (row["split"], row["metric"]) == ("validation", metric)
        )
        return -value if metric == "loss" else value

    def raise_if_diverged(self, identifier: str) -> None:
        """Raises DivergedError if this run was tried before and did: the same settings do so again."""
        reason = self.failure(identifier) / DIVERGED
        if reason.is_file():
            raise DivergedError(reason.read_text())

    def lock(self, identifier: str) -> FileLock:
        """Held while a run is computed; the system lets go of it when the process dies."""
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / identifier)

    @contextmanager
    def writing(self, identifier: str, defined: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to write a run into, renamed to its place at the end, or after an error to <run_id>.failed."""
        self.root.mkdir(parents=True, exist_ok=True)
        for stale in self.root.glob(f".{identifier}.*"):
            shutil.rmtree(stale)
        temporary = Path(tempfile.mkdtemp(prefix=f".{identifier}.", dir=self.root))
        temporary.chmod(0o755)
        (temporary / "config.yaml").write_text(yaml.safe_dump(dict(defined), sort_keys=False))
        place = self.failure(identifier)
        try:
            yield temporary
            place = self.folder(identifier)
        except DivergedError as error:
            (temporary / DIVERGED).write_text(str(error))
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)
            shutil.rmtree(self.failure(identifier), ignore_errors=True)
            temporary.rename(place)

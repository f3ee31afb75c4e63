"""The model that a stored run started from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from analysis.weights.pretrained import Weights
from analysis.weights.sources import RUN
from experiments.paths import user_path
from experiments.store import fingerprint
from lora.config import InputError
from lora.tensor_files import read_json

FINGERPRINT = "fingerprint:"  # before a model of the user's own in a config: its place is not stored, its content is


class Start(NamedTuple):
    """A run's config, its model's name, what was trained, for a reader, and the precision of the frozen weights."""

    run: Path
    config: dict[str, Any]
    model: str
    about: str
    precision: torch.dtype

    @classmethod
    def of(cls, run: Path) -> Start:
        """Of a run's folder. Raises InputError if it is damaged."""
        try:
            config = yaml.safe_load((run / RUN).read_text(encoding="utf-8"))
            model = config["model"]["name"]
            str(config["model"]["path"])
            method, task, lr = config["method"]["name"], config["task"]["name"], float(config["training"]["lr"])
            about = f"{method} on {task}, lr {lr:g}, seed {config['seed']}"
        except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{run / RUN} is not that of a stored run, or is damaged ({reason})") from error
        precision = getattr(torch, str(read_json(run / "metrics.json").get("precision")), None)
        if not isinstance(precision, torch.dtype):
            raise InputError(f"{run / 'metrics.json'} is damaged: its precision is none of torch's")
        return cls(run, config, model, about, precision)

    def base(self, given: Weights | None) -> Weights | None:
        """The weights that it started from, in the precision in which it loaded them; None for a model's folder that
        is not given. Raises InputError if `given` is another model."""
        path = str(self.config["model"]["path"])
        if not path.startswith(FINGERPRINT):
            given = Weights.open(path)
        elif given and path != f"{FINGERPRINT}{_fingerprint(given)}":
            raise InputError(f"{given.source} is not {self.model}, the model that run {self.run.name} started from")
        return given and given.rounded(self.precision)


def _fingerprint(base: Weights) -> str:
    folder = user_path(base.source)
    return fingerprint(folder) if folder.is_dir() else ""

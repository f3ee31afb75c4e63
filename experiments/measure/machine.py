"""machine.json: what the measurements of a folder are of, so that those of two machines are not mixed."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.measure.results import make_folder
from experiments.paths import write
from lora.config import InputError

if TYPE_CHECKING:
    from experiments.models import Runtime

FILE = "machine.json"


def here(runtime: Runtime) -> dict[str, Any]:
    """What a time depends on, beside the model: processor, device, precision, threads and versions."""
    import torch  # seconds that stored results do not need

    from experiments import processor

    return {
        "processor": processor.name(runtime.device),
        "device": runtime.device.type,
        "precision": "bf16" if runtime.dtype == torch.bfloat16 else "fp32",
        "threads": torch.get_num_threads(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
    }


def read(out: Path) -> dict[str, Any]:
    """machine.json. Raises InputError if it is missing or damaged: nobody knows then what was measured."""
    path = out / FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is missing or damaged; delete {out}, the same command measures anew") from error


def refuse_others(stored: Mapping[str, Any], wanted: Mapping[str, Any], out: Path) -> None:
    """Raises InputError if what is stored in `out` was measured with something else than is wanted."""
    for name, value in wanted.items():
        if stored.get(name) != value:
            raise InputError(
                f"{out} was measured with {name} {stored.get(name)}, this is {value}: both do not compare; delete it, "
                "or choose another folder"
            )


def keep(out: Path, facts: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Write `out`/machine.json: `facts`, and since when and until when was measured; `stored` is what it has been."""
    times = {"platform": platform.platform(), "started": stored.get("started") or now(), "finished": now()}
    write(out / FILE, json.dumps({**facts, **times}, indent=1) + "\n")


def now() -> str:
    """The time, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def claim(out: Path, runtime: Runtime) -> None:
    """Write `out`/machine.json, or see that it is of this machine, precision and these versions.

    Raises InputError if it is of others, or damaged.
    """
    facts, stored = here(runtime), dict[str, Any]()
    if (out / FILE).exists():
        stored = read(out)
        refuse_others(stored, facts, out)
    make_folder(out)
    keep(out, facts, stored)

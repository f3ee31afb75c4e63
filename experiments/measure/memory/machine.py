"""machine.json: what the measurements of a folder are of, so that those of two machines are not mixed."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

from experiments.measure.forward_pass import machine
from experiments.measure.results import make_folder, write
from experiments.models import Runtime
from lora.config import InputError

FILE = "machine.json"


def claim(out: Path, runtime: Runtime) -> None:
    """Write `out`/machine.json, or see that it is of this machine, precision and these versions.

    Raises InputError if it is of others, or damaged.
    """
    here = machine(runtime) | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY")}
    path = out / FILE
    record: dict[str, Any] = {}
    if path.exists():
        try:
            record = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged; delete {out}, the same command measures anew") from error
        for name, value in here.items():
            if record.get(name) != value:
                raise InputError(
                    f"{out} was measured with {name} {record.get(name)}, this is {value}: delete it, or choose another"
                    " folder"
                )
    make_folder(out)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = here | {"platform": platform.platform(), "started": record.get("started", now), "finished": now}
    write(path, json.dumps(record, indent=1) + "\n")

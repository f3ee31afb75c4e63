"""Settings of conf/engine/slurm.yaml: whether they can work, and what they are in sbatch's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.checks import check_number, check_whole
from lora.config import InputError


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises InputError, naming the field, for settings of conf/engine/slurm.yaml that cannot work."""
    for field, smallest in {"jobs": 1, "cpus": 1, "gpus": 0, "minutes": 1}.items():
        if settings[field] is not None or field in ("jobs", "cpus"):
            check_whole(f"engine.{field}", settings[field], smallest)
    for field in ("memory", "poll", "grace"):
        if settings[field] is not None or field != "memory":
            check_number(f"engine.{field}", settings[field])
    if not isinstance(settings["setup"], list):
        raise InputError(f"engine.setup = {settings['setup']!r}: it must be a list of shell lines")
    if not isinstance(settings["more"], Mapping):
        raise InputError(f"engine.more = {settings['more']!r}: it must be options of sbatch, as in {{exclude: n7}}")


def sbatch_flags(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What settings of conf/engine/slurm.yaml are in sbatch's own words."""
    named = {"cpus-per-task": "cpus", "gpus-per-node": "gpus", "time": "minutes"}
    named |= {name: name for name in ("partition", "account", "qos", "constraint")}
    flags = {flag: settings[field] for flag, field in named.items() if settings[field]}
    if settings["memory"]:
        flags["mem"] = f"{round(1024 * settings['memory'])}M"
    return flags | dict(settings["more"])

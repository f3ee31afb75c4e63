"""Settings of conf/engine/slurm.yaml, and what they are in sbatch's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.config import Group, setting
from experiments.rules import Rule, any_text, listing, mapping, positive, text, whole

QUEUED = 64  # what engine.jobs = auto means: more in the queue than most users may run at once
ANYTHING = Rule("it may be anything", lambda value: True)  # sbatch says what it may be


@dataclass(frozen=True, kw_only=True)
class SlurmSettings(Group):
    """A job for each run. memory is in GB, minutes a time limit; null leaves a setting to the cluster."""

    group = "engine"
    name: str = setting(text())
    jobs: int | str = setting(whole().or_word("auto"))
    cpus: int = setting(whole())
    gpus: int | None = setting(whole(0).or_null())
    memory: float | None = setting(positive().or_null())
    minutes: int | None = setting(whole().or_null())
    partition: Any = setting(ANYTHING)
    account: Any = setting(ANYTHING)
    qos: Any = setting(ANYTHING)
    constraint: Any = setting(ANYTHING)
    setup: list[str] = setting(listing(any_text()))
    more: Mapping[str, Any] = setting(mapping(ANYTHING))
    poll: float = setting(positive())
    grace: float = setting(positive())

    @property
    def most_jobs(self) -> int:
        """How many jobs may be in the queue at once."""
        return QUEUED if self.jobs == "auto" else int(self.jobs)

    @property
    def sbatch_flags(self) -> dict[str, Any]:
        """What these settings are in sbatch's own words."""
        named = {"cpus-per-task": self.cpus, "gpus-per-node": self.gpus, "time": self.minutes}
        named |= {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        flags: dict[str, Any] = {flag: value for flag, value in named.items() if value}
        if self.memory:
            flags["mem"] = f"{round(1024 * self.memory)}M"
        return flags | dict(self.more)

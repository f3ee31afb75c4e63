"""The engine of Ray: a task for each run, on this machine or on a running cluster."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config import Group, RunConfig, setting
from experiments.engines import Engine, Outcome, Status, sizing
from experiments.rules import Rule, positive, text, whole
from experiments.worker import work
from lora.config import InputError

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
CONNECT = 20  # seconds for the head of a cluster to take a connection


@dataclass(frozen=True, kw_only=True)
class RaySettings(Group):
    """Settings of conf/engine/ray.yaml. cpus and gpus are of a run."""

    group = "engine"
    name: str = setting(text())
    jobs: int | str = setting(whole().or_word("auto"))
    address: str | None = setting(text().or_null())
    cpus: int = setting(whole())
    gpus: float | str = setting(
        Rule("it must be a positive number, auto or 0", lambda value: value in ("auto", 0) or positive().fits(value))
    )


def make(config: Mapping[str, Any], configs: Sequence[RunConfig], grid: int) -> Ray:
    """The engine of a sweep's config. Raises InputError as `Ray`, and for runs of several processes."""
    if any(config.runtime.parallel for config in configs):
        raise InputError("runtime.parallel: engine=ray has one process for a run; take torchrun, or engine=slurm")
    return Ray(configs[0].given["engine"])


class Ray(Engine):
    """Settings are those of conf/engine/ray.yaml.

    Raises InputError if Ray is not installed or cannot be reached, and if no node has room for a run.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        asked_for = RaySettings.of(settings)
        try:
            import ray
        except ModuleNotFoundError as error:
            raise InputError("engine=ray needs Ray: pip install 'lora-lab[ray]'") from error
        self.ray, self.threads = ray, asked_for.cpus
        here = {"CPU": sizing.cores(), "GPU": len(sizing.gpus("auto"))}
        nodes = self._connect(asked_for.address) if asked_for.address else [here]
        has_gpus = any(node.get("GPU") for node in nodes)
        gpus = int(has_gpus) if isinstance(asked_for.gpus, str) else asked_for.gpus
        asked = {"CPU": asked_for.cpus, "GPU": gpus}
        try:
            room = _room(nodes, asked)
        except InputError:
            ray.shutdown()
            raise
        if not asked_for.address:  # "local": not the one of RAY_ADDRESS
            place: dict[str, Any] = {"num_cpus": here["CPU"], "num_gpus": here["GPU"], "_node_ip_address": "127.0.0.1"}
            ray.init("local", include_dashboard=False, **place, **QUIET)
        self.slots = room if asked_for.jobs == "auto" else int(asked_for.jobs)
        self.work = ray.remote(num_cpus=asked["CPU"], num_gpus=asked["GPU"], max_retries=0)(work)
        self.tickets: dict[Any, int] = {}  # by Ray's reference to the outcome

    def submit(self, ticket: int, config: RunConfig) -> None:  # noqa: D102
        self.tickets[self.work.remote(config)] = ticket

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:  # noqa: D102
        waiting = list(self.tickets)
        done, _ = self.ray.wait(waiting, num_returns=1, timeout=seconds) if waiting else ([], [])
        more, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0) if done else ([], [])
        return [(self.tickets.pop(reference), self._outcome(reference)) for reference in more]

    def close(self) -> None:  # noqa: D102
        for reference in self.tickets:
            self.ray.cancel(reference, force=True)
        self.tickets.clear()
        self.ray.shutdown()

    def _outcome(self, reference: Any) -> Outcome:
        try:
            outcome: Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:  # `work` raises nothing: its process, or its node, is gone
            why = str(error).strip().partition("\n")[0]
            return Outcome(Status.LOST, f"Ray lost its worker: {type(error).__name__}: {why[:300]}")
        return outcome

    def _connect(self, address: str) -> list[Mapping[str, float]]:
        """Connects to a running Ray: what each of its nodes has."""
        try:
            _knock(address)  # ray.init waits without end for an address that nothing listens at
            self.ray.init(address, **QUIET)
        except (OSError, RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:300]
            raise InputError(f"Ray cannot be reached at engine.address = {address}: {why}") from error
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]


def _room(nodes: Sequence[Mapping[str, float]], asked: Mapping[str, float]) -> int:
    """How many runs that ask for so much nodes have room for at once; raises InputError if for none."""
    room = sum(min(int(node.get(kind, 0) // need) for kind, need in asked.items() if need) for node in nodes)
    if not room:
        most = {kind: max(node.get(kind, 0) for node in nodes) for kind in asked}
        raise InputError(
            f"engine.cpus = {asked['CPU']}, engine.gpus = {asked['GPU']}: no node of Ray has room for such a run, "
            f"the largest has {most['CPU']:.0f} CPUs and {most['GPU']:.0f} GPUs"
        )
    return room


def _knock(address: str) -> None:
    """Raises OSError if nothing listens at host:port of an address; `auto` and `local` have none."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()

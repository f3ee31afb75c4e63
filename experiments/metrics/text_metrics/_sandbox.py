"""Untrusted SQL in a process of its own, which is ended when it takes too long and begun anew."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.tasks._sql_query import Table
from lora.config import InputError

ROOT = Path(__file__).parents[2]
DEADLINE = 120  # seconds until a worker is ended that the system has not ended: it waits for a processor, or is stuck


class Sandbox:
    """A worker, `experiments.tasks._sql_worker`, that is kept for the next query. To be used as a context."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def same(self, output: str, references: Sequence[str], table: Table) -> bool:
        """True if the output, run on the table, gives the result of one of the references; what fails, takes too long
        or too much memory does not. Raises InputError if the table or a reference is broken."""
        request = {"table": asdict(table), "references": list(references), "output": output}
        said = self._ask(request)
        if said is None:
            self._end()
            raise InputError(f"the data are broken: it takes too long to run: {references[0].strip()}")
        if "ready" in said:
            said = self._next()
        if said is None:
            self._end()
            return False
        if "error" in said:
            raise InputError(said["error"])
        return bool(said["same"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The first answer to a request; None if the worker did not live to give one."""
        if self._worker is None:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "experiments.tasks._sql_worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                bufsize=0,  # what is waited for lies in the pipe, not in a buffer
            )  # fmt: skip
        assert self._worker.stdin is not None
        rest = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while rest:
                rest = rest[self._worker.stdin.write(rest) :]
        except BrokenPipeError:
            return None
        return self._next()

    def _next(self) -> dict[str, Any] | None:
        """The worker's next answer; None if it has ended, or does not answer before the deadline."""
        assert self._worker is not None
        assert self._worker.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._worker.stdout, selectors.EVENT_READ)
            if not waiting.select(DEADLINE):
                return None
        line = self._worker.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None

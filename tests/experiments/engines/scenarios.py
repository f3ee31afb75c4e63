"""What every engine must get right, on the real thing: `python -m experiments.run` in a process of its own.

A scenario takes a Command and the overrides that choose an engine. Tests of an engine are calls of these.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import SoftFileLease

PATIENCE = 300  # seconds for what takes a few on an idle machine


class Command(NamedTuple):
    """`python -m experiments.run` on a tiny model: its overrides, where its results go, its environment, what starts
    it."""

    overrides: Sequence[str]
    results: Path
    environment: dict[str, str]
    python: Path = Path(sys.executable)

    @contextlib.contextmanager
    def started(self, *overrides: str) -> Iterator["Running"]:
        """The command in a process group of its own, as a shell starts it; it is ended if a test leaves it behind."""
        self.results.mkdir(exist_ok=True)
        out, err = self.results.parent / "out.txt", self.results.parent / "err.txt"
        line = [self.python, "-m", "experiments.run", *self.overrides, f"results_dir={self.results}", *overrides]
        with out.open("w") as stdout, err.open("w") as stderr:
            streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
            process = subprocess.Popen(line, env=self.environment, start_new_session=True, **streams)
            try:
                yield Running(process, self.results, out, err)
            finally:
                if process.poll() is None:
                    process.terminate()  # ends its workers, on the cluster too
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(60)
                    process.kill()
                    process.wait()


class Running(NamedTuple):
    """A sweep under way."""

    process: subprocess.Popen[bytes]
    results: Path
    out: Path
    err: Path

    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def errors(self) -> list[str]:
        return [line for line in self.err.read_text().splitlines() if line.startswith("error: ")]

    def wait_for(self, what: str, found: Callable[[], object]) -> object:
        """Whatever true `found` returns, once it does; the sweep must still be under way."""
        end = time.monotonic() + PATIENCE
        while not (thing := found()):
            assert self.process.poll() is None, f"ended before there was {what}:\n{self.said()}"
            assert time.monotonic() < end, f"no {what} after {PATIENCE} s:\n{self.said()}"
            time.sleep(0.05)
        return thing

    def end(self) -> int:
        """The exit code."""
        return self.process.wait(PATIENCE)

    def workers(self) -> dict[str, int]:
        """The processes that compute, by run: they are named in the leases."""
        computing = {}
        for lease in (self.results / "runs" / ".leases").glob("*"):
            pid = SoftFileLease(lease, lease_duration=60).pid
            if pid not in (None, self.process.pid):
                computing[lease.name] = pid
        return computing

    def kill_worker(self, of: str = "") -> str:
        """Kill what computes a run (`of`, or the first that has one), as the system does where memory ends."""

        def killed() -> str:
            for run, pid in self.workers().items():
                if of in ("", run):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        return run
            return ""

        return str(self.wait_for("a worker", killed))

    def listed(self) -> list[dict[str, str]]:
        """The study's list of runs."""
        (file,) = self.results.glob("*/**/sweep.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()]

    def runs(self) -> set[str]:
        """What is in the folder of runs, but leases and what is known of the data."""
        return {path.name for path in (self.results / "runs").iterdir()} - {".leases", ".tasks"}


def tuned_with_one_failing_and_one_killed(command: Command, *engine: str) -> None:
    """A tuned rate beside one that diverges; the first worker is killed. All is done, once, and the exit code is 2."""
    rates = ["training.lr=tuned,1e38", "tuning.lr_grid=[1e-2,3e-3]", "method.r=2", "seed=1"]
    with command.started(*engine, "study=rank_ablation", *rates) as sweep:
        killed = sweep.kill_worker()
        assert sweep.end() == 2, sweep.said()
    assert sweep.said().count("begun once more") == 1
    assert f"run {killed} was lost: " in sweep.said()
    (error,) = sweep.errors()
    assert "training.lr = 1e+38 is too high" in error
    listed = sweep.listed()
    done = {entry["run_id"] for entry in listed if "error" not in entry}
    failed = [entry for entry in listed if "error" in entry]
    assert sorted(entry["role"] for entry in listed) == ["study", "study", "tuning", "tuning"]
    assert len(done) == 3
    assert len(failed) == 1
    assert "1e+38 is too high" in failed[0]["error"]
    assert sweep.runs() == done | {f"{failed[0]['run_id']}.failed"}
    assert killed in sweep.runs() or f"{killed}.failed" in sweep.runs()


def a_run_that_is_lost_twice(command: Command, *engine: str) -> None:
    """The worker of a run is killed twice: one line, exit code 2, and the other run is done."""
    with command.started(*engine, "study=rank_ablation", "method.r=2", "seed=0,1") as sweep:
        killed = sweep.kill_worker()
        sweep.wait_for("a second attempt", lambda: "begun once more" in sweep.said())
        sweep.kill_worker(killed)
        assert sweep.end() == 2, sweep.said()
    (error,) = sweep.errors()
    assert "lost" in error
    assert sorted("error" in entry for entry in sweep.listed()) == [False, True]
    (done,) = [entry["run_id"] for entry in sweep.listed() if "error" not in entry]
    assert done != killed
    assert sweep.runs() == {done}


def an_interrupted_sweep(command: Command, *engine: str) -> None:
    """Ctrl-C: exit code 130, and no process of the sweep goes on."""
    with command.started(*engine, "study=rank_ablation", "method.r=2,4", "seed=0") as sweep:
        workers = sweep.wait_for("a worker", sweep.workers)
        os.killpg(sweep.process.pid, signal.SIGINT)  # a terminal sends it to all processes in the foreground
        assert sweep.end() == 130, sweep.said()
    assert isinstance(workers, dict)
    assert not [pid for pid in workers.values() if runs(pid)]
    assert "the same command continues" in sweep.said()
    assert "Traceback" not in sweep.said()
    assert not sweep.runs()


def until(done: Callable[[], bool]) -> None:
    """Waits for what must come true."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"not so after {PATIENCE} s"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """True if a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

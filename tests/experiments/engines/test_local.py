"""Workers on this machine: the scenarios that all engines pass, and what is the same whatever `engine.jobs` is."""

import json
import os
import subprocess
import sys

import pytest
import scenarios
import warm
from scenarios import Command

from analysis import study

TWO = "engine.jobs=2"


def test_tuned_rates_one_failing_run_and_one_killed_worker(command: Command) -> None:
    scenarios.tuned_with_one_failing_and_one_killed(command, TWO)


def test_a_run_whose_worker_dies_twice_is_reported(command: Command) -> None:
    scenarios.a_run_that_is_lost_twice(command, TWO)


def test_an_interruption_ends_the_workers(command: Command) -> None:
    scenarios.an_interrupted_sweep(command, TWO)


def test_results_are_the_same_bits_whatever_jobs_is(command: Command) -> None:
    sweep = ["study=rank_ablation", "training.lr=1e-2", "method.r=2,4", "seed=0"]
    found = {}
    for jobs in ("1", "2"):
        own = command._replace(results=command.results / jobs)
        own.results.mkdir(parents=True)
        with own.started(*sweep, f"engine.jobs={jobs}", "runtime.threads=null") as running:
            assert running.end() == 0, running.said()
            listed = [(entry["run_id"], entry["role"]) for entry in running.listed()]
        runs = own.results / "runs"
        threads = {json.loads((runs / run / "metrics.json").read_text())["machine"]["threads"] for run, _ in listed}
        bits = {run: (runs / run / "adapter" / "adapter.safetensors").read_bytes() for run, _ in listed}
        found[jobs] = listed, threads, bits
    assert found["1"] == found["2"]
    assert len(found["1"][0]) == 2


def test_workers_end_when_their_parent_is_killed(command: Command) -> None:
    with command.started("study=rank_ablation", "training.lr=1e-2", "method.r=2,4", "seed=0", TWO) as running:
        workers = running.wait_for("two workers", lambda: len(running.workers()) == 2 and running.workers())
        running.process.kill()
        running.process.wait()
        assert isinstance(workers, dict)
        scenarios.until(lambda: not any(scenarios.runs(pid) for pid in workers.values()))


def test_copies_of_one_command_share_the_grid(command: Command) -> None:
    sweep = ["study=rank_ablation", "training.lr=1e-2", "engine.jobs=1", "method.r=1,2,4,8", "seed=0"]
    with warm.python() as program, command._replace(python=program).started(*sweep) as first:
        line = [program, "-m", "experiments.run", *command.overrides, f"results_dir={command.results}", *sweep]
        second = subprocess.run(line, env=command.environment, capture_output=True, text=True, check=False)
        assert first.end() == 0, first.said()
        assert second.returncode == 0, second.stderr
        computed = [
            {
                words[1]
                for words in map(str.split, text.splitlines())
                if words[0].startswith("[") and "(stored)" not in words
            }
            for text in (first.said(), second.stdout)
        ]
        assert not computed[0] & computed[1], "no run is computed twice"
        assert computed[0] | computed[1] == {entry["run_id"] for entry in first.listed()} == first.runs()


KILLED = """
import os, random, signal, sys, time
from experiments import run
import experiments.compute, experiments.problems.classification, peft  # once: a kill meets the work, not imports

def sweep(out):
    os.dup2(os.open(out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
    os._exit(run.command().code)

def killed(kills, chance, lasts=2.0):
    for number in range(kills + 1):
        child = os.fork()
        if not child:
            sweep("out.txt")
        end = time.monotonic() + chance.uniform(0, lasts)
        while number < kills and time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        try:
            if number < kills:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        except (ChildProcessError, ProcessLookupError):
            status = 0  # it had ended by itself
    return os.waitstatus_to_exitcode(status)

chance, kills, typed = random.Random(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3:]
root, codes = os.getcwd(), []
for place, number in (("killed", kills), ("whole", 0)):
    os.makedirs(f"{root}/{place}")
    os.chdir(f"{root}/{place}")
    sys.argv[1:] = [*typed, f"results_dir={root}/{place}"]
    codes.append(killed(number, chance))
sys.exit(max(codes, key=abs))
"""


def test_a_sweep_that_is_killed_again_and_again_ends_in_the_same_table(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make kill-test N=…` kills more often."""
    kills, seed = os.environ.get("KILLS", "20"), os.environ.get("FUZZ_SEED", "0")
    sweep = ["study=rank_ablation", "training.lr=tuned", "tuning.lr_grid=[1e-2,3e-3]", "tuning.extend=0", "seed=0"]
    sweep += ["method.r=1,2,4,8", "engine.jobs=1", "runtime.checkpoint_every=1"]
    command.results.mkdir()
    line = [sys.executable, "-c", KILLED, seed, kills, *command.overrides, *sweep]
    settings = {"env": command.environment, "cwd": command.results}
    done = subprocess.run(line, **settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tables = []
    for results in (command.results / "killed", command.results / "whole"):
        (study_dir,) = results.glob("*/rank_ablation*")
        assert study.main([str(study_dir)]) == 0, capsys.readouterr().err
        tables.append([(study_dir / name).read_bytes() for name in ("table.csv", "table.md", "learning_rates.csv")])
        left = {path.name for path in (results / "runs").iterdir()}
        assert len([name for name in left if not name.startswith(".")]) == 5
        assert not [name for name in left if name.startswith(".") and name not in (".leases", ".tasks", ".resume")]
        assert not list(results.glob("runs/.resume/*"))
    assert tables[0] == tables[1]

"""engine=slurm on a Slurm of one node, without accounting, that these tests start and stop."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import one_node_slurm
import pytest
import scenarios
from omegaconf import OmegaConf
from scenarios import Command, Running

import experiments.engines.slurm as module
from experiments.engines import Status
from experiments.engines.slurm import Slurm, queue
from lora.config import InputError

CONF = Path(module.__file__).parents[2] / "conf" / "engine" / "slurm.yaml"
LAB = ["engine=slurm", "engine.partition=lab", "engine.cpus=1", "engine.poll=0.5", "engine.grace=2"]


@pytest.fixture
def slurm(slurm_conf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Slurm's commands reach the test's Slurm, and sacct, which hangs or fails on some clusters, is not asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sacct").write_text(f"#!/bin/sh\ntouch {tmp_path}/sacct-was-asked\nsleep 600\n")
    (programs / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))
    yield slurm_conf
    assert not (tmp_path / "sacct-was-asked").exists()
    assert not jobs(slurm_conf), "jobs were left in the queue"


@pytest.fixture
def on_slurm(command: Command, slurm: Path) -> Command:
    """The command, where Slurm's commands reach the test's Slurm."""
    return command._replace(environment={**command.environment, "PATH": os.environ["PATH"], "SLURM_CONF": str(slurm)})


def jobs(conf: Path) -> list[str]:
    """The jobs that are queued or running, oldest first."""
    return sorted(one_node_slurm.ask(conf, "squeue", "--noheader", "--format=%i").split(), key=int)


def settings(**changes: Any) -> dict[str, Any]:
    return dict(OmegaConf.load(CONF)) | {"cpus": 1, "poll": 0.1, "grace": 0.2, "setup": [], "more": {}} | changes


def test_tuned_rates_a_failing_run_and_a_killed_worker(on_slurm: Command) -> None:
    scenarios.tuned_with_one_failing_and_one_killed(on_slurm, *LAB)
    (log,) = (on_slurm.results / ".slurm").glob("*/*_0_log.err")  # of the job that was killed
    said = (on_slurm.results.parent / "out.txt").read_text()
    assert f"Slurm job {log.name.partition('_')[0]} ended as FAILED, killed by SIGKILL, without a result" in said
    assert f"its log is {log}" in said


def test_ctrl_c_takes_the_jobs_out_of_the_queue(on_slurm: Command, slurm: Path) -> None:
    scenarios.an_interrupted_sweep(on_slurm, *LAB)
    assert not jobs(slurm)
    assert not (on_slurm.results / ".slurm").exists()


def test_a_cancelled_job_is_submitted_once_more(on_slurm: Command, slurm: Path) -> None:
    """One job at a time: the first run's is cancelled once, the second's twice."""

    def next_job(sweep: Running, *before: str) -> str:
        return str(sweep.wait_for("another job", lambda: "".join(job for job in jobs(slurm) if job not in before)))

    with on_slurm.started(*LAB, "engine.jobs=1", "study=rank_ablation", "method.r=2", "seed=0,1") as sweep:
        first = next_job(sweep)
        one_node_slurm.ask(slurm, "scancel", first)
        again = next_job(sweep, first)
        second = next_job(sweep, first, again)
        one_node_slurm.ask(slurm, "scancel", second)
        third = next_job(sweep, first, again, second)
        one_node_slurm.ask(slurm, "scancel", third)
        assert sweep.end() == 2, sweep.said()
    assert f"Slurm job {first} ended as CANCELLED" in sweep.said()
    (error,) = sweep.errors()
    assert f"Slurm job {third} ended as CANCELLED" in error
    assert sorted("error" in entry for entry in sweep.listed()) == [False, True]
    assert sweep.runs() == {entry["run_id"] for entry in sweep.listed() if "error" not in entry}


def test_a_partition_that_does_not_exist(cli: Callable[..., Any], tiny: list[str], slurm: Path, tmp_path: Path) -> None:
    result = cli(*tiny, *LAB, "engine.partition=nosuch", "study=rank_ablation", "method.r=2,4", "seed=0")
    assert result.code == 2
    (error,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "--partition=nosuch" in error
    assert "Invalid partition name" in error
    assert "partitions here: lab (2 CPUs, 4000 MB, no GPU, at most 1:00:00)" in error
    assert not (tmp_path / "results" / ".slurm").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": 64}, "Requested node configuration is not available"),
        ({"memory": 4.5}, "--mem=4608M): Requested node configuration is not available; partitions here: lab (2 CPUs"),
        ({"gpus": 1}, "Invalid generic resource"),
        ({"constraint": "a100"}, "Invalid feature specification"),
        ({"more": {"nodelist": "elsewhere"}}, "Invalid node name"),
        ({"more": {"nosuch": True}}, "unrecognized option '--nosuch'"),
    ],
)
def test_what_no_node_has_is_refused_before_anything_is_submitted(
    slurm: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match="Slurm refuses such jobs") as refused:
        Slurm(settings(**changes), tmp_path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_time_limit_above_the_partitions_is_refused(slurm: Path, tmp_path: Path) -> None:
    with Slurm(settings(minutes=61), tmp_path) as engine:  # sbatch takes such a job, and never starts it
        engine.submit(0, {})
        with pytest.raises(InputError, match="PartitionTimeLimit"):
            engine.finished(60)


def test_the_settings_reach_the_job(slurm: Path, tmp_path: Path) -> None:
    asked = settings(cpus=2, memory=1.5, minutes=7, setup=["module load nothing"], more={"nice": 5, "hold": True})
    with Slurm(asked, tmp_path) as engine:
        assert (engine.slots, engine.threads) == (64, 2)
        engine.submit(7, {})
        line = ["squeue", "--noheader", f"--name={engine.name}", "--format=%i %c %m %l %P %r"]
        job, *shown = one_node_slurm.ask(slurm, *line).split()
        assert shown == ["2", "1.50G", "7:00", "lab", "JobHeldUser"]
        script = (engine.folder / f"{job}_submission.sh").read_text()
        assert script.index("module load nothing") < script.index(sys.executable)
        assert not engine.finished(1), "a job that its user holds back is not lost"
        one_node_slurm.ask(slurm, "scancel", job)
        assert engine.finished(60) == [(7, (Status.LOST, f"Slurm job {job} ended as CANCELLED before it began"))]


def test_a_run_of_several_processes_is_started_by_torchrun(slurm: Path, tmp_path: Path) -> None:
    with Slurm(settings(cpus=2, processes=2, more={"hold": True}), tmp_path, "fsdp") as engine:
        assert engine.threads == 1, "its CPUs are shared out"
        engine.submit(0, {})
        (script,) = engine.folder.glob("*_submission.sh")
        lines = [line for line in script.read_text().splitlines() if line]
    assert "trap '' USR2" in lines
    torchrun = "-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2 --no-python"
    assert lines[-1].startswith(f"exec {sys.executable} {torchrun} {sys.executable} -u -m submitit.core._submit")
    asked = {(None, "ddp"): "runtime.parallel = ddp: give engine.processes=N", (2, None): "engine.processes = 2 is for"}
    for (count, how), message in asked.items():
        with pytest.raises(InputError, match=message):
            Slurm(settings(processes=count), tmp_path, how)


def test_a_job_of_two_processes(on_slurm: Command) -> None:
    several = ["engine.cpus=2", "engine.processes=2", "runtime.parallel=ddp", "training.lr=1e-2"]
    with on_slurm.started(*LAB, *several) as sweep:
        assert sweep.end() == 0, sweep.said()
    (metrics,) = on_slurm.results.glob("runs/*/metrics.json")
    machine = json.loads(metrics.read_text())["machine"]
    assert (machine["parallel"], machine["processes"], machine["threads"]) == ("ddp", 2, 1)


def test_a_job_that_ends_before_python_begins(slurm: Path, tmp_path: Path) -> None:
    with Slurm(settings(setup=["echo no such module >&2", "exit 3"]), tmp_path) as engine:
        engine.submit(0, {})
        ((_, outcome),) = engine.finished(60)
        (log,) = engine.folder.glob("*_0_log.err")
    assert outcome.status is Status.LOST
    assert f"ended as FAILED, exit code 3, without a result (no such module); its log is {log}" in outcome.message
    assert log.exists()


def test_a_queue_that_does_not_answer(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "programs" / "squeue"
    with Slurm(settings(more={"hold": True}), tmp_path) as engine:
        engine.submit(0, {})
        squeue.write_text("#!/bin/sh\nexit 1\n")
        squeue.chmod(0o755)
        assert not engine.finished(0.5), "silence says nothing of a job"
        monkeypatch.setattr(module, "SILENCE", 0)
        with pytest.raises(InputError, match="Slurm has not answered"):
            engine.finished(5)
        squeue.unlink()


def test_what_the_queue_says_of_a_job() -> None:
    stuck = queue.Entry("PENDING", "launch failed requeued held")
    assert stuck.held and not stuck.waits and not stuck.hopeless
    for waiting in ("Priority", "Resources", "JobHeldUser", "QOSMaxJobsPerUserLimit"):
        assert queue.Entry("PENDING", waiting).waits and not queue.Entry("PENDING", waiting).hopeless
    assert queue.Entry("PENDING", "QOSMaxWallDurationPerJobLimit").hopeless
    assert queue.Entry("COMPLETING", "None").waits
    assert not queue.Entry("OUT_OF_MEMORY", "OutOfMemory").waits


def test_a_sweep_inside_a_job_hides_it_from_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/here")
    with queue.outside_a_job():
        assert os.environ["SLURM_CONF"] == "/etc/here"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "6")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    with queue.outside_a_job():
        assert {"SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"}.isdisjoint(os.environ)
        assert (os.environ["SLURM_CONF"], os.environ["SBATCH_ACCOUNT"]) == ("/etc/here", "mine")
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_slurm_or_submitit_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no sbatch here"):
        Slurm(settings(), tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="pip install 'lora-lab\\[slurm\\]'"):
        Slurm(settings(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jobs": 0}, "engine.jobs = 0: it must be a whole number of at least 1, or auto"),
        ({"cpus": None}, "engine.cpus = None"),
        ({"gpus": -1}, "engine.gpus = -1"),
        ({"memory": "lots"}, "engine.memory = 'lots': it must be a positive number"),
        ({"minutes": 0.5}, "engine.minutes = 0.5"),
        ({"poll": 0}, "engine.poll = 0"),
        ({"setup": "module load x"}, "engine.setup = 'module load x': it must be a list"),
        ({"more": "x"}, "engine.more = 'x'"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        Slurm(settings(**changes), tmp_path)
    assert message in str(refused.value)

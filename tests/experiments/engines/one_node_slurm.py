"""A Slurm of one node on 127.0.0.1, from Debian's slurm-wlm and munge: daemons, keys and ports of its own."""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "srun")
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # where Debian has the daemons
CPUS, MEMORY = 2, 4000  # what the node says that it has; MB
CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=lab Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=NO
"""


def missing() -> list[str]:
    """The programs that a Slurm of one node needs and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=SBIN) is None]


@contextlib.contextmanager
def cluster() -> Iterator[Path]:
    """The slurm.conf of a running Slurm with the partition `lab`; its daemons and files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as daemons:
        folder = Path(name)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        conf, key, munge = folder / "slurm.conf", folder / "munge.key", folder / "munge.socket"
        settings = {"folder": folder, "host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
        conf.write_text(CONF.format(**settings, ports=_free_ports(2), cpus=CPUS, memory=MEMORY))
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        files = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "log", "seed")]
        daemons.enter_context(_daemon(["munged", "--foreground", "--force", f"--socket={munge}", *files], folder))
        _wait_for("munged", folder, munge.exists)
        daemons.enter_context(_daemon(["slurmctld", "-D", "-f", str(conf)], folder))
        daemons.enter_context(_daemon(["slurmd", "-D", "-f", str(conf)], folder))
        _wait_for(
            "slurmd", folder, lambda: ask(conf, "sinfo", "--noheader", "--format=%T", check=False).strip() == "idle"
        )
        yield conf
        ask(conf, "scancel", "--full", f"--user={settings['user']}", check=False)


def ask(conf: Path, *command: str, check: bool = True) -> str:
    """What a command of the Slurm that `conf` describes prints."""
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    return subprocess.run(command, env=environment, check=check, capture_output=True, text=True, timeout=60).stdout


@contextlib.contextmanager
def _daemon(command: Sequence[str], folder: Path) -> Iterator[None]:
    """A daemon in the foreground, killed with all that it started."""
    with (folder / f"{command[0]}.output").open("w") as output:
        program = shutil.which(command[0], path=SBIN) or command[0]
        process = subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(name: str, folder: Path, ready: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{name} is not ready after {seconds:.0f} s: {(folder / f'{name}.output').read_text()}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens at; they are held together, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]

"""A Slurm of one node on this very machine, in a folder of its own: no munge, no systemd."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol")


def missing_program() -> str | None:
    """The first of Slurm's programs that is not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    return next((name for name in DAEMONS if shutil.which(name, path=path) is None), None)


class Cluster:
    """Submits jobs to the Slurm of a configuration file.

    Args:
        folder: where the daemons keep what they have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            # Where daemons lie, and users need not look.
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def ask(self, *words: object) -> str:
        """What one of Slurm's commands says."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """One of Slurm's commands, whatever comes of it."""
        return subprocess.run(
            [str(word) for word in words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def states(self, job: str) -> list[str]:
        """The state of every task of a job, as far as Slurm still knows it."""
        told = self.ask("scontrol", "show", "job", job, "--oneliner")
        return [word.removeprefix("JobState=") for word in told.split() if "JobState=" in word]

    def finish(self, job: str, seconds: float) -> list[str]:
        """Wait for all tasks of a job; returns their states."""
        ends = time.monotonic() + seconds
        while set(states := self.states(job)) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}:
            assert time.monotonic() < ends, (states, self.logs())
            time.sleep(0.5)
        return states

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so."""
        ends = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < ends, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of what the daemons and the jobs wrote."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Cluster]:
    """A running Slurm of this machine, ended with the block."""
    _write_configuration(folder)
    cluster = Cluster(folder)
    with ExitStack() as daemons:
        for name in ("slurmctld", "slurmd"):
            daemons.enter_context(_daemon(cluster, name))
        _wait_until_idle(cluster)
        yield cluster


def _wait_until_idle(cluster: Cluster) -> None:
    ends = time.monotonic() + 20
    while (told := cluster.run("sinfo", "--noheader", "--format=%T").stdout).strip() != "idle":
        assert time.monotonic() < ends, (told, cluster.logs())
        time.sleep(0.2)


@contextmanager
def _daemon(cluster: Cluster, name: str) -> Iterator[None]:
    program = shutil.which(name, path=cluster.environment["PATH"])
    assert program is not None
    with (cluster.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [program, "-D"], env=cluster.environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _write_configuration(folder: Path) -> None:
    host, user = socket.gethostname().split(".")[0], pwd.getpwuid(os.getuid()).pw_name
    control, node = _free_port(), _free_port()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(f"""\
ClusterName=losa
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={control}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MinJobAge=600
KillWait=30
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
""")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

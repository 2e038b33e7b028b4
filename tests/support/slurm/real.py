"""A real Slurm of one node on loopback, in a folder of its own: Debian's `slurm-wlm` and `munge`.

No service manager and no data base (so no `sacct`). It must be started as root, as Slurm's daemons
are; `KillWait` and the intervals are short, so that a test waits for little.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from groupnorm_bench.leash import Leash

_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=10
MinJobAge=5
MaxArraySize={max_array}
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP OverTimeLimit=0
"""
_DAEMONS = ("munged", "slurmctld", "slurmd")


def is_installed() -> bool:
    """Return whether a Slurm can be started here."""
    return os.geteuid() == 0 and all(map(shutil.which, _DAEMONS))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _until(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def queue() -> str:
    """Return what `squeue` shows, "" if nothing."""
    done = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def left_in_queue(seconds: float = 30) -> str:
    """Return what `squeue` shows once nothing is left, or else so many seconds later."""
    deadline = time.monotonic() + seconds
    while (left := queue()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


@contextlib.contextmanager
def real_slurm(folder: Path, *, max_array: int = 1001) -> Iterator[None]:
    """Run a Slurm whose commands are found by SLURM_CONF, which the caller sets.

    Args:
        folder: for its files; the path must be short, a socket is in it.
        max_array: the site's limit on the size of an array.
    """
    host = socket.gethostname().partition(".")[0]
    ports = {"controller": _free_port(), "node": _free_port()}
    config = _CONFIG.format(folder=folder, host=host, max_array=max_array, **ports)
    (folder / "slurm.conf").write_text(config)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    pids = {name: folder / f"{name}.pid" for name in _DAEMONS}
    munged = [f"--{name}={folder}/munge.{name}" for name in ("socket", "log-file", "seed-file")]
    munged += [f"--key-file={key}", f"--pid-file={pids['munged']}", "--force"]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    try:
        for command in (["munged", *munged], ["slurmctld", "-i"], ["slurmd"]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
        _until(lambda: "idle" in _nodes(environment), "no node came up")
        with Leash(folder, [int(pid.read_text()) for pid in pids.values()]):
            yield  # and where these tests are killed, the daemons end as well
    finally:
        for name in ("slurmctld", "slurmd", "munged"):
            _end(pids[name])


def _nodes(environment: dict[str, str]) -> str:
    command = ["sinfo", "--noheader", "--format=%T"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def _end(pid_file: Path) -> None:
    """End a daemon by its own pid, and see that it has gone."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 15)
    except (OSError, ValueError):  # never started
        return
    _until(lambda: not is_alive(pid), f"{pid_file.stem} does not end")


def is_alive(pid: int) -> bool:
    """Return whether a process has not ended; one that nobody waits for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def slurm_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a Slurm for this session of tests, or skip; return its configuration file."""
    if not is_installed():
        pytest.skip("needs slurm-wlm and munge, and root")
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        real_slurm(Path(folder), max_array=2),
    ):
        yield Path(folder) / "slurm.conf"

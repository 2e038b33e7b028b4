"""A Ray cluster on loopback: each node a process tree with a working directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
DRAIN = """
import sys
import ray
from ray.scripts.scripts import main

address, resource = sys.argv[1:]
ray.init(address=address, logging_level=50, log_to_driver=False)
(node,) = [each["NodeID"] for each in ray.nodes() if resource in each["Resources"]]
ray.shutdown()
why = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test"]
when = ["--deadline-remaining-seconds=600"]
sys.argv = ["ray", "drain-node", f"--address={address}", f"--node-id={node}", *why, *when]
sys.exit(main())
"""
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RayNodes:
    """Nodes of one CPU each; the first is the head, and has what Ray needs and no CPU.

    They know nothing of the repository: no PYTHONPATH, a folder of their own.

    Args:
        home: where their folders are made.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: list[subprocess.Popen] = []
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
        self.temp = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))  # sockets have short names
        self.environment = kept | TOKEN
        self.environment |= {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_enable_metrics_collection": "0",
            "TMPDIR": str(self.temp),
        }
        port = self.address.partition(":")[2]
        self._start("--head", f"--port={port}", "--include-dashboard=false", "--num-cpus=0")

    def add(self, cpus: int = 1, resources: str = "{}") -> subprocess.Popen:
        options = (f"--num-cpus={cpus}", f"--resources={resources}")
        return self._start(f"--address={self.address}", *options)

    def drain(self, resource: str) -> None:
        """Have the node that has this resource given no more work; it goes in ten minutes."""
        subprocess.run(
            [sys.executable, "-P", "-c", DRAIN, self.address, resource],
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def trainers(self, node: subprocess.Popen) -> int:
        """Return how many actors of sweeps a node has."""
        return sum(name.startswith("ray::Trainer") for name in map(name_of, descendants(node.pid)))

    def _start(self, *options: str, tries: int = 3) -> subprocess.Popen:
        folder = self.home / f"node-{len(self.nodes)}"
        folder.mkdir(parents=True)
        fixed = ("--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--num-gpus=0")
        fixed += ("--block",)
        head = (f"--temp-dir={self.temp / 'r'}",) if "--head" in options else ()
        told = folder / "stdout"
        with told.open("w") as stdout:
            node = subprocess.Popen(
                [sys.executable, "-P", "-c", START, "start", *options, *fixed, *head],
                cwd=folder,
                env=self.environment,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)
        deadline = time.monotonic() + 100
        while "--block" not in told.read_text():
            time.sleep(0.1)
            if node.poll() is None and time.monotonic() < deadline:
                continue
            self.kill(node)
            if tries > 1:  # on a busy machine one of Ray's processes is late, and it gives up
                return self._start(*options, tries=tries - 1)
            self.close()
            raise AssertionError(told.read_text())
        return node

    def kill(self, node: subprocess.Popen) -> None:
        """End a node as a power cut does: all its processes at once."""
        for process in [node.pid, *descendants(node.pid)]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()

    def left_over(self) -> list[str]:
        """Return what sweeps have left here: actors, and their scratch folders."""
        found = [path.name for path in self.temp.glob("gnbench-*")]
        for node in self.nodes:
            found += ["ray::Trainer"] * self.trainers(node)
        return found

    def close(self) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
        shutil.rmtree(self.temp)


def name_of(process: int) -> str:
    """Return how a process is called; "" where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode()
    except OSError:
        return ""


def descendants(root: int) -> list[int]:
    """Return the ids of all processes below one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(told[1])
    found, fresh = [], [root]
    while fresh:
        fresh = [process for process, parent in parents.items() if parent in fresh]
        found += fresh
    return found

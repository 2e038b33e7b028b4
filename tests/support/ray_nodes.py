"""A Ray cluster on loopback: each node a process tree with a working directory of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

START = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
SCRATCH = "gnbench-ray-"
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
        self.environment = kept | TOKEN | {"RAY_USAGE_STATS_ENABLED": "0"}
        self.temp = Path(f"/tmp/gnray-{os.getpid()}-{free_port()}")  # sockets have short names
        port = self.address.partition(":")[2]
        self._start("--head", f"--port={port}", "--include-dashboard=false", "--num-cpus=0")

    def add(self, cpus: int = 1) -> subprocess.Popen:
        return self._start(f"--address={self.address}", f"--num-cpus={cpus}")

    def _start(self, *options: str) -> subprocess.Popen:
        folder = self.home / f"node-{len(self.nodes)}"
        folder.mkdir(parents=True)
        fixed = ("--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--block")
        head = (f"--temp-dir={self.temp}",) if "--head" in options else ()
        node = subprocess.Popen(
            [sys.executable, "-P", "-c", START, "start", *options, *fixed, *head, "--num-gpus=0"],
            cwd=folder,
            env=self.environment,
            stdout=(folder / "stdout").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.nodes.append(node)
        told = folder / "stdout"
        deadline = time.monotonic() + 90
        while "--block" not in told.read_text():
            assert node.poll() is None, told.read_text()
            assert time.monotonic() < deadline, told.read_text()
            time.sleep(0.1)
        return node

    def kill(self, node: subprocess.Popen) -> None:
        """End a node as a power cut does: all its processes at once."""
        for process in [node.pid, *descendants(node.pid)]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()

    def close(self) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
        subprocess.run(["rm", "-rf", str(self.temp)], check=True)


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

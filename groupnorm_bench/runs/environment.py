"""Where a run happened: enough to judge whether two runs can be compared, and to repeat one."""

from __future__ import annotations

import functools
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import groupnorm_bench

SENT_COMMIT = "GNBENCH_COMMIT"
"""Variable that tells of which commit code is that came to a node without its repository."""


def describe_environment(device: str) -> dict[str, Any]:
    """Return versions, device, threads, host and command; `device` is torch's name of it."""
    import torch

    return {
        "version": groupnorm_bench.__version__,
        "commit": os.environ.get(SENT_COMMIT)
        or source_commit(Path(groupnorm_bench.__file__).parent.parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "host": platform.node(),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "command": typed_command(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def typed_command() -> list[str]:
    """Return the command line by the program's name: packs travel, and where it lies stays."""
    program = Path(sys.argv[0]).name
    return ["gnbench" if program == "__main__.py" else program, *sys.argv[1:]]


def device_name(device: str) -> str:
    """Return the model of the processor or the card."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


@functools.cache
def source_commit(checkout: Path) -> str | None:
    """Return the commit of a source checkout, read without git; None if it is no checkout.

    Read once a process: a checkout that moves on does not change the code that is loaded.
    """
    git = checkout / ".git"
    try:
        if git.is_file():  # a linked worktree
            git = Path(git.read_text().removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        shared = git / "commondir"
        common = (git / shared.read_text().strip()) if shared.exists() else git
        reference = head.removeprefix("ref: ")
        if (common / reference).exists():
            return (common / reference).read_text().strip()
        for line in (common / "packed-refs").read_text().splitlines():
            if line.endswith(f" {reference}"):
                return line.split()[0]
    except OSError:  # no commit yet, or none of ours to read
        return None
    return None

"""How we call W&B's own command line and public API: bounded, quiet, and with errors as lines."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from groupnorm_bench.errors import TrackingError, brief
from groupnorm_bench.files import scratch_folder
from groupnorm_bench.tracking.variables import OF_ONE_RUN, without

if TYPE_CHECKING:
    import wandb

_BOUNDS = {
    # Unbounded, these are 20 tries of up to 60 s, and a week for the file stream.
    "WANDB_HTTP_TIMEOUT": "10",
    "WANDB_X_GRAPHQL_RETRY_MAX": "4",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "5",
    "WANDB_X_FILE_STREAM_RETRY_MAX": "6",
    "WANDB_X_FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB_X_FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "5",
    "WANDB_X_FILE_TRANSFER_RETRY_MAX": "4",
    "WANDB_X_FILE_TRANSFER_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB_X_FILE_TRANSFER_RETRY_WAIT_MAX_SECONDS": "5",
}
_DROPPED = (
    "WANDB_SILENT",
    "WANDB_QUIET",
    "WANDB_MODE",
    *OF_ONE_RUN,
)


def bounded_environment(directory: Path) -> dict[str, str]:
    """Return the environment for a `wandb` command that gives up after a minute, not a week.

    Args:
        directory: where wandb puts its logs, instead of the working directory.
    """
    return _BOUNDS | without(_DROPPED) | {"WANDB_DIR": str(directory)}


def wandb_command(*arguments: str) -> list[str]:
    """Return the command line that runs this interpreter's `wandb`, wherever PATH leads."""
    return [sys.executable, "-P", "-m", "wandb", *arguments]  # -P: no wandb.py of this folder


def run_wandb(*arguments: str, timeout: float = 120) -> str:
    """Run a `wandb` command to its end and return what it printed.

    Raises:
        TrackingError: it failed, or took longer than `timeout` seconds.
    """
    with scratch_folder("gnbench-wandb-") as scratch:
        try:
            done = subprocess.run(
                wandb_command(*arguments),
                env=bounded_environment(scratch),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TrackingError(
                f"wandb {arguments[0]} gave no answer within {timeout:.0f} s; try again later"
            ) from None
    if done.returncode != 0:
        raise TrackingError(f"wandb {arguments[0]} failed: {last_line(done.stdout)}")
    return done.stdout


def last_line(output: str) -> str:
    """Return the line of a command's output that tells most: its last."""
    lines = [line.strip().removeprefix("wandb: ") for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


@contextlib.contextmanager
def open_api() -> Iterator[wandb.Api]:
    """Open W&B's public API; whatever it raises becomes one line.

    Raises:
        TrackingError: W&B refused, could not be reached, or has no such thing.
    """
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        yield wandb.Api(timeout=20)
    except (wandb.errors.Error, WandbApiFailedError, ValueError, OSError) as error:
        raise TrackingError(f"W&B: {brief(error)}; check the path") from error

"""W&B's environment variables: obeyed, or told why not. Loads without wandb.

What we hand to W&B's client wins over its own reading of these, so we read them ourselves.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from groupnorm_bench.errors import ConfigError, nearest
from groupnorm_bench.tracking.options import Mode, Say, TrackingOptions

OF_ONE_RUN = (
    *("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM"),
    *("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SERVICE"),
)
"""Variables that name one run: none of several processes or runs may inherit them."""
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a run's id may be: it becomes a part of paths and addresses."""
MAX_NAME = 64
"""Characters that W&B takes as a tag, and we as a group or a job type."""
_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


def under_agent() -> bool:
    """Return whether a W&B agent started this process, to do one run of a sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"))


def mode_asked() -> Mode | None:
    """Return what WANDB_MODE asks for, in whatever case; None where it is not set.

    Raises:
        ConfigError: W&B has no such mode.
    """
    asked = os.environ.get("WANDB_MODE", "").strip()
    if not asked:
        return None
    if asked.lower() not in _MODES:
        raise ConfigError(f"WANDB_MODE={asked!r} is unknown{nearest(asked.lower(), _MODES)}")
    return _MODES[asked.lower()]


def obeyed(options: TrackingOptions, say: Say, *, runs_dir: Path | None) -> TrackingOptions:
    """Return the options as the environment completes them; say what of it is left out.

    Args:
        options: of the command line, which wins.
        say: called with a line for each variable that is not obeyed.
        runs_dir: where the one run of this command is kept; None where it makes several.

    Raises:
        ConfigError: a variable's value makes no sense.
    """
    asked = mode_asked()
    if options.mode == "auto" and asked is not None:
        options = dataclasses.replace(options, mode=asked)
    if options.mode == "disabled" or under_agent():
        return options
    given = os.environ.get("WANDB_TAGS", "").split(",")
    tags = tuple(dict.fromkeys(tag.strip() for tag in given if tag.strip()))
    for tag in tags:
        if len(tag) > MAX_NAME:
            raise ConfigError(f"WANDB_TAGS: {tag[:20]!r}... has over {MAX_NAME} letters; cut it")
    changes = {
        "tags": (*options.tags, *tags),
        "group": os.environ.get("WANDB_RUN_GROUP") or None,
        "job_type": os.environ.get("WANDB_JOB_TYPE") or None,
    }
    if runs_dir is None:
        _tell_of_one_run(say)
    else:
        changes |= {"run_id": _run_id(runs_dir), "name": os.environ.get("WANDB_NAME") or None}
    if os.environ.get("WANDB_DIR"):
        say("W&B: WANDB_DIR does nothing: each run's W&B files are in its run folder")
    return dataclasses.replace(options, **changes)  # type: ignore[arg-type]


def _tell_of_one_run(say: Say) -> None:
    told = ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM")
    names = [name for name in told if os.environ.get(name)]
    if names:
        say(f"W&B: {', '.join(names)} is meant for one run; this sweep leaves it out")


def _run_id(runs_dir: Path) -> str | None:
    """Return the id that the user wants this run to have on W&B.

    Raises:
        ConfigError: it is no id, or that of another run folder here.
    """
    asked = os.environ.get("WANDB_RUN_ID")
    if not asked:
        return None
    if not RUN_ID.fullmatch(asked):
        raise ConfigError(
            f"WANDB_RUN_ID={asked!r} is no id of a run; use up to 64 letters, digits, - and _"
        )
    return asked


def without(names: tuple[str, ...]) -> dict[str, str]:
    """Return the environment less some variables."""
    return {name: value for name, value in os.environ.items() if name not in names}

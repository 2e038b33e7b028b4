"""What may be said to `sbatch`: `--slurm "partition=gpu,gres=gpu:1,time=02:00:00"`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from groupnorm_bench.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9-]+")
_FLAGS = frozenset(
    {
        *("contiguous", "exclusive", "hold", "no-kill", "no-requeue", "overcommit"),
        *("oversubscribe", "reboot", "requeue", "spread-job", "use-min-nodes"),
    }
)
"""Options of `sbatch` that may stand without a value."""
_OURS = {
    "array": "use --jobs",
    "job-name": "jobs are told apart by it",
    "chdir": "tasks work in the folder where this is typed",
    "signal": "tasks checkpoint 60 s before their limit",
    **dict.fromkeys(("output", "error", "open-mode", "export", "export-file"), "it is set here"),
    **dict.fromkeys(
        ("wrap", "wait", "parsable", "test-only", "quiet", "verbose"), "it is set here"
    ),
    **dict.fromkeys(("help", "usage", "version", "clusters"), "it submits nothing here"),
}


def sbatch_options(text: str) -> tuple[str, ...]:
    """Return the arguments of `sbatch` that a list of its long options stands for.

    A part without `=` is one of its flags, or goes on with the value before it.

    >>> sbatch_options("partition=gpu,long,time=02:00:00,exclusive")
    ('--partition=gpu,long', '--time=02:00:00', '--exclusive')

    Raises:
        ConfigError: a part is no option, or one that is set here.
    """
    given: list[str] = []
    for part in text.split(",") if text.strip() else ():
        name, equals, value = part.strip().lstrip("-").partition("=")
        if not equals and name not in _FLAGS:
            if not given or "=" not in given[-1] or not name or not part.isprintable():
                raise ConfigError(
                    f"slurm={text!r}: {part!r} is no option of sbatch; write name=value, as "
                    "partition=gpu,time=02:00:00"
                )
            given[-1] += f",{part.strip()}"
            continue
        if not _NAME.fullmatch(name) or not part.isprintable():
            raise ConfigError(
                f"slurm={text!r}: {part!r} is no long option of sbatch; write name=value, as "
                "partition=gpu,time=02:00:00"
            )
        ours = next((each for each in _OURS if each.startswith(name)), None)
        if ours is not None:  # `sbatch` takes the beginning of an option's name for the option
            raise ConfigError(f"slurm={text!r}: {_OURS[ours]}; leave {name} out")
        given.append(f"--{name}{equals}{value}")
    return tuple(given)


def cpus_asked(number: int, given: Sequence[str]) -> tuple[str, ...]:
    """Return the option for a task's CPUs: none for one, nor where the user's own say it.

    >>> cpus_asked(4, ("--partition=gpu",)), cpus_asked(4, ("--cpus-per-gpu=4",))
    (('--cpus-per-task=4',), ())
    """
    if number < 2 or any(option.startswith("--cpus-per-") for option in given):
        return ()
    return (f"--cpus-per-task={number}",)

"""The tree of errors a user can meet.

Every error meant for users derives from `GnbenchError`: the command line prints it as one
line, ``error: <name, value, remedy>``, and exits with its `exit_code`. Anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GnbenchError(Exception):
    """Something the user can mend; the message is one line: name, value, remedy."""

    exit_code = 2


class ConfigError(GnbenchError):
    """A setting, or a file of settings, is not valid."""


class SweepError(ConfigError):
    """A sweep file is not valid."""


class DataError(GnbenchError):
    """A data set is missing, altered or out of reach."""


class RunFolderError(GnbenchError):
    """A run folder cannot be read, written or claimed."""


class CheckpointError(RunFolderError):
    """A checkpoint is truncated, foreign, or belongs to another config."""


class DeviceError(GnbenchError):
    """The device asked for is not on this machine."""


class TrackingError(GnbenchError):
    """W&B refused something that the user asked for by name."""


class CompareError(GnbenchError):
    """The runs at hand cannot answer the question asked."""


class TrialError(GnbenchError):
    """A training function of the user's own raised, or returned what is no result."""


class TrainingDiverged(GnbenchError):
    """The loss became NaN or infinite; the run is recorded as `diverged`."""

    exit_code = 3


class RunsFailed(GnbenchError):
    """A sweep came to its end, and some of its runs failed or diverged."""

    exit_code = 3


class TrainingStopped(GnbenchError):
    """Training was asked to stop (Ctrl-C, SIGTERM, a sweep's end); a checkpoint is on disk."""

    exit_code = 130


def printable(text: str) -> str:
    r"""Return a text that any file and any server takes: lone surrogates are spelled out.

    They come from file names and messages that are no UTF-8.

    >>> printable("file b\udcffad")
    'file b\\udcffad'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(error: BaseException) -> str:
    """Return the kind and the message of an error in one line, to be told inside another."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))


def brief(error: BaseException) -> str:
    """Return an error's message in one line of at most 200 characters; its kind if it has none."""
    return printable(" ".join(str(error).split()) or type(error).__name__)[:200]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `known`, or `; use one of ...`.

    >>> nearest("grup", ["group", "batch"])
    "; did you mean 'group'?"
    """
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; use one of {', '.join(known)}"

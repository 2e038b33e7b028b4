"""Ctrl-C, SIGTERM, SIGHUP: at once where nothing is at stake, else when work can stop cleanly."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, Self

from groupnorm_bench.errors import TrainingStopped

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP, of a terminal that closes, is SIGTERM to us."""


class Interrupted(KeyboardInterrupt):
    """A signal that ends a command; raised in the main thread, and once."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM and SIGHUP."""
        return 130 if self.number == signal.SIGINT else 143

    @property
    def word(self) -> str:
        return "interrupted" if self.number == signal.SIGINT else "terminated"


_raised: list[Interrupted] = []
"""What ends this process. An impatient second or third signal must not break off the clean-up."""


def pending() -> Interrupted | None:
    """Return what ends this process, if anything; what it broke off may raise anything."""
    return _raised[0] if _raised else None


def install() -> None:
    """Have each of the signals raise `Interrupted`, from now to the end of the process."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)


def interrupt(number: int, frame: FrameType | None = None) -> None:
    """Raise `Interrupted`, unless it was raised before."""
    if not _raised:
        _raised.append(Interrupted(number))
        # An import that was broken off may tell the interpreter, which would tell the terminal.
        sys.unraisablehook = lambda hint: None
        raise _raised[0]


def leave() -> None:
    """Let further signals end the process by their default: only its exit is left to do."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is interrupt:
            signal.signal(number, signal.SIG_DFL)


class StopSignal:
    """While entered, the first of the signals sets a flag; a second Ctrl-C interrupts at once.

    Call the object to read the flag. Only the main thread can enter it.

    Args:
        at_stake: False where nothing is to be saved yet: then the first signal interrupts, until
            `at_stake` is set.
    """

    def __init__(self, *, at_stake: bool = True) -> None:
        self.received: int | None = None
        self.at_stake = at_stake
        self._interrupted = False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.received is not None

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_second = self.received is not None and number == signal.SIGINT
        if self.at_stake and not is_second:
            self.received = self.received or number
        elif self._previous.get(number) is interrupt:
            interrupt(number)
        elif not self._interrupted:
            self._interrupted = True
            raise Interrupted(number)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM or SIGHUP."""
        return Interrupted(self.received or signal.SIGINT).exit_code

    def stopped(self, what_is_safe: str) -> TrainingStopped:
        """Return the error that ends the command with the signal's exit code."""
        word = Interrupted(self.received or signal.SIGINT).word
        error = TrainingStopped(f"{word}; {what_is_safe}")
        error.exit_code = self.exit_code
        return error

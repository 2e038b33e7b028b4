"""Ctrl-C and SIGTERM as a flag that work in progress looks at, so that it can stop cleanly."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from groupnorm_bench.errors import TrainingStopped


class StopSignal:
    """While entered, the first Ctrl-C or SIGTERM sets a flag; a second Ctrl-C interrupts at once.

    Call the object to read the flag. Only the main thread can enter it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.received is not None

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.received or signal.SIGINT)

    def stopped(self, what_is_safe: str) -> TrainingStopped:
        """Return the error that ends the command with the signal's exit code."""
        word = "terminated" if self.received == signal.SIGTERM else "interrupted"
        error = TrainingStopped(f"{word}; {what_is_safe}")
        error.exit_code = self.exit_code
        return error

"""What a person sees while a command works that has no view of its own."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from groupnorm_bench.cli.views.training import say


class Waiting:
    """A line on stderr, there from the first moment: what is done now, and for how long.

    On a terminal it is redrawn in place whenever `tell` is called, by no thread of its own, so
    that nothing which is timed is disturbed; it is gone at the end. Elsewhere it is printed once,
    when the work has begun, so that an error before that stands alone; with `quiet`, never.
    """

    def __init__(self, line: str, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._line, self._quiet = line, quiet
        self._live: Live | None = None
        if console.is_terminal and not quiet:
            self._live = Live(console=console, auto_refresh=False, transient=True)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self.tell(self._line)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, line: str) -> None:
        """Say what is done now, in place of what was said before."""
        if self._live is not None:
            seconds = time.monotonic() - self._started
            told = Text(f"{line}  {seconds:.0f} s", style="dim", no_wrap=True, overflow="ellipsis")
            self._live.update(told, refresh=True)
        elif not self._quiet:
            self._quiet = True
            say(self._line)

    def round(self, done: int, of: int) -> None:
        """Tell how many of the rounds are done."""
        self.tell(f"{self._line}: round {done + 1} of {of}")

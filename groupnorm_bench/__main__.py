"""`python -m groupnorm_bench` is `gnbench`; and where `gnbench` begins."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run `gnbench` and exit. Ctrl-C counts from the first moment, while the command is loaded."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a script's background
        signal.signal(signal.SIGINT, _leave)
    from groupnorm_bench.cli.app import main

    main()


def _leave(number: int, frame: object) -> None:
    """End at once: there is nothing to save yet, and an import cannot be interrupted cleanly."""
    if sys.stderr is not None:
        os.write(2, b"error: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()

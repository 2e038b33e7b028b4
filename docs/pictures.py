"""Makes the pictures of terminals that pages show: each a command in a real one, as it stood then.

    python docs/pictures.py [NAME ...]

A pseudo-terminal runs the command, pyte keeps its screen, and rich writes the screen as SVG once
a condition on its text holds. Needs the extra `dev`.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
SWEEPS = DOCS.parent / "sweeps"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A command, and when its screen is taken; None: once it has ended."""

    command: str
    """As the title shows it."""
    arguments: tuple[str, ...]
    """As it is run, by `gnbench`."""
    when: Callable[[str], bool] | None = None
    columns: int = 100
    rows: int = 45


def all_busy(text: str) -> bool:
    """Return whether no worker in the live table waits for its next run."""
    return re.search(r"^ +[0-9]+ +- *$", text, re.MULTILINE) is None


PICTURES = {
    "plan": Picture(
        command="gnbench sweep sweeps/norm.yaml --dry-run",
        arguments=("sweep", "sweeps/norm.yaml", "--dry-run"),
        columns=120,
    ),
    "sweep": Picture(
        command="gnbench sweep sweeps/norm.yaml --dataset mnist-5k --epochs 2 --train-limit 500",
        arguments=(
            *("sweep", "sweeps/norm.yaml"),
            *("--dataset", "mnist-5k", "--epochs", "2", "--train-limit", "500"),
        ),
        when=lambda text: bool(re.search("(1[3-9]|[2-9][0-9])/72", text) and all_busy(text)),
    ),
    "ranking": Picture(
        command="gnbench sweep sweeps/smoke.yaml", arguments=("sweep", "sweeps/smoke.yaml")
    ),
}


def take(picture: Picture, path: Path, seconds: float = 3600) -> None:
    """Run a picture's command in a terminal and write what it showed to `path`."""
    screen = pyte.Screen(picture.columns, picture.rows)
    stream = pyte.ByteStream(screen)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(SWEEPS, Path(folder) / "sweeps")
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.execvp(
                sys.executable, [sys.executable, "-m", "groupnorm_bench.cli", *picture.arguments]
            )
        size = struct.pack("HHHH", picture.rows, picture.columns, 0, 0)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1.0)[0]:
                continue
            try:
                stream.feed(os.read(terminal, 65536))
            except OSError:  # the command has ended
                break
            if picture.when is not None and picture.when("\n".join(screen.display)):
                # The rest of a drawing under way.
                while select.select([terminal], [], [], 0.05)[0]:
                    stream.feed(os.read(terminal, 65536))
                os.kill(pid, signal.SIGTERM)
                break
        else:
            os.kill(pid, signal.SIGTERM)
            raise SystemExit(f"{picture.command}: nothing to show within {seconds:.0f} s")
        lines = shown(screen)
        while True:  # let it end in peace before its folder goes
            try:
                if not os.read(terminal, 65536):
                    break
            except OSError:
                break
        os.waitpid(pid, 0)
    write_svg(lines, picture, path)


def shown(screen: pyte.Screen) -> list[Text]:
    """Return the lines of a screen, styled, without the empty ones at its end."""
    lines = []
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        line = Text()
        for style, run in itertools.groupby(cells, key=style_of):
            line.append("".join(cell.data for cell in run), style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return lines


def style_of(cell: pyte.screens.Char) -> str:
    """Return rich's name of a cell's style."""
    colour = cell.fg
    if len(colour) == 6 and all(digit in "0123456789abcdef" for digit in colour):
        colour = f"#{colour}"
    words = ["bold"] * cell.bold + ["italic"] * cell.italics
    if colour != "default":
        words.append({"brown": "yellow"}.get(colour, colour.replace("bright", "bright_")))
    return " ".join(words)


def write_svg(lines: list[Text], picture: Picture, path: Path) -> None:
    """Write a terminal's lines as SVG, the command above them."""
    console = Console(record=True, width=picture.columns, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop")
    console.save_svg(str(path), title=f"$ {picture.command}")


if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        take(PICTURES[name], DOCS / f"{name}.svg")
        print(DOCS / f"{name}.svg")

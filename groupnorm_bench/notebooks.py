"""What Python and notebooks get beyond the command line: tables as HTML, pandas, a bar that moves.

Knows no Jupyter package: a notebook is told by the running kernel, and shown to by IPython.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from groupnorm_bench.errors import GnbenchError

if TYPE_CHECKING:
    import pandas

_SECONDS_BETWEEN = 0.2
"""The least time between two drawings of a bar in a notebook."""
_CELL = "padding:2px 10px 2px 0;white-space:nowrap;text-align:"


class MissingPackage(GnbenchError):
    """Something asked for needs a package that is not installed."""


def data_frame(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> pandas.DataFrame:
    """Return rows as a pandas table; what is None there is missing here.

    Raises:
        MissingPackage: there is no pandas.
    """
    try:
        import pandas
    except ImportError:
        raise MissingPackage(
            "to_pandas() needs the package pandas; pip install 'groupnorm-bench[notebook]'"
        ) from None
    return pandas.DataFrame(list(rows), columns=list(heads))


def html_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[str] = ()
) -> str:
    """Return a table as HTML that needs no style sheet; what stands in a cell is text.

    Args:
        heads: the columns.
        rows: their cells.
        numbers: the heads of columns that stand on the right.
    """
    right = set(numbers)
    sides = ["right" if head in right else "left" for head in heads]
    lines = ["<table>", _row("th", heads, sides)]
    lines += [_row("td", row, sides) for row in rows]
    return "\n".join([*lines, "</table>"])


def _row(tag: str, cells: Sequence[Any], sides: Sequence[str]) -> str:
    texts = ["" if cell is None else html.escape(str(cell)) for cell in cells]
    parts = [
        f'<{tag} style="{_CELL}{side}">{text}</{tag}>'
        for text, side in zip(texts, sides, strict=True)
    ]
    return f"<tr>{''.join(parts)}</tr>"


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this code."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


class Bar:
    """A bar for what takes a while and is counted, where a person watches from Python.

    In a notebook it is one output that changes in place and stays as it ended; on a terminal it
    stands on stderr and is gone at the end; elsewhere nothing is shown.

    Args:
        title: what is done.
        shown: False for none at all.
    """

    def __init__(self, title: str, *, shown: bool = True) -> None:
        self._title, self._state = title, (0, 0, "")
        self._told = float("-inf")
        self._is_notebook = shown and in_notebook()
        self._is_terminal = shown and not self._is_notebook and sys.stderr.isatty()
        self._handle: Any = None
        self._progress: Any = None

    def __enter__(self) -> Self:
        if self._is_notebook:
            from IPython.display import HTML, display

            self._handle = display(HTML(self._html()), display_id=True)
        elif self._is_terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn(self._title), BarColumn(), MofNCompleteColumn())
            words = TextColumn("{task.fields[words]}")
            console = Console(stderr=True)
            self._progress = Progress(*columns, words, console=console, transient=True)
            self._progress.add_task("", total=None, words="")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._draw()
        if self._progress is not None:
            self._progress.stop()

    def tell(self, done: int, of: int, words: str = "") -> None:
        """Show how many are done, with some words on them."""
        self._state = (done, of, words)
        if self._progress is not None:
            self._progress.update(0, completed=done, total=of, words=words)
        elif self._handle is not None and time.monotonic() - self._told >= _SECONDS_BETWEEN:
            self._draw()

    def end(self) -> None:
        """Show that all are done."""
        _, of, words = self._state
        self.tell(of, of, words)

    def _draw(self) -> None:
        from IPython.display import HTML

        self._told = time.monotonic()
        self._handle.update(HTML(self._html()))

    def _html(self) -> str:
        done, of, words = self._state
        amount = f"{done:,} of {of:,}" if of else "starting"
        text = html.escape(f"{self._title} {amount}" + (f"; {words}" if words else ""))
        value = f' value="{done}" max="{of}"' if of else ""
        return f'<progress{value} style="width:16em"></progress> <span>{text}</span>'

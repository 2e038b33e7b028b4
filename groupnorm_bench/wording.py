"""Values and amounts as a person reads them, the same in every place."""

from __future__ import annotations

import re
from typing import Any

NOT_IN_NAMES = re.compile(r"[/\\#?%:]")
"""What no project or entity of W&B's has in its name: it would be another place's address."""


def count(number: int, noun: str) -> str:
    """Return an amount with its noun, in the plural where it is not one: `1,200 runs`.

    >>> count(1, "seed"), count(1200, "run")
    ('1 seed', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: 40 s, 12 min, 3.5 h.

    >>> [duration(s) for s in (3.2, 75, 9000)]
    ['3.2 s', '75 s', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def setting_value(value: Any) -> str:
    """Return a setting's value: numbers without needless digits, a dash where there is none.

    >>> [setting_value(value) for value in (0.001, 1e30, 64, "adam", None)]
    ['0.001', '1e+30', '64', 'adam', '-']
    """
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def printable(text: str, limit: int = 300) -> str:
    r"""Return foreign text so that a terminal only shows it: one line, no control characters.

    >>> printable("1.0\x1b[2J\nnext"), printable("räume 2")
    ('1.0\\x1b[2J next', 'räume 2')
    """
    line = " ".join(text.split())
    return visible(line if len(line) <= limit else line[: limit - 3] + "...")


def visible(text: str) -> str:
    r"""Return text with its control characters, line breaks too, spelled out.

    >>> visible("a  b\x1b[2J")
    'a  b\\x1b[2J'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*|<>&"})
_BLOCK = re.compile(r"[#+=~\[-]")


def markdown(text: str, *, in_cell: bool = False) -> str:
    r"""Return text that Markdown shows as it stands, as a line of its own or in a table's cell.

    >>> markdown("a|b <img> [x](http://y)"), markdown("[0.1, 0.2] of batch_size")
    ('a\\|b \\<img\\> [x]\\(http://y)', '\\[0.1, 0.2] of batch_size')
    """
    line = " ".join(text.split()).translate(_MARKDOWN).replace("](", "]\\(")
    line = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", line)
    return f"\\{line}" if _BLOCK.match(line) and not in_cell else line


def csv_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: such text gets a quote in front.

    A missing value is `NA`, as R and pandas read it.

    >>> [csv_cell(value) for value in ("=HYPERLINK(1)", "-1", -1.5, "batch", None)]
    ["'=HYPERLINK(1)", "'-1", -1.5, 'batch', 'NA']
    """
    if value is None:
        return "NA"
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value

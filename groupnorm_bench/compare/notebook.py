"""A comparison in Python and in notebooks: shown as a table, had as pandas, drawn."""

from __future__ import annotations

import dataclasses
import html
import importlib
from typing import TYPE_CHECKING

from groupnorm_bench.compare import render
from groupnorm_bench.compare.contrast import Comparison
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.notebooks import data_frame, html_table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_DRAWER = "groupnorm_bench.report.notebook"
"""It stands above this in the house: loaded by name where a comparison is asked to draw itself."""


class Verdicts(Comparison):
    """A comparison as `groupnorm_bench.compare` returns it; a notebook shows its table."""

    __slots__ = ("_table",)
    _table: RunTable

    @classmethod
    def of(cls, comparison: Comparison, table: RunTable) -> Verdicts:
        """Return a comparison with the runs that it was made from."""
        names = [field.name for field in dataclasses.fields(comparison)]
        verdicts = cls(**{name: getattr(comparison, name) for name in names})
        object.__setattr__(verdicts, "_table", table)
        return verdicts

    @property
    def runs(self) -> RunTable:
        """The runs that were compared."""
        return self._table

    def __repr__(self) -> str:
        """The table and a sentence for each contrast, as `gnbench compare --explain` tells them."""
        sentences = "\n".join(contrast.sentence for contrast in self.contrasts)
        return f"{render.headline(self)}\n\n{render.to_text(*self._rows())}\n\n{sentences}"

    def _repr_html_(self) -> str:
        heads, rows = self._rows()
        table = html_table(heads, rows, filter(render.is_number_column, heads))
        told = [contrast.sentence for contrast in self.contrasts]
        told += [f"note: {note}" for note in self.notes]
        sentences = "".join(f"<li>{html.escape(line)}</li>" for line in told)
        return f"<p>{html.escape(render.headline(self))}</p>\n{table}\n<ul>{sentences}</ul>"

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        return render.table_of(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return the contrasts, a row each, with every digit: the columns of `--format csv`.

        Raises:
            MissingPackage: there is no pandas.
        """
        return data_frame(*render.contrasts_of(self))

    def plot(self) -> Figure:
        """Return a figure of matplotlib: each difference with its intervals, as in the report.

        Raises:
            CompareError: there is no contrast to draw.
        """
        figure: Figure = importlib.import_module(_DRAWER).draw_differences(self, self._table)
        return figure

"""The report's figures one at a time, and its summary as HTML: what a notebook shows."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING
from urllib.parse import quote

from groupnorm_bench.compare import render
from groupnorm_bench.compare.contrast import Comparison
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.notebooks import html_table, in_notebook
from groupnorm_bench.report.accuracy import differences
from groupnorm_bench.report.charts import Figure
from groupnorm_bench.report.content import Content, summary_sentence
from groupnorm_bench.report.draw_paper import draw_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure as Canvas

_SHOWN_FIRST = ("batch-size", "setting")
"""Of runs of gnbench, and of a table."""
_DPI = 90


def draw_differences(comparison: Comparison, table: RunTable) -> Canvas:
    """Return matplotlib's figure of the differences.

    Raises:
        CompareError: there is no contrast.
    """
    return _drawn(differences(comparison, table.finished))


def draw_one(content: Content, key: str, view: str | None) -> Canvas:
    """Return matplotlib's figure of that key, as `batch-size`.

    Args:
        content: of the report.
        key: the figure's.
        view: the label of the setting to draw; the first if None.

    Raises:
        CompareError: there is no such figure or view, or it has nothing to draw.
    """
    keys = [figure.key for figure in content.figures]
    if key not in keys:
        raise CompareError(f"figure={key!r} is none of a report's{nearest(key, keys)}")
    return _drawn(content.figures_of(key)[0], view)


def _drawn(figure: Figure, view: str | None = None) -> Canvas:
    if figure.absent:
        raise CompareError(f"{figure.key}: {figure.absent}")
    labels = [one.label for one in figure.views]
    if view is not None and view not in labels:
        raise CompareError(f"view={view!r} is none of {figure.key}'s{nearest(view, labels)}")
    if in_notebook():
        from matplotlib import pyplot

        pyplot.switch_backend(pyplot.get_backend())  # loaded, it has the kernel show figures
    return draw_figure(figure, 0 if view is None else labels.index(view))


def summary_html(content: Content, path: Path | None) -> str:
    """Return a report's first sentence, verdict table and first figure, with a link to the page.

    The page itself, 5 MB for its own script, would swell each notebook that shows it.
    """
    comparison = content.comparison
    heads, rows = render.table_of(comparison)
    parts = [f"<p>{html.escape(summary_sentence(content))}</p>"]
    parts.append(html_table(heads, rows, filter(render.is_number_column, heads)))
    figure = content.figures_of(*_SHOWN_FIRST)[0]
    if not figure.absent:
        drawn = io.BytesIO()
        draw_figure(figure).savefig(drawn, format="png", dpi=_DPI)
        data = base64.b64encode(drawn.getvalue()).decode()
        alt = html.escape(figure.title, quote=True)
        parts.append(f'<p><img alt="{alt}" src="data:image/png;base64,{data}"></p>')
    if path is not None:
        link, name = quote(str(path)), html.escape(str(path))
        parts.append(f'<p>The whole report: <a href="{link}" target="_blank">{name}</a></p>')
    return "\n".join(parts)

"""`groupnorm_bench.report(...)`: a report written to where it is asked for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groupnorm_bench.compare.ask import RunSource, chosen_runs, compare_table
from groupnorm_bench.compare.foreign import Columns
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.files import write_asked
from groupnorm_bench.report.content import Content, build

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Format = Literal["html", "md"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A report, and the files it was written to. A notebook shows its verdicts, and a link."""

    text: str = field(repr=False)
    """The page, or the Markdown."""
    content: Content = field(repr=False)
    """What is in it."""
    path: Path | None
    """None where it was asked for as text alone."""
    figures: tuple[Path, ...]
    """The figures as PNG and SVG, where they were asked for."""

    def _repr_html_(self) -> str:
        from groupnorm_bench.report.notebook import summary_html

        return summary_html(self.content, self.path)

    def plot(self, figure: str = "batch-size", view: str | None = None) -> Canvas:
        """Return one of its figures, by matplotlib; the ids in the page are their names.

        Args:
            figure: as `batch-size`, `differences`, `groups`, `curves`, `seconds`, `importance`.
            view: of a figure that is drawn per setting, which one, as `batch_size=8`; the first
                if None.

        Raises:
            CompareError: there is no such figure, or it has nothing to draw.
        """
        from groupnorm_bench.report.notebook import draw_one

        return draw_one(self.content, figure, view)


def report(
    runs: RunSource = "runs",
    out: str | Path | None = "report.html",
    *,
    output: Format = "html",
    figures: str | Path | None = None,
    where: str | None = None,
    choose: Iterable[str] = (),
    choose_seeds: Collection[int] = (),
    columns: Columns | None = None,
    data_dir: Path | None = None,
    command: str = "groupnorm_bench.report(...)",
    **asked: Any,
) -> Written:
    """Write one self-contained page on runs: verdicts, figures, most-missed images, provenance.

    Of another program's table: verdicts, and the figures that need nothing but its metric.

    Args:
        runs: where they lie, or what `load_runs` returned.
        out: the file; None for the text alone.
        output: a page, or Markdown.
        figures: a folder for the figures as PNG and SVG.
        where, choose, choose_seeds: see `groupnorm_bench.compare`.
        columns: of a table of results, which column is what; of runs, which settings make the arm.
        data_dir: where the gallery looks for test images; nothing is fetched.
        command: what makes this report again, for the reader.
        asked: whatever else `groupnorm_bench.compare` takes, as `baseline` and `margin`.

    Raises:
        CompareError: there is nothing to compare, or an argument is not valid.
        RunFolderError, TrackingError: a source cannot be read, or a file not written.
    """
    columns = dataclasses.replace(columns or Columns(), metric=asked.get("metric"))
    table = chosen_runs(runs, where, choose, choose_seeds, columns)
    comparison = compare_table(table, runs, details=False, aggregates=False, **asked)
    content = build(
        table,
        comparison,
        sources=_places(runs),
        data_dir=data_dir or default_data_dir(),
        command=command,
    )
    pictures = _save_figures(content, figures)
    path = None if out is None else Path(out)
    text = _text(content, output, path, pictures)
    if path is not None:
        write_asked(path, text.encode(errors="backslashreplace"), "out")
    return Written(text=text, content=content, path=path, figures=tuple(pictures))


def _places(runs: RunSource) -> list[str]:
    if isinstance(runs, RunTable):
        return sorted({str(Path(row.source).parent) for row in runs.rows})
    return [str(place) for place in ([runs] if isinstance(runs, str | Path) else runs)]


def _save_figures(content: Content, folder: str | Path | None) -> list[Path]:
    if folder is None:
        return []
    from groupnorm_bench.report.draw_paper import save_figures

    return save_figures(content.figures, Path(folder))


def _text(content: Content, output: Format, path: Path | None, pictures: Sequence[Path]) -> str:
    if output == "html":
        from groupnorm_bench.report.page import render

        return render(content)
    from groupnorm_bench.report.markdown import render_markdown

    home = path.parent if path is not None else Path()
    return render_markdown(
        content, [Path(os.path.relpath(p, home)) for p in pictures if p.suffix == ".png"]
    )


def is_stdout(path: Path) -> bool:
    """Return whether a path leads to what stdout writes to, as /dev/stdout does."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # not there yet, or stdout is closed
        return False

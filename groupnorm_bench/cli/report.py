"""`gnbench report`: one HTML file with the verdicts and the figures; or Markdown, or pictures."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groupnorm_bench.cli.app import (
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    app,
    print_json,
)
from groupnorm_bench.cli.comparing import (
    Alpha,
    Baseline,
    Choose,
    Margin,
    Metric,
    Where,
    load_chosen,
)
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.errors import CompareError, RunFolderError, nearest

if TYPE_CHECKING:
    from groupnorm_bench.report.content import Content

FORMATS = ("html", "md")
DEFAULT_OUT = Path("report.html")


@app.command("report")
def report_command(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Folders of runs, merged.", show_default="runs")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; report.html, and stdout for md.", show_default=False),
    ] = None,
    output: Annotated[str, typer.Option("--format", help="html or md.")] = "html",
    figures: Annotated[
        Path | None, typer.Option(help="Folder for the figures as PNG and SVG.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    baseline: Baseline = None,
    metric: Metric = "test/accuracy",
    where: Where = None,
    choose: Choose = None,
    alpha: Alpha = 0.05,
    margin: Margin = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained page: verdicts, figures, most-missed digits, runs, provenance."""
    if output not in FORMATS:
        raise CompareError(f"format={output!r} is unknown{nearest(output, FORMATS)}")
    if open_it and output != "html":
        raise CompareError("--open opens the page; leave --format md out")
    content = _content(
        list(runs or [str(DEFAULT_RUNS_DIR)]),
        where,
        choose,
        {"baseline": baseline, "metric": metric, "alpha": alpha, "margin": margin},
        data_dir or default_data_dir(),
    )
    pictures = _save_figures(content, figures)
    path = out if out is not None or output == "md" else DEFAULT_OUT
    _write(content, output, path, pictures)
    if as_json and path is not None:
        print_json({"report": str(path), "figures": [str(picture) for picture in pictures]})
    elif path is not None:
        typer.echo(str(path))
    if open_it and path is not None:
        _open(path)


def _content(
    sources: list[str],
    where: str | None,
    choose: str | None,
    options: dict[str, Any],
    data_dir: Path,
) -> Content:
    from groupnorm_bench.compare.verdicts import compare_runs
    from groupnorm_bench.report.content import build

    table = load_chosen(sources, where, choose)
    return build(
        table,
        compare_runs(table, **options),
        sources=sources,
        data_dir=data_dir,
        command=shlex.join(["gnbench", *sys.argv[1:]]),
    )


def _save_figures(content: Content, folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.report.draw_paper import save_figures

    paths = save_figures(content.figures, folder)
    say(f"{len(paths)} pictures in {folder}")
    return paths


def _write(content: Content, output: str, path: Path | None, pictures: list[Path]) -> None:
    if output == "html":
        from groupnorm_bench.report.page import render

        text = render(content)
    else:
        from groupnorm_bench.report.markdown import render_markdown

        home = path.parent if path is not None else Path()
        pngs = [Path(os.path.relpath(p, home)) for p in pictures if p.suffix == ".png"]
        text = render_markdown(content, pngs)
    if path is None:
        typer.echo(text, nl=False)
        return
    from groupnorm_bench.runs import write_atomic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"out={str(path)!r} cannot be written: {error.strerror}; choose another --out"
        ) from error
    write_atomic(path, text.encode())


def _open(path: Path) -> None:
    import webbrowser

    from groupnorm_bench.cli.views.training import say

    if not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser found here; open {path} in one")

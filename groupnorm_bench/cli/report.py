"""`gnbench report`: one HTML file with the verdicts and the figures; or Markdown, or pictures."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import (
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    app,
    print_json,
    told,
)
from groupnorm_bench.cli.comparing import Asking, with_asking
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    from groupnorm_bench.report.write import Format

_FORMATS = ("html", "md")
_OUT = Path("report.html")


@app.command("report")
@with_asking
def report_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of runs, packs, or ENTITY/PROJECT[/SWEEP] on W&B, merged; or one table "
            "of results: CSV, JSON lines, Parquet.",
            metavar="RUNS",
            show_default="runs",
            autocompletion=completing.run_folders,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; report.html, and stdout for md.", show_default=False),
    ] = None,
    output: Annotated[
        str,
        typer.Option("--format", help="html or md.", autocompletion=completing.words(_FORMATS)),
    ] = "html",
    figures: Annotated[
        Path | None, typer.Option(help="Folder for the figures as PNG and SVG.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    *,
    asked: Asking,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained page: verdicts, figures, most-missed images, runs, provenance."""
    if output not in _FORMATS:
        raise CompareError(f"format={output!r} is unknown{nearest(output, _FORMATS)}")
    if open_it and output != "html":
        raise CompareError("--open opens the page; leave --format md out")
    from groupnorm_bench.cli.views.training import say

    with told("reading the runs, drawing the report"):
        from groupnorm_bench.report.write import is_stdout, report

        written = report(
            list(runs or [str(DEFAULT_RUNS_DIR)]),
            out if out is not None or output == "md" else _OUT,
            output=cast("Format", output),
            figures=figures,
            rule=asked.rule,
            **asked.choice(),
            **asked.question(),
            data_dir=data_dir,
            command=shlex.join(["gnbench", *sys.argv[1:]]),
        )
    if figures is not None:
        say(f"{count(len(written.figures), 'picture')} in {figures}")
    if written.path is None:
        typer.echo(written.text, nl=False)
    elif is_stdout(written.path):
        return  # the report is there: nothing may be written over it
    elif as_json:
        pictures = [str(picture) for picture in written.figures]
        print_json({"report": str(written.path), "figures": pictures})
    else:
        typer.echo(str(written.path))
    if open_it and written.path is not None:
        _open(written.path)


def _open(path: Path) -> None:
    import webbrowser

    from groupnorm_bench.cli.views.training import say

    if not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser found here; open {path} in one")

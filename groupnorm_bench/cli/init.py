"""`gnbench init`: a sweep file of ours to edit."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import app
from groupnorm_bench.errors import SweepError, nearest
from groupnorm_bench.sweep.file.shipped import shipped_sweeps
from groupnorm_bench.wording import printable


@app.command("init")
def init_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=f"Which one: {', '.join(shipped_sweeps())}.",
            autocompletion=completing.sweeps,
        ),
    ] = "norm",
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The copy.", show_default="NAME.yaml"),
    ] = None,
) -> None:
    """Write a copy of one of our sweep files, with its comments, to be edited; never over a file
    that is there."""
    sweeps = shipped_sweeps()
    if name not in sweeps:
        raise SweepError(
            f"name={printable(name, limit=60)!r} is no sweep of ours{nearest(name, sweeps)}"
        )
    source, copy = sweeps[name], Path(f"{name}.yaml") if file is None else file
    pairs = [(source, copy)]
    question = source.with_name(f"{source.stem}.question.yaml")
    if question.exists():
        pairs.append((question, copy.with_name(f"{copy.stem}.question.yaml")))
    shown = printable(str(copy))
    for _, target in pairs:
        if os.path.lexists(target):
            raise SweepError(
                f"{printable(str(target))} is there already; name another file: "
                f"gnbench init {name} FILE"
            )
    try:
        for original, target in pairs:
            text = original.read_text(encoding="utf-8")
            typed = text.replace(f"sweeps/{source.name}", printable(str(target)))
            with target.open("x", encoding="utf-8") as written:
                written.write(typed)
    except OSError as error:
        raise SweepError(f"{shown} cannot be written: {error.strerror}; name another") from error
    typer.echo(f"{shown}\nnext: gnbench sweep {shlex.quote(shown)} --dry-run")

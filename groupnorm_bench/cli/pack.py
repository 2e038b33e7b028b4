"""`gnbench pack` and `gnbench unpack`: many run folders as one file, and back."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Annotated

import typer

from groupnorm_bench.cli.app import DEFAULT_RUNS_DIR, AsJson, Quiet, RunsDir, app, print_json
from groupnorm_bench.wording import count


@app.command("pack")
def pack_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUNS", help="Folders of run folders, or packs to merge."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack; NAME.gnb.")] = Path(
        "runs.gnb"
    ),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add finished runs to one sealed file; compare, report, status and sync read it."""
    from groupnorm_bench.cli.views.progress import bar
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.runs import list_folders, pack_runs
    from groupnorm_bench.tracking.sweeps import find_records, united

    places = runs or [DEFAULT_RUNS_DIR]
    every = [list_folders(path) for path in places]
    records, problems = find_records([*([out] if os.path.lexists(out) else []), *places])
    sweeps = {name: record.to_json() for name, record in united(records).items()}
    with bar("packing", sum(map(len, every)), quiet) as advance:
        folders = itertools.chain.from_iterable(every)
        packed = pack_runs(folders, out, sweeps=sweeps, on_run=advance)
    problems += packed.problems
    if not quiet:
        for problem in problems:
            say(problem)
    if as_json:
        print_json(
            {"pack": str(out), "added": packed.added, "known": packed.known}
            | {"problems": problems}
        )
        return
    typer.echo(f"{out}  {count(packed.added, 'run')} added, {packed.known} there already")
    if not quiet:
        say(f"{out.stat().st_size / 1e6:.1f} MB; read it by: gnbench compare {out}")


@app.command("unpack")
def unpack_command(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="What gnbench pack made.")],
    out: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the runs of a pack as run folders again, byte for byte."""
    from groupnorm_bench.cli.views.progress import bar
    from groupnorm_bench.runs import list_folders, unpack_runs
    from groupnorm_bench.tracking.sweeps import find_records, united

    sweeps = united(find_records([pack, *([out] if out.is_dir() else [])])[0])
    with bar("unpacking", len(list_folders(pack)), quiet) as advance:
        written, known = unpack_runs(pack, out, on_run=advance)
    for record in sweeps.values():
        record.write(out)
    if as_json:
        print_json({"runs": str(out), "written": written, "known": known})
    else:
        typer.echo(f"{out}  {count(written, 'run')} written, {known} there already")

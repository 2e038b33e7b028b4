"""`gnbench data`: which data sets are here, verified; and fetching one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import AsJson, DataDir, app, print_json
from groupnorm_bench.datasets import DATASETS, dataset_spec
from groupnorm_bench.datasets.naming import is_own_data
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.errors import ConfigError, DataError, nearest
from groupnorm_bench.wording import count, printable

_FETCHED = [name for name, spec in DATASETS.items() if spec.torchvision]
_NAME_HELP = (
    f"{', '.join(_FETCHED[:-1])} or {_FETCHED[-1]}: fetch and verify it. Your own: verify it."
)


@app.command("data")
def data_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help=_NAME_HELP, autocompletion=completing.data_sets),
    ] = None,
    data_dir: DataDir = None,
    mirror: Annotated[str | None, typer.Option(help="URL of a folder with its archives.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the data sets found and verify their files, or fetch one."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.datasets.fetch import fetch

    data_dir = data_dir or default_data_dir()
    if mirror is not None and name not in _FETCHED:
        raise ConfigError(
            f"mirror={mirror!r} is for a data set that is fetched; name one: {', '.join(_FETCHED)}"
        )
    if name is not None and name not in DATASETS and not is_own_data(name):
        raise ConfigError(f"dataset={name!r} is unknown{nearest(name, DATASETS)}")
    if name in _FETCHED:
        fetch(name, data_dir, mirror=mirror, say=say)
    rows = [_look(candidate, data_dir) for candidate in ([name] if name else DATASETS)]
    if as_json:
        print_json({"data_dir": str(data_dir), "datasets": rows})
    else:
        typer.echo(f"data sets in {data_dir}")
        for row in rows:
            typer.echo(f"  {row['dataset']:<15} {row['state']}")
    if name is not None and not rows[0]["usable"]:
        raise DataError(str(rows[0]["state"]))


def _look(name: str, data_dir: Path) -> dict[str, object]:
    from groupnorm_bench.datasets.fetch import is_on_disk

    if is_own_data(name):
        return _look_at_own(name)
    spec = DATASETS[name]
    if not spec.torchvision:
        state, usable = spec.help, True
    elif not is_on_disk(name, data_dir):
        state, usable = f"not here; fetch it: gnbench data {name}", False
    else:
        try:
            read = spec.load(data_dir)
            state, usable = f"{sum(spec.counts):,} images, verified", True
            if not read.verified:
                state = f"{sum(spec.counts):,} images, not verified: no archives (.gz) beside them"
        except DataError as error:
            state, usable = str(error), False
    return {"dataset": name, "state": state, "usable": usable}


def _look_at_own(name: str) -> dict[str, object]:
    from groupnorm_bench.datasets.load import resolve_dataset

    name = resolve_dataset(name, default_data_dir())
    spec = dataset_spec(name)
    channels, height, width = spec.image_shape
    train, val, test = spec.counts
    classes = f"{spec.num_classes} classes"
    if spec.class_names:
        classes += f" ({', '.join(map(printable, spec.class_names[:20]))})"
    state = (
        f"{train:,} / {val:,} / {test:,} images (train / val / test) of {width}x{height} pixels, "
        f"{count(channels, 'channel')}, {classes}"
    )
    return {"dataset": name, "state": state, "usable": True}

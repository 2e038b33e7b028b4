"""`gnbench bench`: speed of norm layers and of training on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import AsJson, Threads, app, print_json
from groupnorm_bench.cli.helping import App
from groupnorm_bench.errors import ConfigError, nearest
from groupnorm_bench.norms import NORMS
from groupnorm_bench.processors import available, give_torch_threads
from groupnorm_bench.settings.config import MAX_COUNT, TrainConfig
from groupnorm_bench.settings.fields import PRECISIONS
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    from groupnorm_bench.bench.layers import LayerSpeed, Shape
    from groupnorm_bench.bench.steps import TrainSpeed
    from groupnorm_bench.bench.timing import Spread

MAX_NUMBERS = 2**28
"""In an input to a layer: 1 GB, of which a pass keeps several."""

bench_app = App(help="Speed and memory of norm layers, speed of training.")
app.add_typer(bench_app, name="bench")

Norms = Annotated[
    list[str] | None,
    typer.Option(
        "--norm",
        help="A norm; repeat for more.",
        metavar="NAME",
        autocompletion=completing.norms,
        rich_help_panel="Options",
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        help="fp32 or bf16; repeat for more.",
        metavar="NAME",
        autocompletion=completing.words(PRECISIONS),
        rich_help_panel="Options",
    ),
]
Groups = Annotated[
    int,
    typer.Option(
        "--groups", "--num-groups", min=1, max=MAX_COUNT, help="Groups of norms that have some."
    ),
]
Repeats = Annotated[
    int, typer.Option(min=1, max=100_000, help="Rounds; each times every case once.")
]
Plot = Annotated[Path | None, typer.Option("--plot", help="Write a bar chart to this HTML file.")]


@bench_app.command("layers")
def layers_command(
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="B,C,H,W", help="batch,channels,height,width; repeat for more."
        ),
    ] = None,
    norm: Norms = None,
    precision: Precisions = None,
    groups: Groups = 8,
    repeats: Repeats = 20,
    threads: Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
) -> None:
    """Time norm + ReLU + 2x2 max-pool, forward and backward: torch's modules against ours."""
    norms = _known(norm, NORMS, "norm")
    precisions = _known(precision, PRECISIONS, "precision")
    shapes = [_parse_shape(text) for text in shape or []]
    _check_plot(plot)
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.cli.views.waiting import Waiting

    with Waiting(f"timing {count(len(norms), 'norm')}") as waiting:
        from groupnorm_bench.bench.layers import bench_layers, cnn_shapes

        give_torch_threads(threads)
        rows, notes = bench_layers(
            shapes or cnn_shapes(), precisions, groups, repeats, norms, waiting.round
        )
    for note in notes:
        say(note)
    if plot is not None:
        labels = [f"{r.norm} {r.way} {r.precision} {_shape_text(r.shape)}" for r in rows]
        _draw(plot, labels, [r.microseconds for r in rows], "microseconds per image")
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    _print_layers(rows)
    _print_threads()


@bench_app.command("train")
def train_command(
    norm: Norms = None,
    batch_size: Annotated[
        list[int] | None, typer.Option("--batch-size", help="Images per step; repeat for more.")
    ] = None,
    precision: Precisions = None,
    groups: Annotated[
        list[int] | None,
        typer.Option(
            *("--groups", "--num-groups"),
            min=1,
            max=MAX_COUNT,
            help="Groups, 8 if not given; or more.",
        ),
    ] = None,
    repeats: Repeats = 20,
    threads: Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
) -> None:
    """Time training steps against the limit: the convolutions and the linear layer alone."""
    norms = _known(norm, NORMS, "norm") if norm else ["none", "batch", "group"]
    configs = [
        TrainConfig(norm=name, batch_size=size, precision=kind, num_groups=count)
        for size in batch_size or [64, 256]
        for kind in _known(precision, PRECISIONS, "precision")
        for name in norms
        for count in groups or [8]
    ]
    configs = list({config.cell: config for config in configs}.values())  # groups may be inert
    _check_plot(plot)
    from groupnorm_bench.cli.views.waiting import Waiting

    with Waiting(f"timing {count(len(configs), 'training')}") as waiting:
        from groupnorm_bench.bench.steps import bench_train

        give_torch_threads(threads)
        rows = bench_train(configs, repeats, waiting.round)
    if plot is not None:
        labels = [f"{r.arm} {r.precision} b{r.batch_size}" for r in rows]
        _draw(plot, labels, [r.images_per_second for r in rows], "images per second")
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    _print_train(rows)
    _print_threads()


def _known(given: list[str] | None, known: Iterable[str], name: str) -> list[str]:
    for value in given or []:
        if value not in known:
            raise ConfigError(f"{name}={value!r} is unknown{nearest(value, known)}")
    return given or list(known)


def _parse_shape(text: str) -> Shape:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){3}", text):
        raise ConfigError(
            f"shape={text!r} is not batch,channels,height,width; write it as 64,32,28,28"
        )
    batch, channels, height, width = (int(part[:19]) for part in text.split(","))
    if (numbers := batch * channels * height * width) > MAX_NUMBERS:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise ConfigError(f"shape={shown!r} has {numbers:,} numbers; {MAX_NUMBERS:,} is the most")
    return batch, channels, height, width


def _check_plot(plot: Path | None) -> None:
    if plot is None:
        return
    if plot.suffix != ".html" or not plot.parent.is_dir() or plot.is_dir():
        raise ConfigError(f"plot={str(plot)!r} must be an .html file in a folder that exists")


def _print_threads() -> None:
    """Say on how many threads: speeds of one and of two are no comparison."""
    import torch

    typer.echo(
        f"on {count(torch.get_num_threads(), 'thread')} of {count(available(), 'processor')}"
    )


def _shape_text(shape: Shape) -> str:
    return "x".join(str(length) for length in shape)


def _print_layers(rows: list[LayerSpeed]) -> None:
    typer.echo(
        "norm + ReLU + 2x2 max-pool, forward and backward: microseconds per image\n"
        f"{'norm':<13}{'way':<9}{'precision':<10}{'shape':<14}{'median':>7}{'10 to 90 %':>17}"
        f"{'saved MB':>10}"
    )
    for row in rows:
        time = row.microseconds
        typer.echo(
            f"{row.norm:<13}{row.way:<9}{row.precision:<10}{_shape_text(row.shape):<14}"
            f"{time.median:>7.1f}{f'{time.low:.1f} to {time.high:.1f}':>17}{row.saved_mb:>10.1f}"
        )


def _print_train(rows: list[TrainSpeed]) -> None:
    typer.echo(
        f"{'arm':<14}{'precision':<11}{'batch':>6}{'images/s':>10}{'10 to 90 %':>18}"
        f"{'limit':>9}{'of limit':>10}"
    )
    for row in rows:
        rate = row.images_per_second
        typer.echo(
            f"{row.arm:<14}{row.precision:<11}{row.batch_size:>6}{rate.median:>10,.0f}"
            f"{f'{rate.low:,.0f} to {rate.high:,.0f}':>18}{row.limit:>9,.0f}{row.share:>10.0%}"
        )


def _draw(path: Path, labels: list[str], spreads: list[Spread], unit: str) -> None:
    """Write one bar chart, medians with the tenth to the ninetieth percentile as whiskers."""
    import plotly.graph_objects as go

    from groupnorm_bench.files import write_asked

    figure = go.Figure(
        go.Bar(
            x=[spread.median for spread in spreads],
            y=labels,
            orientation="h",
            error_x={
                "array": [spread.high - spread.median for spread in spreads],
                "arrayminus": [spread.median - spread.low for spread in spreads],
            },
        )
    )
    figure.update_layout(
        xaxis_title=unit,
        yaxis_autorange="reversed",
        height=120 + 24 * len(labels),
        margin_l=260,
        template="plotly_white",
    )
    write_asked(path, figure.to_html(include_plotlyjs=True).encode(), "plot")

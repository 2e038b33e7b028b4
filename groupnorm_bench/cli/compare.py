"""`gnbench compare`: verdicts on runs, as a table, as data, or as the answer to one claim."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import DEFAULT_RUNS_DIR, AsJson, app, print_drawn, print_json, told
from groupnorm_bench.cli.comparing import AllPairs, Asking, with_asking
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.wording import markdown

if TYPE_CHECKING:
    from rich.table import Table

    from groupnorm_bench.compare.claims import Answer
    from groupnorm_bench.compare.contrast import Comparison

_FORMATS = ("table", "csv", "json", "md", "latex")


@app.command("compare")
@with_asking
def compare_command(
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
    *,
    asked: Asking,
    all_pairs: AllPairs = False,
    output: Annotated[
        str,
        typer.Option(
            "--format",
            help="table, csv, json, md or latex.",
            autocompletion=completing.words(_FORMATS),
        ),
    ] = "table",
    explain: Annotated[
        bool, typer.Option("--explain", help="With p, odds, costs and a sentence a contrast.")
    ] = False,
    runs_csv: Annotated[
        Path | None,
        typer.Option("--runs-csv", help="Write the runs to this CSV file.", metavar="FILE"),
    ] = None,
    as_json: AsJson = False,
    claim: Annotated[
        str | None,
        typer.Option(help="'group-g8 > batch': exit 0 supported, 4 refuted, 5 undecided."),
    ] = None,
) -> int:
    """Say which arm is better, by how much, and whether the difference is real."""
    if output not in _FORMATS:
        raise CompareError(f"format={output!r} is unknown{nearest(output, _FORMATS)}")
    if explain and (as_json or output != "table"):
        raise CompareError("--explain is for the table; the other formats tell all anyway")
    places = runs or [str(DEFAULT_RUNS_DIR)]
    output = "json" if as_json else output
    if claim is not None:
        others: dict[str, object] = {
            "baseline": asked.baseline,
            "decide": asked.decide,
            "all-pairs": all_pairs or None,
            "explain": explain or None,
            "runs-csv": runs_csv,
        }
        for name, given in others.items():
            if given is not None:
                raise CompareError(f"--{name} has no use beside --claim; leave it out")
        with told("reading the runs"):
            answer = _answer(claim, places, asked)
        _print_answer(answer, output)
        return answer.exit_code
    how: dict[str, Any] = {
        "details": output in ("json", "csv"),  # only these forms tell of them
        "aggregates": output in ("json", "md") or explain,
    }
    with told("reading the runs"):
        from groupnorm_bench.compare.ask import chosen_runs, compare_table

        table = chosen_runs(places, **asked.choice())
        how |= {"rule": asked.rule, "all_pairs": all_pairs}
        comparison = compare_table(table, places, **how, **asked.question())
    if runs_csv is not None:
        if table.metric is not None:
            raise CompareError("--runs-csv writes runs of gnbench; these are in a file already")
        from groupnorm_bench.compare.render import runs_to_csv
        from groupnorm_bench.files import write_asked

        write_asked(runs_csv, runs_to_csv(table).encode(errors="backslashreplace"), "runs-csv")
    print_comparison(comparison, output, places=runs or (), explain=explain)
    return 0


def _answer(claim: str, places: Sequence[str], asked: Asking) -> Answer:
    from groupnorm_bench.compare.ask import asked_of, chosen_runs
    from groupnorm_bench.compare.claims import answer_claim
    from groupnorm_bench.compare.question import Question

    table = chosen_runs(places, **asked.choice())
    given = {name: value for name, value in asked.question().items() if value is not None}
    question = asked_of(places)[0] if table.metric is None else Question(metric=table.metric)
    return answer_claim(table, claim, question, rule=asked.rule, **given)


def _print_answer(answer: Answer, output: str) -> None:
    if output == "json":
        verdict = {"claim": answer.claim, "outcome": answer.outcome, "sentence": answer.sentence}
        print_json(verdict | answer.comparison.to_dict())
    else:
        typer.echo(answer.sentence)


def print_comparison(
    comparison: Comparison, output: str, *, places: Sequence[str] = (), explain: bool = False
) -> None:
    """Print a comparison to stdout, in one of `_FORMATS`.

    Args:
        comparison: the verdicts.
        output: the format.
        places: where the runs lie, for the commands to type next.
        explain: with p, probabilities, costs and a sentence for each contrast.
    """
    from groupnorm_bench.compare import render
    from groupnorm_bench.compare.latex import to_latex

    if output == "json":
        print_json(comparison.to_dict())
    elif output in ("csv", "latex"):
        write = render.to_csv if output == "csv" else to_latex
        typer.echo(write(comparison), nl=False)
        for note in comparison.notes:
            typer.echo(f"note: {note}", err=True)
    elif output == "md":
        _print_all(comparison, as_markdown=True)
    elif explain:
        _print_all(comparison, as_markdown=False)
    else:
        from groupnorm_bench.cli.views.answer import draw_answer

        print_drawn(draw_answer(comparison, places))


def _print_all(comparison: Comparison, *, as_markdown: bool) -> None:
    """Print every table and a sentence for each contrast."""
    from groupnorm_bench.compare import render

    shown = markdown if as_markdown else str
    typer.echo(shown(render.headline(comparison)))
    for table in (render.table_of(comparison), *render.extras(comparison)):
        typer.echo()
        if as_markdown:
            typer.echo(render.to_markdown(*table))
        elif sys.stdout.isatty():
            _print_rich(*table)
        else:
            typer.echo(render.to_text(*table))
    bullet = "- " if as_markdown else ""
    lines = [contrast.sentence for contrast in comparison.contrasts]
    lines = lines or ["One arm alone: there is nothing to compare it with."]
    typer.echo("\n" + "\n".join(bullet + shown(line) for line in lines))
    if comparison.notes:
        typer.echo("\n" + "\n".join(bullet + shown(f"note: {note}") for note in comparison.notes))


def _print_rich(heads: list[str], rows: list[list[str]]) -> None:
    """Print the table; on a terminal too narrow for all of it, the costs in a second one."""
    from rich.console import Console

    from groupnorm_bench.compare.render import COSTS

    console = Console()
    table = _rich_table(heads, rows)
    unbounded = console.options.update(max_width=10_000)
    fits = console.measure(table, options=unbounded).maximum <= console.width
    if fits or COSTS[0] not in heads:
        console.print(table)
        return
    first = heads.index(COSTS[0])
    named = heads.index("n")  # the columns before it say which cell this is
    console.print(_rich_table(heads[:first], [row[:first] for row in rows]))
    console.print(
        _rich_table(heads[:named] + heads[first:], [row[:named] + row[first:] for row in rows])
    )


def _rich_table(heads: list[str], rows: list[list[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from groupnorm_bench.cli.views.answer import STYLES
    from groupnorm_bench.compare.render import is_number_column

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        side: Literal["left", "right"] = "right" if is_number_column(head) else "left"
        table.add_column(Text(head), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table

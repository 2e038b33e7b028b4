"""The Typer app, and how it ends: one line and an exit code, or a traceback for our own bugs."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException
from typer.main import get_command

import groupnorm_bench
from groupnorm_bench import places, signals, streams
from groupnorm_bench.cli import completing
from groupnorm_bench.cli.helping import App, meant
from groupnorm_bench.datasets.place import require_folder
from groupnorm_bench.errors import GnbenchError
from groupnorm_bench.processors import wait_without_spinning
from groupnorm_bench.wording import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

app = App(
    name="gnbench",
    help="Which normalisation should I use, and is the difference real?",
    epilog="`gnbench COMMAND -h` tells more; `gnbench --install-completion` completes names.",
    pretty_exceptions_enable=False,
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        "--data_dir",
        envvar="GNBENCH_DATA_DIR",
        show_envvar=True,
        help="Folder of the data sets.",
        metavar="DIR",
        autocompletion=completing.folders,
        callback=require_folder,
    ),
]
RunsDir = Annotated[
    Path,
    typer.Option(
        "--out",
        envvar="GNBENCH_RUNS_DIR",
        show_envvar=False,
        help="Folder of the run folders.",
        metavar="DIR",
        autocompletion=completing.folders,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no hints.")]

DEFAULT_RUNS_DIR = Path("runs")
MAX_THREADS = 512
"""More than any machine of ours has; some tens of thousands end in a segmentation fault."""

Threads = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_THREADS, help="Processor threads; torch's choice if not given."),
]
WorkerThreads = Annotated[
    int,
    typer.Option(
        min=1, max=MAX_THREADS, help="Processor threads of each worker; results depend on it."
    ),
]


_REFUSALS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP)
"""What the system has against a path that was typed, wherever it is first looked at."""


@app.callback(invoke_without_command=True)
def _alone(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"gnbench {groupnorm_bench.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def print_json(document: Any) -> None:
    """Print one JSON document to stdout; numbers that are not finite become null."""
    from groupnorm_bench.runs import finite

    typer.echo(json.dumps(finite(document), indent=2, allow_nan=False))


def print_drawn(drawn: RenderableType) -> None:
    """Print a table or a text to stdout; off a terminal, nothing is broken or cut to 80 columns."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)
    console.print(drawn, soft_wrap=not console.is_terminal)


def told(line: str) -> AbstractContextManager[object]:
    """Return a context in which a terminal shows what is done now; elsewhere nothing is loaded."""
    if not sys.stderr.isatty():
        return nullcontext()
    from groupnorm_bench.cli.views.waiting import Waiting

    return Waiting(line)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run `gnbench` and exit: 0 done, 2 the user can mend it, 3 diverged or failed, 130, 143."""
    wait_without_spinning()
    streams.install()
    signals.install()
    places.ensure_home()
    os.environ["PYTHONSAFEPATH"] = "1"  # no child imports what lies in the working directory
    code = run(args)
    lost = streams.lost_output()
    if lost is not None:
        code = _fail(f"stdout cannot be written: {lost}; its last lines are lost", code or 2)
    signals.leave()
    sys.exit(code)


def run(args: Sequence[str] | None = None) -> int:
    """Run `gnbench` and return its exit code; only our own bugs escape as exceptions."""
    try:
        code = _run(args)
    except BaseException:  # a signal may break anything off: then it is what is told
        if signals.pending() is None:
            raise
    signal = signals.pending()
    return code if signal is None else _fail(signal.word, signal.exit_code)


def _run(args: Sequence[str] | None) -> int:
    try:
        outcome = get_command(app)(args=args, prog_name="gnbench", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130 if signals.pending() else _fail("interrupted", 130)
    except GnbenchError as error:
        if signals.pending():  # it came of code that was interrupted
            return 130
        _tell_agent(error)
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None or error.errno not in _REFUSALS:
            raise
        name = printable(os.fsdecode(error.filename), limit=200)
        return _fail(f"{name}: {error.strerror}; give another path", 2)
    except TyperException as error:
        typed = sys.argv[1:] if args is None else args
        message = meant(error, typed) or getattr(error, "format_message", error.__str__)()
        return _fail(message, getattr(error, "exit_code", 2)) if message else 0
    return outcome if isinstance(outcome, int) else 0


def _tell_agent(error: GnbenchError) -> None:
    """Let W&B know why the run that its agent asked for came to nothing."""
    if not os.environ.get("WANDB_RUN_ID"):
        return
    from groupnorm_bench.tracking.agent_run import report_failure

    report_failure(error)


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {printable(message, limit=2_000)}", file=sys.stderr, flush=True)
    return exit_code

"""How `gnbench` ends, whatever happens: an exit code, and one line at most."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from groupnorm_bench import __version__
from groupnorm_bench.cli.app import run
from groupnorm_bench.errors import GnbenchError
from tests.support.command_line import COMMAND


def ends_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def command(**rest: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["groupnorm_bench.cli.app"], "get_command", lambda app: command)
    return run([])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_ctrl_c_anywhere_is_130(monkeypatch, capsys, error):
    assert ends_with(monkeypatch, error) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_an_error_of_many_lines_is_printed_as_one(monkeypatch, capsys):
    assert ends_with(monkeypatch, GnbenchError("one\n  two")) == 2
    assert capsys.readouterr().err == "error: one two\n"


def test_our_own_bug_is_not_swallowed(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        ends_with(monkeypatch, ZeroDivisionError())


def test_main_exits_and_the_version_is_told():
    """In a process of its own: `main` takes over streams and signals for good."""
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"gnbench {__version__}\n")


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    """As in `gnbench norms | head -0`."""
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        done = subprocess.run(
            [*COMMAND, "norms", "--json"],
            stdout=reader.stdin,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 0

"""Something is on the terminal within a second: nothing heavy is loaded, or read, before it.

By processor time, since the machine may be busy with something else.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.run_folders import make_runs
from tests.support.screen import Terminal

HEAVY = {"torch", "torchvision", "wandb", "numba", "scipy", "sklearn", "optuna", "plotly", "pandas"}
A_SECOND = 1.0
"""It takes 0.4 to 0.7 of one here."""


@pytest.mark.parametrize(
    "typed",
    [
        "train --dataset mnist-5k --epochs 30 --wandb disabled",
        "sweep norm --dry-run --dataset mnist-5k",
        "sweep norm --dataset mnist-5k --wandb disabled",
        "quick --wandb disabled",
        "bench layers --norm group --repeats 1",
        "bench train --norm group --repeats 1",
        "compare runs",
        "report runs",
        "status runs",
    ],
)
def test_the_first_byte_comes_before_anything_heavy(typed: str, tmp_path: Path):
    make_runs(tmp_path / "runs", arms=[{"norm": "batch"}, {"norm": "none"}], seeds=2)
    script, report = str(ROOT / "tests" / "support" / "first_word.py"), tmp_path / "first.json"
    command = [script, str(report), *typed.split()]
    with Terminal(*command, cwd=tmp_path, module=None, PYTHONPATH=str(ROOT)) as terminal:
        while not report.exists():
            terminal.look(0.05)
        told = json.loads(report.read_text())
    assert HEAVY & set(told["modules"]) == set()
    assert told["cpu_seconds"] < A_SECOND


def test_off_a_terminal_too_a_dry_run_says_what_takes_its_seconds(tmp_path: Path, capsys):
    from groupnorm_bench.cli.app import run

    typed = [
        "sweep",
        "--norm",
        "none,batch",
        "--seeds",
        "1",
        "--dataset",
        "mnist-5k",
        "--max-steps",
        "2",
    ]
    assert run([*typed, "--dry-run", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err.startswith("training some steps of each kind of run")
    assert run([*typed, "--dry-run", "--out", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().err == ""

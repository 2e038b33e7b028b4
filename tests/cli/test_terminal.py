"""Commands in a real terminal: something stands there at once, and nothing is left behind.

The limits are wide, for machines that others use too; alone each takes half to one second.
"""

from __future__ import annotations

import time

import pytest

from tests.support.screen import Terminal

pytestmark = pytest.mark.slow
AT_ONCE = 5.0
"""Seconds; before this was shown, `bench layers` was silent for 30."""


@pytest.mark.parametrize(
    ("typed", "shows"),
    [
        ("train --dataset mnist-5k --epochs 50 --wandb disabled", "loading"),
        ("sweep norm --dry-run --dataset mnist-5k", "training some steps"),
        ("bench layers --norm group --repeats 50", "timing 1 norm"),
        ("bench train --norm group --repeats 3", "timing 4 trainings"),
    ],
)
def test_something_is_told_at_once(typed, shows, tmp_path):
    with Terminal(*typed.split(), cwd=tmp_path) as terminal:
        terminal.wait_for(shows, seconds=60)
        assert time.monotonic() - terminal.started < AT_ONCE


def test_ctrl_c_leaves_one_line_of_the_training_and_one_of_the_error(tmp_path):
    options = "--dataset mnist-5k --epochs 99 --wandb disabled --compile off"
    with Terminal("train", *options.split(), cwd=tmp_path, columns=100) as terminal:
        terminal.wait_for("epoch 2")
        terminal.press_ctrl_c()
        text = terminal.wait()
    assert terminal.exit_code == 130
    lines = text.splitlines()
    assert sum(line.startswith("epoch") for line in lines) == 1
    assert sum(line.startswith("error: interrupted; stopped at step") for line in lines) == 1


def test_a_resized_window_keeps_one_table_with_one_head(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "method: grid\nparameters: {norm: {values: [none, batch]}, epochs: {value: 99},"
        " train_limit: {value: 640}, dataset: {value: mnist-5k}}\n"
    )
    typed = ("sweep", "s.yaml", "--wandb", "disabled", "--workers", "2")
    with Terminal(*typed, cwd=tmp_path, columns=100) as terminal:
        terminal.wait_for("starting 0:0")
        for columns in (60, 90, 50, 100):
            terminal.resize(columns)
            terminal.look(0.6)
        text = terminal.look(0.6)
    assert [text.count(word) for word in ("worker", "best so far", "0/2")] == [1, 1, 1]


def test_a_sweep_starts_visibly_and_leaves_no_table_of_workers(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "method: grid\nparameters: {norm: {values: [none, batch]}, max_steps: {value: 3},"
        " train_limit: {value: 320}, dataset: {value: mnist-5k}}\n"
    )
    with Terminal("sweep", "s.yaml", "--wandb", "disabled", cwd=tmp_path) as terminal:
        terminal.wait_for("starting 0:0")
        text = terminal.wait()
    assert terminal.exit_code == 0, text
    assert "2/2  2 finished" in text
    assert "worker" not in text
    assert "1  -" not in text
    assert text.count("2/2") == 1

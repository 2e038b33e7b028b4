"""Ctrl-C, SIGTERM and SIGHUP, on commands as users run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import groupnorm_bench
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.signals import Interrupted, StopSignal
from tests.support.run_folders import make_run

WORDS = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
WORDS[signal.SIGHUP] = WORDS[signal.SIGTERM]


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "groupnorm_bench", *arguments],
        cwd=cwd,
        env=os.environ | {"WANDB_MODE": "disabled"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 1.5])
@pytest.mark.parametrize(
    "arguments",
    [("compare", "runs"), ("bench", "layers"), ("train", "--dataset", "mnist-5k", "--epochs", "9")],
)
def test_ctrl_c_at_any_moment_of_a_start_is_one_line(tmp_path, arguments, seconds):
    for seed in range(3):
        make_run(tmp_path / "runs", TrainConfig(dataset="mnist-5k", seed=seed))
    process = start(*arguments, cwd=tmp_path)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    through = (0, 2, -signal.SIGINT)  # the last: between its work and the end of the process
    assert process.returncode in (*through, 130)
    assert "Traceback" not in err
    if process.returncode == 130:
        assert "error: interrupted" in err


def test_little_is_loaded_before_ctrl_c_is_one_line():
    """What comes before that is a traceback of Python's own start."""
    root = Path(groupnorm_bench.__file__).parent.parent
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); before = set(sys.modules); "
        "import groupnorm_bench.__main__; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"typing", "re"} & set(done.stdout.split())


def test_ctrl_c_is_not_for_a_command_that_a_script_put_into_the_background(tmp_path):
    """Its shell has it ignore SIGINT, from before its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "groupnorm_bench", "norms"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", WORDS)
def test_a_sweep_that_is_told_to_stop_says_so_and_can_go_on(tmp_path, number):
    (tmp_path / "s.yaml").write_text(
        "method: grid\nparameters: {norm: {value: none}, dataset: {value: mnist-5k}, "
        "train_limit: {value: 300}, epochs: {value: 200}}\n"
    )
    process = start("sweep", "s.yaml", "--workers", "1", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    word, code = WORDS[number]
    assert process.returncode == code, err
    assert f"error: {word}; 0 of 1 run safe in runs" in err
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))


def test_the_first_signal_interrupts_where_nothing_is_at_stake_and_only_flags_where_something_is():
    with StopSignal(at_stake=False) as stop:
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        assert not stop()
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop()
        assert stop.exit_code == 143


def test_a_third_ctrl_c_does_not_break_off_the_cleaning_up_of_the_second():
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert stop.exit_code == 130

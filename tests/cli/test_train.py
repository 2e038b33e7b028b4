"""`gnbench train` as a user types it: what it prints, keeps, survives and exits with."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.errors import TrainingStopped
from groupnorm_bench.runs import RunFolder, find_runs
from groupnorm_bench.signals import StopSignal
from tests.support.command_line import COMMAND, gnbench, start

SMALL = ["train", "--epochs", "2", "--train-limit", "256", "--batch-size", "16", "--device", "cpu"]
"""Two epochs of 16 steps."""
TINY = ["train", "--max-steps", "2", "--train-limit", "64", "--dataset", "mnist-5k"]
TINY += ["--wandb", "disabled", "--device", "cpu"]
SUMMARY = {
    "val/accuracy",
    "val/accuracy_best",
    "val/best_epoch",
    "test/accuracy",
    "test/loss",
    "train_seconds",
    "images_per_second",
    "peak_memory_mb",
    "status",
}
HISTORY = {
    "epoch",
    "step",
    "images_seen",
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "perf/images_per_second",
    "norm/eval_gap",
    "norm/norm1/activation_mean",
    "norm/norm1/activation_std",
    "norm/norm2/activation_mean",
    "norm/norm2/activation_std",
}
ESCAPE = "\x1b"


def only_run(runs_dir: Path) -> tuple[RunFolder, Any]:
    ((found,), problems) = find_runs([runs_dir])
    assert problems == []
    return found.folder, found.result


def learned(result: Any) -> list[dict[str, float]]:
    """Return the history without what a clock measured."""
    return [
        {key: value for key, value in row.items() if not key.startswith("perf/")}
        for row in result.history
    ]


def test_json_is_one_document_and_the_rest_is_on_stderr(tmp_path):
    done = gnbench(*SMALL, "--norm", "batch", "--json", "--wandb", "auto", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"run", "run_dir", "status", "config", "summary"}
    assert set(document["summary"]) >= SUMMARY
    assert document["status"] == document["summary"]["status"] == "finished"
    folder, result = only_run(tmp_path / "runs")
    assert document["run_dir"] == f"runs/{document['run']}"
    assert document["config"] == result.config.to_dict()
    assert document["config"]["dataset"] == "mnist-5k", "auto is resolved"
    assert [set(row) >= HISTORY for row in result.history] == [True] * 2
    assert folder.read_hits(1_000).mean() == document["summary"]["test/accuracy"]
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == ["lock", "result.json", "test_hits.npy", "wandb"]
    assert ESCAPE not in done.stderr
    said = done.stderr.splitlines()
    assert said[0] == "gnbench train: batch, batch size 16, seed 0"
    assert "using mnist-5k" in said[1]
    assert said[2].startswith("compile off: ")
    assert said[3].startswith("W&B: no login found, keeping the run offline")
    assert [line.split()[:2] for line in said[4:]] == [["epoch", str(n)] for n in (1, 2)]


def test_a_finished_run_is_not_trained_again_unless_forced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(TINY) == 0
    first = capsys.readouterr()
    folder, result = only_run(tmp_path / "runs")
    written = folder.result_path.stat().st_mtime_ns
    assert run(TINY) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert again.err == f"{result.config.name} was trained before; --force trains it again\n"
    assert folder.result_path.stat().st_mtime_ns == written
    assert run([*TINY, "--force"]) == 0
    assert (folder.path / "result.1.json").stat().st_mtime_ns == written
    forced = folder.read()
    assert forced is not None
    assert learned(forced) == learned(result)


def test_a_person_reads_an_aligned_summary_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(TINY) == 0
    lines = capsys.readouterr().out.splitlines()
    _, result = only_run(tmp_path / "runs")
    assert lines[0] == f"{result.config.name}  finished"
    rows = dict(re.fullmatch(r"  (\S.{14})(\S.*)", line).groups() for line in lines[1:])
    assert {key.strip() for key in rows} == {
        "test/accuracy", "val/accuracy", "training", "saved in", "see it",
    }  # fmt: skip
    assert rows["test/accuracy  "] == f"{100 * result.summary['test/accuracy']:.2f} %"
    assert rows["see it         "] == "gnbench report runs"


def test_quiet_says_only_the_result(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run([*TINY, "--quiet"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert len(out.splitlines()) == 4


def test_a_run_that_diverges_is_kept_and_exits_3(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [*TINY, "--norm", "none", "--optimizer", "sgd", "--lr", "1e30", "--json"]
    assert run(command) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "diverged"
    error = err.splitlines()[-1]
    assert re.match(r"error: diverged: (val/)?loss=(nan|inf) at step ", error)
    assert "try a lower lr" in error
    folder, result = only_run(tmp_path / "runs")
    assert result.status == "diverged"
    assert "test/accuracy" not in result.summary
    assert not folder.checkpoint_path.exists()
    assert run(command) == 3, "a diverged run is a result: it is told again, not trained again"
    assert "trained before" in capsys.readouterr().err


def test_a_last_step_that_ruins_the_weights_is_no_finished_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ruin = ["--norm", "none", "--optimizer", "sgd", "--lr", "1e38", "--max-steps", "1"]
    assert run([*TINY, *ruin]) == 3
    assert only_run(tmp_path / "runs")[1].status == "diverged"


def test_an_unreadable_result_is_kept_aside_and_the_run_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(TINY) == 0
    folder, _ = only_run(tmp_path / "runs")
    folder.result_path.write_text("{half")
    capsys.readouterr()
    assert run(TINY) == 0
    assert "result.1.json, training again" in capsys.readouterr().err
    assert (folder.path / "result.1.json").read_text() == "{half"
    assert folder.read() is not None


def test_our_own_bug_keeps_its_traceback_and_fails_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def broken(*args: object) -> object:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("groupnorm_bench.training.loop.evaluate", broken)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        run(TINY)
    folder, result = only_run(tmp_path / "runs")
    assert result.status == "failed"
    assert result.summary["error"] == "ZeroDivisionError: on purpose"
    assert "in broken" in folder.traceback_path.read_text()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run(TINY) == 0, "a failed run is tried again"


SLOW_NORM = """
import time
from torch import nn

class Slow(nn.GroupNorm):
    def __init__(self, num_channels, num_groups):
        super().__init__(num_groups, num_channels)

    def forward(self, features):
        time.sleep(0.02)
        return super().forward(features)
"""


def stop_midway(tmp_path: Path, how: int, epochs_done: int) -> subprocess.CompletedProcess[str]:
    """Start the small run, stop it by a signal once it has done some epochs."""
    process = start(*SMALL, "--norm", "slow_norm:Slow", "--wandb", "disabled", cwd=tmp_path)
    deadline = time.monotonic() + 200
    while True:
        found = find_runs([tmp_path / "runs"])[0] if (tmp_path / "runs").is_dir() else []
        if found and len(found[0].result.history) >= epochs_done:
            break
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    out, err = process.communicate(timeout=100)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def finish_and_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type the command again, and compare with a run that nothing disturbed."""
    done = gnbench(*SMALL, "--norm", "slow_norm:Slow", "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    whole = [*SMALL, "--norm", "slow_norm:Slow", "--wandb", "disabled", "--out", "whole"]
    assert run(whole) == 0
    (folder, result), (expected_folder, expected) = only_run(Path("runs")), only_run(Path("whole"))
    assert len(result.history) == 2
    assert learned(result) == learned(expected)
    assert result.summary["test/loss"] == expected.summary["test/loss"]
    assert folder.hits_path.read_bytes() == expected_folder.hits_path.read_bytes()


@pytest.mark.slow
def test_after_kill_9_the_same_command_ends_bit_identical(tmp_path, monkeypatch):
    (tmp_path / "slow_norm.py").write_text(SLOW_NORM)
    killed = stop_midway(tmp_path, signal.SIGKILL, epochs_done=1)
    assert killed.returncode == -signal.SIGKILL
    folder, result = only_run(tmp_path / "runs")
    assert result.status == "interrupted"
    assert folder.checkpoint_path.exists()
    finish_and_compare(tmp_path, monkeypatch)
    assert not folder.checkpoint_path.exists()


@pytest.mark.slow
def test_ctrl_c_and_sigterm_leave_a_run_that_goes_on(tmp_path, monkeypatch):
    (tmp_path / "slow_norm.py").write_text(SLOW_NORM)
    for number, code, word, epochs_done in (
        (signal.SIGINT, 130, "interrupted", 0),
        (signal.SIGTERM, 143, "terminated", 1),
    ):
        stopped = stop_midway(tmp_path, number, epochs_done)
        assert stopped.returncode == code, stopped.stderr
        error = stopped.stderr.splitlines()[-1]
        assert re.match(rf"error: {word}; stopped at step \d+ of 32, checkpoint in runs/", error)
        assert error.endswith("type the same command to go on")
        assert only_run(tmp_path / "runs")[1].status == "interrupted"
    finish_and_compare(tmp_path, monkeypatch)


def test_the_first_signal_is_a_flag_and_a_second_ctrl_c_is_not():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        error = stop.stopped("all is safe")
    assert isinstance(error, TrainingStopped)
    assert (error.exit_code, str(error)) == (143, "terminated; all is safe")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_stopped_run_exits_with_its_signal_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    calls: list[bool] = []

    def stop_at_the_first_look(self: StopSignal) -> bool:
        calls.append(True)
        self.received = signal.SIGINT
        return True

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "__call__", stop_at_the_first_look)
        assert run(TINY) == 130
    assert len(calls) == 1
    assert "stopped at step 1 of 2" in capsys.readouterr().err
    assert only_run(tmp_path / "runs")[1].status == "interrupted"
    assert run(TINY) == 0
    assert only_run(tmp_path / "runs")[1].history[-1]["step"] == 2


def on_a_terminal(*args: str, cwd: Path, env: dict[str, str]) -> tuple[str, float, int]:
    """Run gnbench on a terminal; return what it drew, seconds until the first of it, exit code."""
    ours, theirs = pty.openpty()
    began = time.monotonic()
    with subprocess.Popen(
        [*COMMAND, *args],
        cwd=cwd,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "30"} | env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        drawn, first = b"", 0.0
        while True:
            select.select([ours], [], [], 120)
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            first = first or time.monotonic() - began
            drawn += piece
    os.close(ours)
    return drawn.decode(), first, process.returncode


def test_a_terminal_shows_a_bar_from_the_first_moment(tmp_path):
    drawn, first, code = on_a_terminal(*TINY, cwd=tmp_path, env={"NO_COLOR": "1"})
    assert code == 0, drawn
    assert "group-g8, batch size 64, seed 0: loading" in drawn
    for word in ("epoch 2", "loss", "train ", " %  val ", "images/s", "0:00:00", "test/accuracy"):
        assert word in drawn
    assert "epoch 3" not in drawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", drawn), "NO_COLOR is honoured"
    assert first < 10  # a second, on a machine with nothing else to do


@pytest.mark.slow
def test_on_a_terminal_too_an_error_stands_alone(tmp_path):
    bad = [*TINY, "--batch-size", "100"]
    drawn, _, code = on_a_terminal(*bad, cwd=tmp_path, env={"NO_COLOR": "1"})
    assert code == 2
    lines = drawn.split("\r\n")
    assert lines[-2].split(ESCAPE)[-1].endswith("set it to at most that")
    assert "2K" in drawn, "the bar was wiped out"
    assert list(tmp_path.iterdir()) == []


LIGHT = """
import resource, sys
from groupnorm_bench.cli.app import run
import groupnorm_bench.cli
code = run(sys.argv[1:])
spent = resource.getrusage(resource.RUSAGE_SELF)
heavy = {"torch", "torchvision", "wandb", "numba", "numpy", "pandas", "plotly", "optuna", "scipy",
         "sklearn", "timm"}
print(code, spent.ru_utime + spent.ru_stime, *sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("args", [["--help"], ["norms"], ["train", "--help"], ["--version"]])
def test_help_and_norms_are_light(args, tmp_path):
    spent = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", LIGHT, *args],
            env={k: v for k, v in os.environ.items() if not k.startswith("COV")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        code, seconds, *heavy = done.stderr.split()
        assert code == "0"
        assert heavy == []
        assert done.stdout
        spent.append(float(seconds))
        if min(spent) < 0.5:
            return
    pytest.fail(f"gnbench {' '.join(args)} took {min(spent):.2f} s of processor time")


def test_norms_as_json_tell_what_the_table_tells(capsys):
    assert run(["norms", "--json"]) == 0
    rows = {row["norm"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["none"]["parameters"] == 0
    assert rows["batch"]["batch_dependent"]
    assert not rows["group"]["batch_dependent"]
    assert rows["frn"]["replaces_activation"]
    assert run(["norms"]) == 0
    table = capsys.readouterr().out
    assert all(re.search(rf"^{name} +(yes|-) +\+{row['parameters']} ", table, re.M)
               for name, row in rows.items())  # fmt: skip


def test_doctor_tells_what_is_here_and_what_to_do(monkeypatch, capsys):
    assert run(["doctor", "--json"]) == 0
    findings = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"python", "torch", "device", "threads", "data", "wandb", "disk"} <= set(findings)
    assert "no login found" in findings["wandb"]["found"]
    assert "wandb login" in findings["wandb"]["advice"]
    assert "gnbench data mnist" in findings["data"]["advice"]
    assert run(["doctor"]) == 0
    assert re.search(r"^wandb .*no login found\n +-> .*wandb login", capsys.readouterr().out, re.M)


def test_every_setting_is_an_option_in_every_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = "--batch_size=16 --num_groups=4 --weight_decay_all=False --group_size=None --seed=5"
    assert run([*TINY, *agent.split()]) == 0
    config = only_run(tmp_path / "runs")[1].config
    assert (config.batch_size, config.num_groups, config.seed) == (16, 4, 5)


def test_threads_are_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run([*TINY, "--threads", "1"]) == 0
    environment = only_run(tmp_path / "runs")[1].environment
    assert environment["threads"] == 1
    assert environment["device"] == "cpu"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--weight_decay_all"], True),
        (["--weight-decay-all", "--lr", "0.01"], True),
        (["--weight_decay_all", "false"], False),
        (["--weight_decay_all=true"], True),
        ([], False),
    ],
)
def test_a_setting_that_is_true_may_stand_without_a_value(capsys, tmp_path, typed, meant):
    """As W&B's agents write it for `${args_no_boolean_flags}`."""
    code = run([*TINY, "--weight-decay", "0.1", *typed, "--out", str(tmp_path), "--json"])
    assert (code, json.loads(capsys.readouterr().out)["config"]["weight_decay_all"]) == (0, meant)


def test_quiet_leaves_out_hints(capsys, tmp_path):
    assert run([*TINY[:-4], "--device", "cpu", "--quiet", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""

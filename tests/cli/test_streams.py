"""What is printed never decides what is trained; what is not done never exits 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groupnorm_bench.runs import find_runs
from tests.support import FAILS_LATE

TRAIN = (*("train", "--dataset", "mnist-5k", "--train-limit", "64", "--max-steps", "4"),)
SWEEP = """
name: tiny
method: grid
parameters:
  norm: {values: [none, layer]}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  max_steps: {value: 2}
"""
GNBENCH = (sys.executable, "-m", "groupnorm_bench")


def shell(script: str, *arguments: str, cwd: Path, **environment: str):
    """Run a line of bash in which `"$@"` is gnbench with the arguments; W&B is off."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *GNBENCH, *arguments],
        cwd=cwd,
        env=os.environ | {"WANDB_MODE": "disabled"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def statuses(folder: Path) -> list[str]:
    found, _ = find_runs([folder / "runs"])
    return [run.result.status for run in found]


@pytest.mark.parametrize(
    "script",
    [
        '"$@" 2>/dev/full',
        '"$@" 2>&-',
        '"$@" >&- 2>&- <&-',
        # bash's own status of a pipe is that of its last command
        '{ "$@" 2>&1 >/dev/null; echo $? >code; } | head -c 1 >/dev/null; exit $(cat code)',
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [TRAIN, pytest.param(("sweep", "s.yaml", "--workers", "1"), marks=pytest.mark.slow)],
)
def test_stderr_may_be_full_or_closed(tmp_path, script, arguments):
    (tmp_path / "s.yaml").write_text(SWEEP)
    done = shell(script, *arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert statuses(tmp_path) == ["finished"] * (1 if arguments is TRAIN else 2)


def test_a_full_stdout_is_one_line_and_exit_2(tmp_path):
    done = shell('"$@" >/dev/full', *TRAIN, "-q", cwd=tmp_path)
    assert (done.returncode, statuses(tmp_path)) == (2, ["finished"])
    assert done.stderr.splitlines()[-1] == (
        "error: stdout cannot be written: No space left on device; its last lines are lost"
    )


def test_a_reader_that_leaves_does_not_hide_that_runs_failed(tmp_path):
    (tmp_path / "fails_late.py").write_text(FAILS_LATE)
    (tmp_path / "s.yaml").write_text(SWEEP.replace("layer", "'fails_late:make'"))
    script = '{ "$@" 2>err; echo $? >code; } | true; exit $(cat code)'
    done = shell(script, "sweep", "s.yaml", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 3
    assert "1 of 2 runs failed" in (tmp_path / "err").read_text()


def test_what_a_terminal_cannot_show_is_spelled_out(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def make(c, g):\n    raise ValueError('\\udcff \\U0001f525')\n"
    )
    done = shell('"$@"', *TRAIN, "--norm", "mine:make", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert r"ValueError: \udcff \U0001f525" in done.stderr


def test_a_lone_surrogate_in_a_runs_error_is_kept(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Norm(torch.nn.Module):\n"
        "    steps = 0\n"
        "    def forward(self, x):\n"
        "        Norm.steps += 1\n"
        "        if Norm.steps > 12:\n"
        "            raise ValueError('name \\udcff')\n"
        "        return x\n"
        "def make(c, g):\n    return Norm()\n"
    )
    shell('"$@"', *TRAIN, "--norm", "mine:make", "--max-steps", "50", cwd=tmp_path)
    found, problems = find_runs([tmp_path / "runs"])
    assert problems == []
    assert found[0].result.summary["error"] == r"ValueError: name \udcff"


@pytest.mark.parametrize("name", ["random", "wandb"])
def test_no_process_imports_from_the_working_directory(tmp_path, name):
    (tmp_path / "s.yaml").write_text(SWEEP)
    (tmp_path / f"{name}.py").write_text("open('ran', 'w')\n")
    script = f"import sys; sys.path[0] = {os.getcwd()!r}\nfrom groupnorm_bench.__main__ import main"
    command = [sys.executable, "-P", "-c", f"{script}\nmain()"]
    done = subprocess.run(
        [*command, "sweep", "s.yaml", "--workers", "1", "--wandb", "offline", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert json.loads(done.stdout)["finished"] == 2, done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_norm_of_ones_own_is_found_in_the_working_directory_by_workers_too(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\ndef make(c, g):\n    return torch.nn.Identity()\n"
    )
    (tmp_path / "random.py").write_text("open('ran', 'w')\n")
    (tmp_path / "s.yaml").write_text(SWEEP.replace("[none, layer]", "['mine:make']"))
    environment = {"PYTHONPATH": os.getcwd(), "PYTHONSAFEPATH": "1"}
    done = shell('"$@"', "sweep", "s.yaml", "--workers", "1", "--json", cwd=tmp_path, **environment)
    assert json.loads(done.stdout)["finished"] == 1, done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("threads", ["100000", "9999999999"])
def test_more_threads_than_any_machine_has_are_refused(tmp_path, threads):
    done = shell('"$@"', *TRAIN, "--threads", threads, cwd=tmp_path)
    assert done.returncode == 2
    assert "'--threads'" in done.stderr


def test_without_a_home_nothing_is_made_in_a_folder_called_tilde(tmp_path):
    environment = {"HOME": "~", "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path)}
    done = shell('"$@"', *TRAIN, "-q", "--wandb", "offline", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"runs", f"gnbench-home-{os.getuid()}"}
    assert not (tmp_path / "~").exists()

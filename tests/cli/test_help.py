"""`--help`, completion and typos: what a person gets who does not know the name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from groupnorm_bench.cli import app
from groupnorm_bench.cli.app import run
from groupnorm_bench.norms import NORMS
from groupnorm_bench.sweep.file.shipped import shipped_sweeps
from tests.support.command_line import COMMAND
from tests.support.run_folders import config_of, make_run


def all_commands():
    """Return every command with its words, groups included."""
    found, waiting = [], [((), get_command(app))]
    while waiting:
        words, command = waiting.pop()
        found.append((words, command))
        if isinstance(command, TyperGroup):
            waiting += [((*words, name), one) for name, one in command.commands.items()]
    return found


@pytest.mark.parametrize(("words", "command"), all_commands(), ids=lambda _: "")
def test_help_tells_all_and_cuts_nothing_at_80_columns(words, command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*words, "-h"]) == 0
    text = capsys.readouterr().out
    assert run([*words, "--help"]) == 0
    assert capsys.readouterr().out == text
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"<\w|\[str", text) is None, "a type in the program's words"
    assert "..." not in re.sub(r"\[?(RUNS|OPTIONS|ARGS|ITEM)\]?\.\.\.", "", text)
    flat = " ".join(text.split())
    for param in command.params:
        if getattr(param, "hidden", False):
            continue
        for option in param.opts:
            if option.startswith("--") and "_" not in option:
                assert f"{option}" in text
        assert " ".join(param.help.split()) in flat, param.name
        default = getattr(param, "default", None)
        if (
            param.show_default is True
            and default is not None
            and not getattr(param, "is_flag", False)
        ):
            assert f"[default: {default}" in flat, param.name
    if isinstance(command, TyperGroup):
        assert all(f"  {name}" in text for name in command.commands)


def test_what_can_be_chosen_is_told(capsys):
    assert run(["train", "-h"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for choice in (*NORMS, "mnist-5k", "one-cycle", "adamw", "bf16", "cuda:N"):
        assert choice in text
    for heading in ("What to train", "Where", "W&B", "Machine", "Output"):
        assert heading in text
    assert "--batch_size" not in text


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("train --nrom group", "No such option: --nrom; did you mean --norm?"),
        ("train -nrom group", "No such option: -nrom; did you mean --norm?"),
        ("train --epoch=3", "No such option: --epoch; did you mean --epochs?"),
        ("train --xyzzy", "No such option: --xyzzy; see gnbench train --help"),
        ("compare --basline none", "No such option: --basline; did you mean --baseline?"),
        ("bench layers --repeat 3", "No such option: --repeat; did you mean --repeats?"),
        ("--versoin", "No such option: --versoin; did you mean --version?"),
        ("trian", "No such command 'trian'. Did you mean 'train'?"),
        ("bench layer", "No such command 'layer'. Did you mean 'layers'?"),
    ],
)
def test_a_typo_is_told_with_what_was_meant(typed, says, capsys):
    assert run(typed.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {says}\n")


def completed(line: str, cwd: Path) -> list[str]:
    """Return what bash is offered after `gnbench LINE`, Tab pressed at its end."""
    words = ["gnbench", *line.split(" ")]
    environment = os.environ | {
        "_GNBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(COMMAND, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    make_run(folder / "my-runs", config_of("batch"))
    (folder / "empty").mkdir()
    (folder / "mine.yaml").write_text("norm: group\n")
    (folder / "notes.txt").write_text("")
    return folder


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tr", ["train"]),
        ("train --no", ["--norm"]),
        ("train --norm ba", ["batch", "batch-renorm"]),
        ("train --dataset fa", ["fashion-mnist"]),
        ("train --schedule co", ["constant", "cosine"]),
        ("train --config ", ["empty/", "mine.yaml", "my-runs/"]),
        ("sweep mi", ["mine.yaml"]),
        ("sweep nor", ["norm"]),
        ("compare ", ["my-runs/"]),
        ("report --metric test/", ["test/accuracy", "test/loss"]),
        ("bench layers --norm fr", ["frn"]),
    ],
)
def test_tab_offers(line, offered, place):
    assert completed(line, place) == offered


def test_tab_offers_every_sweep_of_ours(place):
    assert set(shipped_sweeps()) < set(completed("sweep ", place))


def test_completion_loads_nothing_heavy(place):
    code = (
        "import sys; from groupnorm_bench.cli.completing import *\n"
        "norms(''), metrics(''), data_sets(''), sweeps(''), run_folders('')\n"
        "assert not {'torch', 'wandb', 'numba', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True)


def test_completion_is_installed_for_the_shell_at_hand(tmp_path):
    command = " ".join([*COMMAND, "--install-completion", "bash"])
    environment = os.environ | {
        "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    script = next(tmp_path.rglob("gnbench.sh")).read_text()
    assert "_GNBENCH_COMPLETE" in script
    assert "gnbench.sh" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--lr", "0.1", "--lr=0.2"], "--lr 0.1 gives way to 0.2, which is typed after it\n"),
        (["--batch-size", "8", "--batch_size", "9"], "--batch_size 8 gives way to 9, which is"),
        (["--lr", "0.1", "--lr", "0.1"], ""),
        (["-q", "--lr", "0.1", "--lr", "0.2"], ""),
        (["--set", "lr=0.1", "--set", "epochs=2"], ""),
        (["--out", "a\x1b[0m", "--out", "b"], "--out a\\x1b[0m gives way to b"),
    ],
)
def test_an_option_with_two_values_takes_the_last_and_says_so(typed, told, capsys):
    assert run(["train", "--show-config", *typed]) == 0
    err = capsys.readouterr().err
    assert err.startswith(told) if told else err == ""

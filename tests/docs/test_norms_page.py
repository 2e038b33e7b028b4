"""docs/norms.md tells what is: its table is the table of norms, and its example runs."""

from __future__ import annotations

import re
import shlex
import sys

import pytest
import torch

from groupnorm_bench import NORMS, make_norm
from groupnorm_bench.cli.app import run
from groupnorm_bench.runs import find_runs
from tests.support import ROOT

PAGE = (ROOT / "docs" / "norms.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_table_is_the_table_of_norms():
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE, re.M)

    def yes(value: bool) -> str:
        return "yes" if value else "-"

    assert dict(rows) == {
        name: " | ".join((s.help, yes(s.reads_groups), yes(s.uses_batch_statistics), s.paper))
        for name, s in NORMS.items()
    }


def test_a_norm_of_ones_own_trains_as_the_page_says(tmp_path, monkeypatch):
    code, _ = CODE
    assert len([line for line in code.splitlines() if line]) <= 10
    (command,) = re.findall(r"^    (gnbench train .*)$", PAGE, re.M)
    (tmp_path / "my_norms.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_norms", raising=False)  # of another test
    small = ["--max-steps", "4", "--train-limit", "64", "--dataset", "mnist-5k", "--batch-size=16"]
    assert run([*shlex.split(command)[1:], *small, "--wandb", "disabled"]) == 0
    ((found,), problems) = find_runs([tmp_path / "runs"])
    assert problems == []
    assert found.result.status == "finished"
    assert f"its arm is `{found.result.arm}`" in PAGE
    assert found.result.history[-1]["norm/norm1/activation_std"] < 2


@pytest.mark.parametrize("norm", ["layer", "instance"])
def test_the_two_meanings_of_g_meet_where_the_page_says(norm):
    rows = dict(re.findall(r"^\| (LayerNorm|InstanceNorm)[^|]* \| ([^|]+) \|", PAGE, re.M))
    groups = {"1": 1, "all channels": 32}[rows[f"{norm.capitalize()}Norm"]]
    features = torch.randn(2, 32, 5, 5)
    expected = make_norm(norm, 32)(features)
    torch.testing.assert_close(make_norm("group", 32, groups)(features), expected)


def test_the_norms_of_a_network_are_exchanged_as_the_page_says(capsys):
    exec(CODE[1], {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0] == "bn1 64 BatchNorm2d -> GroupNorm scale shift"

"""docs/your-own.md, a training function of one's own: the example works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from groupnorm_bench.cli.app import run
from tests.support import ROOT

PAGE = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
(TRAINING,) = re.findall(r"^## Your training.*?(?=^## |\Z)", PAGE, re.M | re.S)
CODE = re.findall(r"^```python\n(.*?)^```$", TRAINING, re.M | re.S)
(SWEEP,) = re.findall(r"^```yaml\n(.*?)^```$", TRAINING, re.M | re.S)
NAMES = re.findall(r"`(\w+\.py)`", TRAINING)


def test_each_example_is_short():
    assert len(CODE) == len(NAMES) == 3
    assert all(len(code.splitlines()) < 25 for code in CODE)


@pytest.mark.slow
def test_the_study_ends_in_a_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, code in zip(NAMES, CODE, strict=True):
        (tmp_path / name).write_text(code)
    (tmp_path / "study.yaml").write_text(SWEEP)
    swept, compared = re.findall(r"^    gnbench (.*)$", TRAINING, re.M)
    command = [sys.executable, "-P", "-m", "groupnorm_bench", *shlex.split(swept)]
    subprocess.run([*command, "--wandb", "disabled"], check=True, timeout=300)
    assert run(shlex.split(compared)) == 0
    told = capsys.readouterr().out
    assert re.search(r"^\s*group-g4 +6 .*(worse|better|equal|undecided)", told, re.M), told

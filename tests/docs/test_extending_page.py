"""docs/extending.md: every block is added where the page says, and then used as a person would."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.support import ROOT

FILE = r"groupnorm_bench/[\w/.]+"
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")

ADD = """
import importlib, json, sys, types

def add(name, block):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:  # the page makes a new file of it
        module = sys.modules[name] = types.ModuleType(name)
    exec(block, vars(module))

IMPORTS = json.loads(sys.argv[1])
for name, block in json.loads(sys.argv[2]):
    add(name, "from __future__ import annotations\\n" + IMPORTS.get(name, "") + block)
"""

IMPORTS = {
    "groupnorm_bench.models": "import math\nfrom collections import OrderedDict\n",
    "groupnorm_bench.sweep.executors.here": (
        "from groupnorm_bench.datasets.load import load_dataset\n"
        "from groupnorm_bench.sweep.executors.protocol import Ended, Started\n"
        "from groupnorm_bench.trial import run_trial\n"
    ),
}
"""What stands at the top of the file that a block goes into."""

TRAIN = "'--max-steps', '3', '--train-limit', '320', '--wandb', 'disabled', '--out', 'runs', '-q'"
USES = {
    "A norm": f"""
from groupnorm_bench.cli.app import run
assert run(["train", "--norm", "local-response", "--dataset", "mnist-5k", {TRAIN}]) == 0
""",
    "A network": """
import torch
from groupnorm_bench.models import MODELS
from torch import nn
model = MODELS["linear"].build(nn.BatchNorm2d, (1, 28, 28), 10)
assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
assert dict(model.named_modules())["norm1"].num_features == 1
""",
    "A data set": f"""
from groupnorm_bench.cli.app import run
assert run(["train", "--norm", "none", "--dataset", "stripes", {TRAIN}]) == 0
""",
    "An executor": """
from pathlib import Path
from groupnorm_bench.cli.app import run
Path("s.yaml").write_text(
    "method: grid\\n"
    "parameters: {norm: {values: [none, batch]}, max_steps: {value: 3}, train_limit: {value: 320},"
    " dataset: {value: mnist-5k}}"
)
assert run(["sweep", "s.yaml", "--executor", "here", "--wandb", "disabled", "--json"]) == 0
assert len(list(Path("runs").glob("*/result.json"))) == 2
""",
    "A metric": """
from groupnorm_bench.metrics import metric_spec
spec = metric_spec("val/calibration")
assert (spec.text(spec.factor * 0.0123), spec.unit) == ("1.2", "points")
""",
}


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return (module, block) pairs by heading; a block goes into the file that was named last."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        blocks = re.findall(rf"`({FILE})`(?:(?!`{FILE}).)*?```python\n(.*?)```", text, re.S)
        found[title] = [
            (path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), block)
            for path, block in blocks
        ]
    return found


def test_the_page_has_a_section_for_each_table():
    assert sections().keys() == USES.keys()
    assert PAGE.count("```python") == sum(len(blocks) for blocks in sections().values())


@pytest.mark.parametrize("title", USES)
def test_what_the_page_adds_works_where_it_says(title, tmp_path):
    code = ADD + USES[title]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(IMPORTS), json.dumps(sections()[title])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

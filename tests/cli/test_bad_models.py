"""Functions that make no network to train: one line and exit 2, wherever they are first called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from groupnorm_bench.cli.app import run

HEAD = """
from torch import nn

def net(channels, i, c, *end):
    end = end or (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, c))
    return nn.Sequential(nn.Conv2d(i, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), *end)

class Two(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net(images), 1

"""
BAD = {
    "def make(i, c):\n    raise RuntimeError('no\\nluck')": "cannot be built: RuntimeError: no",
    "def make(i, c):\n    raise SystemExit(3)": "cannot be built: SystemExit",
    "def make(i, c):\n    return None": "returned NoneType, not a torch.nn.Module",
    "def make(i, c):\n    return nn.Conv2d": "returned type, not a torch.nn.Module",
    "def make(i, c):\n    return net(8, i, 7)": "returns 7 logits an image, and these have 10",
    "def make(i, c):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, c))": "to exchange",
    "def make(i, c):\n    return net(8, i, c, nn.Flatten(), nn.Linear(8 * 222**2, c))": (
        "it may be made for images of another size"
    ),
    "def make(i, c):\n    return net(8, 3, c)": "cannot take images shaped [1, 28, 28]",
    "def make(i, c):\n    return net(71, i, c)": "num_groups=8 does not divide the 71 channels",
    "def make(i, c):\n    return Two(net(8, i, c))": "returned tuple for",
    "def make(i, c):\n    return net(8, i, c, nn.Conv2d(8, c, 1))": "one row of logits an image",
    "def make(i, c):\n    return net(8, i, c).requires_grad_(False)": "no weight that trains",
    "def make(i, c):\n    return nn.Sequential(nn.LazyConv2d(8, 3), net(8, 8, c))": (
        "leaves the shape of '0.weight' to its first batch"
    ),
    "def make(i, c):\n    print('hello')\n    return net(8, i, c, nn.Conv2d(8, c, 1))": "one row",
    "def make(a):\n    pass": "callable with (norm_layer, in_channels, num_classes)",
    "def make(i, c:": "SyntaxError",
    "import nothing_like_it": "No module named 'nothing_like_it'",
    "x = 1": "has no attribute 'make'",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield "bad_net:make"
    sys.modules.pop("bad_net", None)


@pytest.mark.parametrize("code", BAD)
def test_it_is_one_line_in_training_a_plan_and_a_sweep(own, code, capsys):
    Path("bad_net.py").write_text(f"{HEAD}{code}\n")
    Path("s.yaml").write_text(
        f"method: grid\nparameters:\n  model: {{value: '{own}'}}\n  norm: {{value: group}}\n"
    )
    before = sorted(Path().iterdir())
    small = ["--dataset", "mnist-5k", "--max-steps", "1", "--train-limit", "64"]
    for command in (
        ["train", "--model", own, "--norm", "group", "--wandb", "disabled", *small],
        ["sweep", "s.yaml", "--dry-run", *small],
        ["sweep", "s.yaml", "--wandb", "disabled", "--workers", "1", *small],
        ["model", own, "--norm", "group", "--groups", "8", "--repeats", "0"],
    ):
        sys.modules.pop("bad_net", None)
        assert run(command) == 2, command
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line != "hello"]
        assert (out, len(lines)) == ("", 1), command
        assert BAD[code] in lines[0]
        assert sorted(Path().iterdir()) == before

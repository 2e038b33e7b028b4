"""docs/your-own.md: every example works as it stands there, and ends in a verdict."""

from __future__ import annotations

import re
import shlex
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from groupnorm_bench.cli.app import run
from groupnorm_bench.models import LIBRARIES, MODELS, model_spec
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_network
from tests.support import ROOT

PAGE = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
(NETWORK,) = re.findall(r"^## Your network.*?(?=^## |\Z)", PAGE, re.M | re.S)
CODE = re.findall(r"^```python\n(.*?)^```$", NETWORK, re.M | re.S)
(SWEEP,) = re.findall(r"^```yaml\n(.*?)^```$", NETWORK, re.M | re.S)
COMMANDS = [shlex.split(x) for x in re.findall(r"^    gnbench (.*)$", NETWORK, re.M)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, code in zip(("my_nets", "my_resnets"), CODE, strict=True):
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "mine.yaml").write_text(SWEEP)
    yield tmp_path
    for name in ("my_nets", "my_resnets"):
        sys.modules.pop(name, None)


def test_the_table_names_every_kind_of_network():
    _, *names = re.findall(r"^\| `([^`]+)` \|", NETWORK, re.M)
    assert names[: len(MODELS)] == list(MODELS)
    others = [f"{name}:NAME" for name in LIBRARIES] + ["package.module:make_model"]
    assert names[len(MODELS) :] == others
    assert all(model_spec(name) for name in names)


def test_each_example_is_short():
    assert all(len(example.splitlines()) < 25 for example in (*CODE, SWEEP))


def test_the_network_is_told_of_as_the_page_says(here, capsys):
    assert run(COMMANDS[0]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "my_nets:make_model"


def test_a_function_of_three_builds_with_the_arms_norm(here):
    network = build_network(TrainConfig(model="my_resnets:make_resnet", num_groups=32))
    assert len(network.sites) == 20
    assert network.model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.slow
def test_torchvisions_resnet_trains_on_a_folder_of_images(here, capsys):
    generator = np.random.default_rng(0)
    for label in range(2):
        (here / "pets" / f"kind{label}").mkdir(parents=True)
        for i in range(40):
            pixels = generator.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[..., label] += 100
            Image.fromarray(pixels).save(here / "pets" / f"kind{label}" / f"{i}.png")
    *trainings, compare = COMMANDS[3:]
    assert len(trainings) == 2
    for training in trainings:
        assert run([*training, "--wandb", "disabled", "--device", "cpu"]) == 0
    assert "20 norm layers exchanged for group-gauto" in capsys.readouterr().err
    assert run(compare) == 0
    assert "undecided: 1 of 1 contrast" in capsys.readouterr().out


@pytest.mark.slow
def test_the_sweep_ends_in_a_verdict(here, capsys):
    sweep, compare = COMMANDS[1:3]
    assert run([*sweep, "--train-limit", "800", "--wandb", "disabled", "--device", "cpu"]) == 0
    assert run(compare) == 0
    told = capsys.readouterr().out
    assert re.search(r"group-gauto against batch: (worse|better|equal|undecided)", told), told

"""docs/your-own.md: its tables name all there is; its commands are in `test_commands.py`."""

from __future__ import annotations

import re
import sys

import torch

from groupnorm_bench.datasets.naming import FORMS
from groupnorm_bench.models import LIBRARIES, MODELS, model_spec
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_network
from tests.docs import shown
from tests.docs.scenes import blocks
from tests.support import ROOT

PAGE = ROOT / "docs" / "your-own.md"


def first_column(heading: str) -> list[str]:
    """Return the code of a section's first table, by its first column."""
    section = re.search(rf"^## {heading}.*?(?=^## )", PAGE.read_text(), re.M | re.S)
    assert section is not None
    return re.findall(r"^\| `([^`]+)` \|", section.group(), re.M)


def test_the_table_names_every_kind_of_network():
    _, *names = first_column("Your network")
    assert names[: len(MODELS)] == list(MODELS)
    others = [f"{name}:NAME" for name in LIBRARIES] + ["package.module:make_model"]
    assert names[len(MODELS) :] == others
    assert all(model_spec(name) for name in names)


def test_the_table_names_every_form_of_data():
    _, *names = first_column("Your data")
    assert names == list(FORMS)


def test_each_example_is_short():
    assert all(len(text.splitlines()) < 25 for _, text in shown.read(PAGE).blocks)


def test_a_function_of_three_builds_with_the_arms_norm(tmp_path, monkeypatch):
    *_, (_, code) = blocks("docs/your-own.md", "\n## Your network", "\n## ")
    (tmp_path / "my_resnets.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    network = build_network(TrainConfig(model="my_resnets:make_resnet", num_groups=32))
    sys.modules.pop("my_resnets")
    assert len(network.sites) == 20
    assert network.model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)

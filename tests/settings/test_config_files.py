"""Every file in configs/ is read and trained, if only for two steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from groupnorm_bench import TrainConfig, train
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.datasets.tensors import Split
from groupnorm_bench.settings.layers import read_settings
from tests.support import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_the_promised_files_are_there():
    assert [path.stem for path in CONFIGS] == ["default", "fast", "hard", "report"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains(path):
    digits = load_dataset("mnist-5k", Path("unused"))
    few = Split(digits.val.images[:50], digits.val.labels[:50])
    config = TrainConfig.from_layers(
        [read_settings(path), {"dataset": "mnist-5k", "max_steps": 2, "device": "cpu"}]
    )
    outcome = train(config, dataclasses.replace(digits, val=few, test=few))
    assert outcome.history[-1]["step"] == 2


def test_the_default_file_is_the_defaults():
    path = next(path for path in CONFIGS if path.stem == "default")
    assert TrainConfig.from_mapping(read_settings(path)) == TrainConfig()

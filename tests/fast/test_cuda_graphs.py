"""The compiled step of a GPU, run here on a CPU: the same numbers, and nothing left changed."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.fast import choose
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_model
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import Training

CAPTURED = """
import copy, json, sys, torch
from pathlib import Path
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.fast.cuda_graphs import CapturedWay
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import Training

config = TrainConfig(dataset="mnist-5k", norm=sys.argv[1], max_steps=20, compile="off")
dataset, cpu = load_dataset("mnist-5k", Path("data")), torch.device("cpu")
plain, captured = (Training(config, dataset, cpu) for _ in range(2))
before = copy.deepcopy(captured.model.state_dict())
captured.way = CapturedWay(captured.model, "fp32", cpu)
batch = captured._batch(torch.arange(config.batch_size))
captured._score_step = captured.way.capture(captured._score, *batch)
after = captured.model.state_dict()
document = {
    "notes": captured.notes,
    "way": captured.way.name,
    "is_unchanged": all(torch.equal(before[name], value) for name, value in after.items()),
    "has_grads": any(parameter.grad is not None for parameter in captured.model.parameters()),
    "rows": [training.run(Hooks()).history[-1] for training in (plain, captured)],
}
print(json.dumps(document))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on a CPU")
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_captured_step_trains_as_the_plain_one_does(norm):
    # In a process of its own: torch's compiler cannot see through the shape checks of the tests.
    command = [sys.executable, "-c", CAPTURED, norm]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    plain, captured = document.pop("rows")
    assert document == {
        "notes": ["compile on"],
        "way": "captured",
        "is_unchanged": True,
        "has_grads": False,
    }
    assert captured["train/loss"] == pytest.approx(plain["train/loss"], rel=1e-3)
    assert captured["val/loss"] == pytest.approx(plain["val/loss"], rel=0.02)


def test_a_step_that_cannot_be_captured_stays_as_it_is_and_says_why():
    config = TrainConfig(norm="batch", compile="on")
    model = build_model(config)
    before = copy.deepcopy(model.state_dict())

    def score(images, labels):
        model.norm1.running_mean.add_(1)
        raise RuntimeError("no compiler\nfor this")

    way = choose(model, config, torch.device("cuda"), 10**9)
    assert way.name == "captured"
    assert way.capture(score, torch.rand(4, 28, 28), torch.arange(4)) is score
    assert way.name == "torch"
    assert way.notes[0].startswith("compile off: Unsupported: ")
    assert "\n" not in way.notes[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("setting", "line"),
    [("off", "compile off"), ("auto", "compile off: what it saves on a GPU is not measured")],
)
def test_a_gpu_is_compiled_for_only_when_asked(setting, line):
    config = TrainConfig(compile=setting)
    assert choose(build_model(config), config, torch.device("cuda"), 10**9).startswith(line)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_a_captured_training_learns_as_the_plain_one_does(precision):
    dataset = load_dataset("mnist-5k", Path("data"))
    rows = []
    for setting in ("off", "on"):
        config = TrainConfig(dataset="mnist-5k", precision=precision, compile=setting, epochs=1)
        training = Training(config, dataset, torch.device("cuda"))
        assert training.notes == [f"compile {setting}"]
        rows.append(training.run(Hooks()).history[-1])
    assert rows[1]["train/loss"] == pytest.approx(rows[0]["train/loss"], rel=0.02)

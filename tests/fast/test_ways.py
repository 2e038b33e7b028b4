"""The way that is chosen, and that it computes what torch's modules do, run after run."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.fast import choose, compiler, threads
from groupnorm_bench.models.precision import RoundToBf16
from groupnorm_bench.norms import NORMS
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_model
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import Training
from groupnorm_bench.training.scoring import evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("mnist-5k", Path("data"))


def small(**settings):
    return TrainConfig.from_mapping(
        {"dataset": "mnist-5k", "train_limit": 256, "compile": "on"} | settings
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_network_trains_the_same_by_loops(norm, precision):
    torch.manual_seed(0)
    images, labels = torch.randn(16, 1, 28, 28), torch.arange(16) % 10
    grads = []
    for by_loops in (True, False):
        config = small(norm=norm, precision=precision)
        model = build_model(config)
        if by_loops:
            way = choose(model, config, CPU, 0)
            assert way.name == "loops-6"
            with way.context(16):
                logits = way.forward(images)
        elif precision == "bf16":
            with RoundToBf16():
                logits = model(images)
        else:
            logits = model(images)
        F.cross_entropy(logits, labels).backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    scale = max(grad.abs().max().item() for grad in grads[1].values())  # some are 0 but for noise
    tolerance = 1e-5 if precision == "fp32" else 0.03  # a rounding the other way here and there
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad, rtol=0, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_weights_that_are_nan_are_never_hidden_by_relu(norm):
    images = torch.randn(16, 1, 28, 28)
    for name in ("conv1.weight", "conv2.weight", "conv2.bias"):
        config = small(norm=norm)
        model = build_model(config)
        model.get_parameter(name).data.fill_(math.nan)
        assert choose(model, config, CPU, 0).forward(images).isnan().all(), name


def test_a_hook_on_a_layer_is_called_whatever_is_fused():
    config = small()
    model = build_model(config)
    way, images = choose(model, config, CPU, 0), torch.randn(2, 1, 28, 28)
    expected, seen = way.forward(images), []
    for layer in model:
        layer.register_forward_hook(lambda layer, _, output: seen.append(layer))
    torch.testing.assert_close(way.forward(images), expected, rtol=0, atol=1e-5)
    assert seen == list(model)


def test_a_training_is_bit_identical_after_a_stop_and_on_any_number_of_threads(digits):
    config = small(batch_size=128, epochs=2, train_limit=768)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        whole = Training(config, digits, CPU)
        assert whole.notes == ["compile on"]
        saved = []
        outcome = whole.run(Hooks(save=lambda state, _: saved.append(copy.deepcopy(state))))
    finally:
        torch.set_num_threads(before)
    again = Training(config, digits, CPU)
    again.restore(saved[0])
    resumed = again.run(Hooks())
    for name, value in outcome.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    plain = Training(config.replace(compile="off"), digits, CPU).run(Hooks())
    assert outcome.history[-1]["val/loss"] == pytest.approx(plain.history[-1]["val/loss"], rel=1e-3)
    assert outcome.history[-1]["val/accuracy"] > 0.6


def test_a_run_goes_on_in_the_way_in_which_it_began(digits):
    plain, loops = Training(small(compile="off"), digits, CPU), Training(small(), digits, CPU)
    assert (plain.way.name, loops.way.name) == ("torch", "loops-6")
    with_loops, without = loops.state(), plain.state() | {"cell": loops.config.cell}
    with pytest.raises(ValueError, match="it was trained with compile on, and here it is"):
        plain.restore(with_loops | {"cell": plain.config.cell})
    loops.restore(without)
    assert loops.way.name == "torch"


@pytest.mark.parametrize("way", ["plain", "loops", "loops-2", "loops-3", "loops-4"])
def test_a_run_that_an_older_version_computed_in_a_way_that_is_gone_says_so(way, digits):
    training = Training(small(), digits, CPU)
    with pytest.raises(ValueError, match=f"its steps were computed as an older gnbench .*{way}"):
        training.restore(training.state() | {"way": way})


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_what_one_way_trained_the_other_scores_alike(digits, norm):
    by_torch, by_loops = (
        Training(small(norm=norm, compile=setting, batch_size=32), digits, CPU)
        for setting in ("off", "on")
    )
    for trained, other in ((by_loops, by_torch), (by_torch, by_loops)):
        trained.run(Hooks())
        other.model.load_state_dict(trained.model.state_dict())  # every name, every shape
        (_, ours), (_, theirs) = (evaluate(t.way, digits, digits.val) for t in (trained, other))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * ours.abs().max().item())


def test_what_is_taken_follows_from_the_runs_length_alone():
    model = build_model(small())
    few, many = compiler.MIN_IMAGES - 1, compiler.MIN_IMAGES
    assert choose(model, small(compile="off"), CPU, 10**9) == "compile off"
    assert choose(model, small(compile="auto"), CPU, few).startswith("compile off: too short a run")
    for setting, images in (("auto", many), ("on", 1)):
        assert choose(model, small(compile=setting), CPU, images).notes == ["compile on"]


def test_a_network_that_no_loop_knows_is_left_to_torch():
    class Residual(nn.Sequential):
        def forward(self, features):
            return features + super().forward(features)

    conv = nn.Conv2d(1, 32, 5, padding=2)
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # its loops begin no chain
    for model in (nn.Sequential(nn.Linear(4, 2)), head, Residual(conv)):
        assert choose(model, small(), CPU, 0) == "compile off: no loops for this network"


def test_short_runs_do_not_load_the_compiler():
    code = """
import json, sys, torch
from pathlib import Path
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.training.loop import Training
dataset = load_dataset("mnist-5k", Path("data"))
Training(TrainConfig(dataset="mnist-5k", max_steps=9), dataset, torch.device("cpu"))
print(json.dumps([name for name in ("numba", "llvmlite") if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("batch_size", [2, 8, 50])
def test_no_bit_depends_on_threads_nor_on_when_they_are_there(
    digits, norm, batch_size, monkeypatch
):
    class Watch(threads._Watch):
        """Helpers that come and go from one piece of work to the next."""

        calls = 0

        def helpers(self):
            self.calls += 1
            return threads._helpers if self.calls % 3 else []

    before, states = torch.get_num_threads(), []
    config = small(norm=norm, batch_size=batch_size, max_steps=4)
    try:
        for num_threads, watch in ((1, None), (2, None), (3, None), (3, Watch())):
            if watch is not None:
                monkeypatch.setattr(threads, "_watch", watch)
            torch.set_num_threads(num_threads)
            training = Training(config, digits, CPU)
            outcome = training.run(Hooks())
            states.append(outcome.model.state_dict() | {"logits": outcome.test_logits})
    finally:
        torch.set_num_threads(before)
    for other in states[1:]:
        for name, value in states[0].items():
            assert (torch.as_tensor(value) == torch.as_tensor(other[name])).all(), name

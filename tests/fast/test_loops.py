"""The compiled loops against torch's own operations: values, gradients, rounding, threads."""

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.fast import blocks, choose, loops, ways
from groupnorm_bench.fast.convolution import convolve
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_model
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import Training
from tests.fast.test_blocks import assert_equals_reference, norms_for, randomize

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def prepared():
    assert loops.prepare() is None


def with_loops(features, norm):
    assert loops.fits(features, torch.float32)
    return blocks.norm_relu_pool(features, norm, True)


@pytest.mark.parametrize("norm", [*norms_for(16), nn.Identity()], ids=str)
def test_the_loops_equal_norm_relu_max_pool(norm):
    torch.manual_seed(0)
    if not isinstance(norm, nn.Identity):
        randomize(norm)
    ties = torch.randint(-2, 3, (4, 16, 6, 10)).float()
    tiny, huge = torch.randn(3, 16, 2, 2) * 1e-3, torch.randn(2, 16, 14, 14) * 1e6 + 1e6
    for features in (torch.randn(4, 16, 6, 10) * 3 + 1, ties, tiny, huge, ties[:1] * 0):
        features = features.contiguous(memory_format=torch.channels_last)
        assert_equals_reference(features, norm, torch.float32, with_loops)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_batch_norm_evaluates_by_the_loops_with_its_running_statistics(dtype):
    torch.manual_seed(0)
    norm = randomize(nn.BatchNorm2d(16))
    features = torch.randn(8, 16, 6, 6).contiguous(memory_format=torch.channels_last)
    norm(features * 2 + 1)
    norm.eval()
    with torch.no_grad():
        ours = blocks.norm_relu_pool(features.to(dtype), norm, True)
        expected = F.max_pool2d(F.relu(norm(features)), 2)
    assert ours.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(ours.float(), expected, rtol=0, atol=tolerance)


def test_bf16_features_and_a_scale_of_zero_go_through_the_loops():
    torch.manual_seed(0)
    norm = randomize(nn.GroupNorm(2, 8))
    with torch.no_grad():
        norm.weight[3] = 0
    features = torch.randn(4, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    assert_equals_reference(features, norm, torch.float32, with_loops)
    pooled = with_loops(features.bfloat16(), norm)
    assert pooled.dtype == torch.bfloat16
    expected = F.max_pool2d(F.relu(norm(features)), 2)
    torch.testing.assert_close(pooled.float(), expected, rtol=0.02, atol=0.03)


def test_what_the_loops_do_not_take_is_left_to_the_eager_block():
    last = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    assert loops.fits(last, torch.float32)
    assert not loops.fits(last.contiguous(), torch.float32)
    assert not loops.fits(last[:, :, :5], torch.float32)
    assert not loops.fits(last.double(), torch.float32)
    weight = torch.randn(16, 32, 5, 5)
    assert loops.takes_kernel(torch.randn(2, 32, 14, 14), weight)
    assert not loops.takes_kernel(torch.randn(2, 32, 15, 14), weight)
    assert not loops.takes_kernel(torch.randn(2, 32, 14, 14).double(), weight.double())
    assert not loops.takes_kernel(torch.randn(2, 8, 14, 14), weight[:, :8])
    first = torch.randn(32, 1, 5, 5)
    assert loops.takes_one_channel(torch.randn(2, 1, 28, 28), first)
    assert not loops.takes_one_channel(torch.randn(2, 1, 28, 30), first)
    assert not loops.takes_one_channel(torch.randn(2, 1, 28, 28), first[:, :, 1:4, 1:4])
    assert not loops.takes_one_channel(torch.randn(2, 1, 28, 28), first[:24])
    assert not loops.takes_one_channel(torch.randn(2, 1, 28, 28).double(), first.double())


@pytest.mark.parametrize(
    ("channels", "size", "kernel"),
    [((32, 64), (14, 14), 5), ((16, 32), (7, 10), 5), ((32, 16), (12, 13), 7)],
)
def test_the_convolution_by_loops_equals_torchs(channels, size, kernel):
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, kernel, padding=kernel // 2)
    images = torch.randn(13, channels[0], *size).requires_grad_()
    exact = copy.deepcopy(conv).double()
    exact_images = images.detach().double().requires_grad_()
    ours, theirs = convolve(images, conv, True), exact(exact_images)
    assert type(ours.grad_fn).__name__ == "_LoopConvolutionBackward"
    grad = torch.randn(ours.shape)
    our_grads = torch.autograd.grad(ours, [images, *conv.parameters()], grad)
    their_grads = torch.autograd.grad(theirs, [exact_images, *exact.parameters()], grad.double())
    for mine, other in zip((ours, *our_grads), (theirs, *their_grads), strict=True):
        torch.testing.assert_close(
            mine.double(), other, rtol=0, atol=1e-6 * other.abs().max().item()
        )


@pytest.mark.parametrize(("channels", "size"), [(32, (28, 28)), (16, (6, 8))])
def test_the_first_convolution_by_loops_equals_torchs(channels, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(1, channels, 5, padding=2)
    images = torch.randn(3, 1, *size)
    exact = copy.deepcopy(conv).double()
    ours, theirs = convolve(images, conv, True), exact(images.double())
    assert type(ours.grad_fn).__name__ == "_FirstLoopConvolutionBackward"
    assert ours.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn(ours.shape)
    our_grads = torch.autograd.grad(ours, list(conv.parameters()), grad)
    their_grads = torch.autograd.grad(theirs, list(exact.parameters()), grad.double())
    for mine, other in zip((ours, *our_grads), (theirs, *their_grads), strict=True):
        torch.testing.assert_close(
            mine.double(), other, rtol=0, atol=1e-6 * other.abs().max().item()
        )


def test_the_loops_round_to_bf16_as_torch_does():
    torch.manual_seed(0)
    padded, taps = torch.randn(2, 8, 8), torch.randn(25, 32)
    special = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1 + 2**-8, 1 + 3 * 2**-8]
    values = torch.tensor([*special, 3.4e38, 1e-40, *torch.randn(23).tolist()])
    exactly = {"rtol": 0, "atol": 0, "equal_nan": True}
    ours = loops.correlate(padded, taps * 0, values, True)[0, :, 0, 0]
    torch.testing.assert_close(ours, values.bfloat16().float(), **exactly)

    grad = torch.randn(2, 32, 4, 4)
    maps = torch.randn(2, 32, 14, 14)
    spectra = loops.to_spectra(maps, False)
    for ours, expected in (
        (
            loops.correlate(padded, taps, values[-32:].nan_to_num(), True),
            rounded(loops.correlate(padded, taps, values[-32:].nan_to_num(), False)),
        ),
        (
            loops.correlate_grads(padded, grad, True),
            loops.correlate_grads(padded, rounded(grad), False),
        ),
        (loops.to_spectra(maps, True), loops.to_spectra(rounded(maps), False)),
        (
            loops.from_spectra(spectra, True, 14, 14),
            rounded(loops.from_spectra(spectra, False, 14, 14)),
        ),
    ):
        assert torch.equal(ours, expected)
        assert not torch.equal(ours, torch.zeros_like(ours))


def rounded(values):
    return values.bfloat16().float()


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_network_trains_the_same_by_loops(norm, precision, monkeypatch):
    monkeypatch.setattr(ways, "has_bf16_instructions", lambda: False)  # round both times
    torch.manual_seed(0)
    images, labels = torch.randn(16, 1, 28, 28), torch.arange(16) % 10
    grads = []
    config = TrainConfig(norm=norm, precision=precision)
    for setting in ("on", "off"):
        model = build_model(config)
        way = choose(model, config.replace(compile=setting), CPU, 0)
        with way.context(16):
            logits = way.forward(images)
        F.cross_entropy(logits, labels).backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    scale = max(grad.abs().max().item() for grad in grads[1].values())  # some are 0 but for noise
    tolerance = 1e-5 if precision == "fp32" else 0.02  # a rounding the other way here and there
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad, rtol=0, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 16), nn.BatchNorm2d(16)], ids=str)
def test_a_gradient_takes_the_place_of_what_nobody_looks_at_again(norm):
    torch.manual_seed(0)
    leaf = torch.randn(4, 16, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    before = leaf.detach().clone()
    with_loops(leaf, norm).sum().backward()
    assert torch.equal(leaf, before)

    with_loops(leaf.view_as(leaf), norm).sum().backward()
    assert torch.equal(leaf, before)

    features = leaf * 2
    squares = features.square()  # looks at features in its backward pass
    total = with_loops(features, norm).sum()
    total.backward(retain_graph=True)
    for again in (total, squares.sum()):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            again.backward(retain_graph=True)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_weights_that_are_nan_are_never_hidden_by_relu(norm):
    images = torch.randn(16, 1, 28, 28)
    for name in ("conv1.weight", "conv2.weight", "conv2.bias"):
        config = TrainConfig(norm=norm, compile="on")
        model = build_model(config)
        model.get_parameter(name).data.fill_(math.nan)
        assert choose(model, config, CPU, 0).forward(images).isnan().all(), name


def test_a_training_with_loops_is_bit_identical_after_a_stop_and_learns():
    config = TrainConfig(
        dataset="mnist-5k", norm="group", batch_size=128, epochs=2, train_limit=768, compile="on"
    )
    dataset = load_dataset("mnist-5k", Path("data"))
    whole = Training(config, dataset, torch.device("cpu"))
    assert whole.notes == ["compile on"]
    rounds = Training(config.replace(precision="bf16"), dataset, torch.device("cpu"))
    assert rounds.notes[0].startswith("bf16: rounded values")
    saved = []
    outcome = whole.run(Hooks(save=lambda state, _: saved.append(copy.deepcopy(state))))
    again = Training(config, dataset, torch.device("cpu"))
    again.restore(saved[0])
    resumed = again.run(Hooks())
    for name, value in outcome.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    eager = Training(config.replace(compile="off"), dataset, torch.device("cpu")).run(Hooks())
    assert outcome.history[-1]["val/loss"] == pytest.approx(eager.history[-1]["val/loss"], rel=1e-3)
    assert outcome.history[-1]["val/accuracy"] > 0.6


def test_a_run_goes_on_in_the_way_in_which_it_began():
    dataset, cpu = load_dataset("mnist-5k", Path("data")), torch.device("cpu")
    config = TrainConfig(dataset="mnist-5k", norm="group", train_limit=256)
    plain = Training(config.replace(compile="off"), dataset, cpu)
    loops = Training(config.replace(compile="on"), dataset, cpu)
    assert (plain.way.name, loops.way.name) == ("plain", "loops")
    with_loops, without = loops.state(), plain.state() | {"cell": loops.config.cell}
    with pytest.raises(ValueError, match="it was trained with compile on, and here it is"):
        plain.restore(with_loops | {"cell": plain.config.cell})
    loops.restore(without)
    assert loops.way.name == "plain"


@pytest.mark.parametrize("norm", ["group-ws", "frn", "rms-group"])
def test_a_network_with_a_layer_that_has_no_loops_is_not_compiled(norm):
    config = TrainConfig(dataset="mnist-5k", norm=norm, compile="on", train_limit=256)
    training = Training(config, load_dataset("mnist-5k", Path("data")), torch.device("cpu"))
    assert training.notes == [f"norm {norm} on cpu: plain modules, not fused"]
    assert training.way.name == "plain"


@pytest.mark.slow
def test_a_damaged_cache_is_done_without(tmp_path):
    cache = tmp_path / "loops"
    shutil.copytree(os.environ["NUMBA_CACHE_DIR"], cache)
    indexes = list(cache.rglob("*.nbi"))
    assert indexes
    for index in indexes:
        index.write_bytes(b"")
    code = """
import torch
from groupnorm_bench.fast import loops
assert loops.prepare() is None
maps = torch.ones(1, 16, 2, 2).contiguous(memory_format=torch.channels_last)
print(loops.relu_pool(maps)[0].sum().item())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
    )
    assert float(done.stdout) == 16


def test_compilation_is_decided_by_the_number_of_images():
    assert loops.decide("off", 10**9) == (False, "compile off")
    assert loops.decide("auto", loops.MIN_IMAGES - 1)[0] is False
    assert loops.decide("auto", loops.MIN_IMAGES) == (True, "compile on")
    assert loops.decide("on", 1) == (True, "compile on")


def test_a_compiler_that_fails_leaves_the_eager_ways_and_says_so(monkeypatch):
    def fail():
        raise OSError("no space left\non device")

    monkeypatch.setattr(loops, "_kernels", fail)
    config = TrainConfig(dataset="mnist-5k", compile="on", train_limit=256)
    training = Training(config, load_dataset("mnist-5k", Path("data")), torch.device("cpu"))
    assert training.notes[-1] == "compile off: OSError: no space left on device"
    assert training.way.name == "plain"


def test_short_runs_do_not_load_the_compiler():
    code = """
import json, sys, torch
from pathlib import Path
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.training.loop import Training
dataset = load_dataset("mnist-5k", Path("data"))
Training(TrainConfig(dataset="mnist-5k"), dataset, torch.device("cpu"))
print(json.dumps([name for name in ("numba", "llvmlite") if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert json.loads(done.stdout) == []

"""The fast block against the plain modules it stands for: forward, gradients, state."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groupnorm_bench.fast import blocks, choose
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_model

SHAPES = [(4, 8, 28, 28), (1, 8, 2, 2), (3, 8, 7, 5), (2, 8, 14, 3), (5, 16, 6, 9)]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}


def norms_for(channels):
    groups = [g for g in range(1, channels + 1) if channels % g == 0]  # 1 to C
    return [nn.GroupNorm(g, channels) for g in groups] + [nn.BatchNorm2d(channels)]


def randomize(norm, signs=True):
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        if signs:
            norm.weight[::2].neg_()
        norm.bias.normal_()
    return norm


def reference(features, norm):
    return F.max_pool2d(F.relu(norm(features)), 2)


def outputs_and_grads(function, features, norm, dtype, seed=1):
    """Return the output and the gradients of features, scale and shift, all in float64."""
    norm = copy.deepcopy(norm).to(dtype)
    features = features.to(dtype).detach().requires_grad_()
    output = function(features, norm)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
    grads = torch.autograd.grad((output * weights.to(dtype)).sum(), [features, *norm.parameters()])
    return [value.double() for value in (output, *grads)], norm


def assert_equals_reference(features, norm, dtype, function=blocks.norm_relu_pool):
    ours, our_norm = outputs_and_grads(function, features, norm, dtype)
    expected, plain_norm = outputs_and_grads(reference, features, norm, torch.float64)
    for mine, theirs in zip(ours, expected, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE[dtype] * scale)
    for mine, theirs in zip(our_norm.buffers(), plain_norm.buffers(), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_block_equals_norm_relu_max_pool(shape, layout, dtype):
    torch.manual_seed(0)
    features = torch.randn(shape).mul(3).add(1).contiguous(memory_format=layout)
    for norm in norms_for(shape[1]):
        assert_equals_reference(features, randomize(norm), dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_ties_and_zero_scales_send_the_gradient_where_max_pooling_does(dtype):
    features = torch.randint(-2, 3, (4, 8, 12, 10), generator=torch.Generator().manual_seed(3))
    features = features.float().contiguous(memory_format=torch.channels_last)
    for norm in norms_for(8):
        randomize(norm)
        with torch.no_grad():
            norm.weight[1] = 0.0
            norm.bias[1] = 0.5
        # Coarse values tie only where the inputs do, in every precision.
        assert_equals_reference(features, norm, dtype)


def test_zeros_pass_as_through_the_plain_modules():
    for norm in norms_for(8):
        assert_equals_reference(torch.zeros(3, 8, 6, 6), randomize(norm), torch.float32)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e15])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_huge_and_tiny_values(scale, dtype):
    torch.manual_seed(0)
    features = torch.randn(4, 8, 14, 14) * scale
    for norm in norms_for(8):
        randomize(norm)
        nn.init.zeros_(norm.bias)  # a shift would swallow tiny values, and tie them
        ours, _ = outputs_and_grads(blocks.norm_relu_pool, features, norm, dtype)
        expected, _ = outputs_and_grads(reference, features, norm, torch.float64)
        for mine, theirs in zip(ours, expected, strict=True):
            size = theirs.abs().max().item()
            torch.testing.assert_close(mine, theirs, rtol=0, atol=10 * TOLERANCE[dtype] * size)


def test_a_mean_far_from_zero_does_not_cancel():
    torch.manual_seed(0)
    features = torch.randn(4, 8, 14, 14) + 1000.0
    norm = nn.GroupNorm(2, 8)
    expected = reference(features.double(), copy.deepcopy(norm).double())
    torch.testing.assert_close(
        blocks.norm_relu_pool(features, norm).double(), expected, rtol=0, atol=5e-4
    )


def test_gradients_are_the_finite_differences():
    torch.manual_seed(0)
    features = torch.randn(2, 4, 4, 6, dtype=torch.float64, requires_grad=True)
    for norm in (nn.GroupNorm(2, 4), nn.BatchNorm2d(4)):
        norm = randomize(norm).double()
        torch.autograd.gradcheck(lambda x, norm=norm: blocks.norm_relu_pool(x, norm), (features,))


def test_batch_norm_evaluates_with_its_running_statistics():
    torch.manual_seed(0)
    norm = randomize(nn.BatchNorm2d(8))
    features = torch.randn(16, 8, 6, 6)
    reference(features * 2 + 1, norm)
    norm.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            blocks.norm_relu_pool(features, norm), reference(features, norm), rtol=0, atol=1e-5
        )
    assert blocks.norm_relu_pool(features, norm) is None  # gradients in evaluation: plain modules


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_follow_the_module(momentum):
    torch.manual_seed(0)
    ours, plain = nn.BatchNorm2d(8, momentum=momentum), nn.BatchNorm2d(8, momentum=momentum)
    for scale in (1.0, 2.0, 3.0):
        features = torch.randn(4, 8, 6, 6) * scale + scale
        blocks.norm_relu_pool(features, ours)
        plain(features)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)


def test_other_norms_and_shapes_are_left_to_the_plain_modules():
    class MyGroupNorm(nn.GroupNorm):
        pass

    features = torch.randn(2, 8, 6, 6)
    for norm in (MyGroupNorm(2, 8), nn.GroupNorm(2, 8, affine=False), nn.InstanceNorm2d(8)):
        assert blocks.norm_relu_pool(features, norm) is None
    assert blocks.norm_relu_pool(torch.randn(2, 8, 1, 6), nn.GroupNorm(2, 8)) is None


@pytest.mark.parametrize("norm", ["none", "batch", "group", "layer", "instance"])
def test_the_network_trains_the_same_by_either_way(norm):
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8)
    grads, states = [], []
    for is_fast in (True, False):
        config = TrainConfig(norm=norm, compile="off")
        model = build_model(config).double()
        way = choose(model, config, torch.device("cpu"), 0)
        forward = way.forward if is_fast else model
        F.cross_entropy(forward(images.double()), labels).backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
        states.append(model.state_dict())
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad, msg=name)
    torch.testing.assert_close(states[0], states[1])


def test_the_same_step_twice_is_bit_identical():
    features = torch.randn(16, 32, 28, 28).contiguous(memory_format=torch.channels_last)
    norm = nn.GroupNorm(8, 32)
    first, _ = outputs_and_grads(blocks.norm_relu_pool, features, norm, torch.float32)
    second, _ = outputs_and_grads(blocks.norm_relu_pool, features, norm, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

"""Norm, ReLU and pooling as one block, against torch's modules: values, gradients, state."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groupnorm_bench.fast import blocks, compiler
from groupnorm_bench.fast.chain import Chain

SHAPES = [(4, 8, 28, 28), (1, 8, 2, 2), (3, 8, 6, 4), (2, 8, 14, 2), (5, 16, 6, 10)]
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def prepared():
    assert compiler.prepare([*compiler.COMMON, "statistics", "group", "none"]) == (
        "compile on",
        True,
    )


def norms_for(channels):
    groups = [g for g in range(1, channels + 1) if channels % g == 0]  # 1 to C
    norms = [nn.GroupNorm(g, channels) for g in groups] + [nn.BatchNorm2d(channels)]
    return [*map(randomize, norms), nn.Identity()]


def randomize(norm):
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.weight[::2].neg_()
        norm.bias.normal_()
    return norm


def norm_relu_pool(features, norm):
    """Return what the block makes of features; None where it does not take them."""
    chain, link = Chain(features), blocks.link(norm)
    return chain.run() if link is not None and chain.add(link) else None


def last(features):
    return features.contiguous(memory_format=torch.channels_last)


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


def assert_equals_reference(features, norm):
    features = last(features)
    ours, our_norm = outputs_and_grads(norm_relu_pool, features, norm, torch.float32)
    expected, plain_norm = outputs_and_grads(reference, features, norm, torch.float64)
    for mine, theirs in zip(ours, expected, strict=True):
        size = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE * size)
    for mine, theirs in zip(our_norm.buffers(), plain_norm.buffers(), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_block_equals_norm_relu_max_pool(shape):
    torch.manual_seed(0)
    features = torch.randn(shape).mul(3).add(1)
    for norm in norms_for(shape[1]):
        assert_equals_reference(features, norm)


def test_ties_and_zero_scales_send_the_gradient_where_max_pooling_does():
    features = torch.randint(-2, 3, (4, 8, 12, 10), generator=torch.Generator().manual_seed(3))
    for norm in norms_for(8):
        if not isinstance(norm, nn.Identity):
            with torch.no_grad():
                norm.weight[1] = 0.0
                norm.bias[1] = 0.5
        # Coarse values tie only where the inputs do, in every precision.
        assert_equals_reference(features.float(), norm)
        assert_equals_reference(features.float() * 0, norm)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e15])
def test_huge_and_tiny_values(scale):
    torch.manual_seed(0)
    features = last(torch.randn(4, 8, 14, 14) * scale)
    for norm in norms_for(8)[:-1]:
        nn.init.zeros_(norm.bias)  # a shift would swallow tiny values, and tie them
        ours, _ = outputs_and_grads(norm_relu_pool, features, norm, torch.float32)
        expected, _ = outputs_and_grads(reference, features, norm, torch.float64)
        for mine, theirs in zip(ours, expected, strict=True):
            size = theirs.abs().max().item()
            torch.testing.assert_close(mine, theirs, rtol=0, atol=10 * TOLERANCE * size)


def test_a_mean_far_from_zero_does_not_cancel():
    torch.manual_seed(0)
    features = last(torch.randn(4, 8, 14, 14) + 1000.0)
    norm = nn.GroupNorm(2, 8)
    expected = reference(features.double(), copy.deepcopy(norm).double())
    torch.testing.assert_close(norm_relu_pool(features, norm).double(), expected, rtol=0, atol=5e-4)


def test_batch_norm_evaluates_with_its_running_statistics():
    torch.manual_seed(0)
    norm = randomize(nn.BatchNorm2d(8))
    features = last(torch.randn(16, 8, 6, 6))
    reference(features * 2 + 1, norm)
    norm.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            norm_relu_pool(features, norm), reference(features, norm), rtol=0, atol=1e-5
        )
    assert norm_relu_pool(features, norm) is None  # gradients in evaluation: plain modules


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_follow_the_module(momentum):
    torch.manual_seed(0)
    ours, plain = nn.BatchNorm2d(8, momentum=momentum), nn.BatchNorm2d(8, momentum=momentum)
    for scale in (1.0, 2.0, 3.0):
        features = last(torch.randn(4, 8, 6, 6) * scale + scale)
        norm_relu_pool(features, ours)
        plain(features)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)


def test_other_norms_and_features_are_left_to_torchs_modules():
    class MyGroupNorm(nn.GroupNorm):
        pass

    features = last(torch.randn(2, 8, 6, 6))
    for norm in (MyGroupNorm(2, 8), nn.GroupNorm(2, 8, affine=False), nn.InstanceNorm2d(8)):
        assert norm_relu_pool(features, norm) is None
    norm = nn.GroupNorm(2, 8)
    assert norm_relu_pool(features, norm) is not None
    odd = last(features[:, :, :5])
    for other in (features.contiguous(), odd, features.double(), last(features[:, :, :1])):
        assert norm_relu_pool(other, norm) is None


@pytest.mark.parametrize(
    "tail",
    [
        [nn.ReLU(), nn.MaxPool2d(3)],
        [nn.ReLU(), nn.MaxPool2d(2, stride=1)],
        [nn.ReLU(), nn.AvgPool2d(2)],
        [nn.LeakyReLU(), nn.MaxPool2d(2)],
        [nn.ReLU()],
    ],
    ids=str,
)
def test_only_relu_and_2x2_max_pooling_make_a_block(tail):
    norm = nn.GroupNorm(2, 8)
    assert blocks.is_block([norm, nn.ReLU(), nn.MaxPool2d(2)])
    assert not blocks.is_block([norm, *tail])


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 16), nn.BatchNorm2d(16)], ids=str)
def test_a_gradient_takes_the_place_of_what_nobody_looks_at_again(norm):
    torch.manual_seed(0)
    leaf = last(torch.randn(4, 16, 6, 6)).requires_grad_()
    before = leaf.detach().clone()
    norm_relu_pool(leaf, norm).sum().backward()
    assert torch.equal(leaf, before)

    norm_relu_pool(leaf.view_as(leaf), norm).sum().backward()
    assert torch.equal(leaf, before)

    features = leaf * 2
    squares = features.square()  # looks at features in its backward pass
    total = norm_relu_pool(features, norm).sum()
    total.backward(retain_graph=True)
    for again in (total, squares.sum()):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            again.backward(retain_graph=True)

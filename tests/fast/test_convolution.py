"""Our convolutions against torch's: values, gradients, and where they are left to it."""

import pytest
import torch
from torch import nn

from groupnorm_bench.fast.convolution import MIN_SPECTRAL_BATCH, convolve


@pytest.mark.parametrize(("size", "kernel"), [((28, 28), 5), ((7, 9), 3), ((5, 4), (1, 3))])
def test_first_convolution_as_a_matrix_product(size, kernel):
    torch.manual_seed(0)
    padding = kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
    conv = nn.Conv2d(1, 6, kernel, padding=padding).double()
    images = torch.randn(3, 1, *size, dtype=torch.float64)
    grads = []
    for function in (convolve, lambda x, layer: layer(x)):
        output = function(images, conv)
        grads.append([output, *torch.autograd.grad(output.square().sum(), conv.parameters())])
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert convolve(images, conv).is_contiguous(memory_format=torch.channels_last)


def values_and_grads(function, images, conv):
    """Return output and gradients of images, weight and bias, all in float64."""
    images = images.detach().to(conv.weight.dtype).requires_grad_()
    output = function(images, conv)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    loss = (output * weights.to(output.dtype)).sum()
    return [
        output.double(),
        *map(torch.Tensor.double, torch.autograd.grad(loss, [images, *conv.parameters()])),
    ]


def direct(images, conv):
    return conv(images)


SPECTRAL = [((14, 14), 5), ((14, 14), 7), ((13, 6), (5, 7)), ((5, 9), 5), ((3, 2), 5), ((1, 1), 5)]


@pytest.mark.parametrize(("size", "kernel"), SPECTRAL, ids=str)
def test_a_convolution_in_the_frequency_domain(size, kernel):
    torch.manual_seed(0)
    padding = kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
    conv = nn.Conv2d(3, 4, kernel, padding=padding).double()
    images = torch.randn(MIN_SPECTRAL_BATCH, 3, *size, dtype=torch.float64)
    ours, theirs = (values_and_grads(way, images, conv) for way in (convolve, direct))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12 * expected.abs().max().item())
    assert not torch.equal(ours[0], theirs[0]), "another way was gone"
    assert convolve(images, conv).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_in_float32_it_rounds_no_worse_than_the_direct_way(scale, offset):
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 64, 5, padding=2)
    images = (torch.randn(64, 32, 14, 14).relu() + offset) * scale
    exact = nn.Conv2d(32, 64, 5, padding=2).double()
    exact.load_state_dict(conv.state_dict())
    expected = values_and_grads(direct, images, exact)
    errors = [
        [
            ((a - b).norm() / b.norm()).item()
            for a, b in zip(values_and_grads(way, images, conv), expected, strict=True)
        ]
        for way in (convolve, direct)
    ]
    assert all(mine < max(theirs, 1e-6) for mine, theirs in zip(*errors, strict=True)), errors


def test_small_batches_and_small_kernels_are_left_to_torch():
    torch.manual_seed(0)
    for count, kernel in ((MIN_SPECTRAL_BATCH - 1, 5), (MIN_SPECTRAL_BATCH, 3)):
        conv = nn.Conv2d(3, 4, kernel, padding=kernel // 2)
        images = torch.randn(count, 3, 8, 8)
        assert torch.equal(convolve(images, conv), conv(images))
    with torch.autocast("cpu", torch.bfloat16):
        conv = nn.Conv2d(3, 4, 5, padding=2)
        images = torch.randn(MIN_SPECTRAL_BATCH, 3, 8, 8)
        assert torch.equal(convolve(images, conv), conv(images))


def test_convolutions_it_does_not_fit_run_as_they_are():
    torch.manual_seed(0)
    images = torch.randn(2, 1, 9, 9)
    for conv in (
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(1, 4, 3, padding=1, stride=2),
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
    ):
        assert torch.equal(convolve(images, conv), conv(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_rounding_reaches_values_and_gradients(channels):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 4, 5, padding=2)
    images = torch.randn(MIN_SPECTRAL_BATCH, channels, 8, 8)
    output = convolve(images, conv, rounds=True)
    (grad,) = torch.autograd.grad(output.square().sum(), conv.weight)
    for values in (output, grad):
        assert torch.equal(values, values.bfloat16().float())
    assert not torch.equal(convolve(images, conv), output)

"""Our convolutions against torch's: values, gradients, and where they are left to it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from groupnorm_bench.fast import compiler, convolution, loops
from groupnorm_bench.fast.chain import Chain


@pytest.fixture(autouse=True)
def prepared():
    assert compiler.prepare(compiler.COMMON + compiler.CONVOLUTIONS) == ("compile on", True)


def convolve(images, conv, rounds=False):
    """Return what the loops make of images; None where they do not take them."""
    chain, link = Chain(images), convolution.link(conv, rounds)
    return chain.run() if link is not None and chain.add(link) else None


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


@pytest.mark.parametrize(
    ("channels", "size", "batch_size"),
    [
        ((32, 64), (14, 14), 1),
        ((32, 64), (14, 14), 4),
        ((16, 32), (7, 10), 3),
        ((48, 16), (12, 13), 2),
    ],
)
def test_a_convolution_in_the_frequency_domain(channels, size, batch_size):
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 5, padding=2)
    images = torch.randn(batch_size, channels[0], *size)
    ours = values_and_grads(convolve, images, conv)
    theirs = values_and_grads(direct, images, copy.deepcopy(conv).double())
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6 * expected.abs().max().item())
    output = convolve(images, conv)
    assert type(output.grad_fn).__name__ == "_RunBackward"
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_it_rounds_no_worse_than_the_direct_way(scale, offset):
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 64, 5, padding=2)
    images = (torch.randn(64, 32, 14, 14).relu() + offset) * scale
    expected = values_and_grads(direct, images, copy.deepcopy(conv).double())
    errors = [
        [
            ((a - b).norm() / b.norm()).item()
            for a, b in zip(values_and_grads(way, images, conv), expected, strict=True)
        ]
        for way in (convolve, direct)
    ]
    assert all(mine < max(theirs, 1e-6) for mine, theirs in zip(*errors, strict=True)), errors


@pytest.mark.parametrize(("channels", "size"), [(32, (28, 28)), (16, (6, 8))])
def test_the_first_convolution(channels, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(1, channels, 5, padding=2)
    images = torch.randn(3, 1, *size)
    exact = copy.deepcopy(conv).double()
    ours, theirs = convolve(images, conv), exact(images.double())
    assert type(ours.grad_fn).__name__ == "_RunBackward"
    assert ours.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn(ours.shape)
    our_grads = torch.autograd.grad(ours, list(conv.parameters()), grad)
    their_grads = torch.autograd.grad(theirs, list(exact.parameters()), grad.double())
    for mine, other in zip((ours, *our_grads), (theirs, *their_grads), strict=True):
        torch.testing.assert_close(
            mine.double(), other, rtol=0, atol=1e-6 * other.abs().max().item()
        )


@pytest.mark.parametrize(
    ("images", "conv"),
    [
        ((16, 32, 14, 14), nn.Conv2d(32, 64, 3, padding=1)),  # smaller kernels
        ((16, 32, 12, 12), nn.Conv2d(32, 16, 7, padding=3)),  # larger ones
        ((16, 32, 15, 14), nn.Conv2d(32, 64, 5, padding=2)),  # a period too long
        ((16, 8, 14, 14), nn.Conv2d(8, 64, 5, padding=2)),  # channels that fill no registers
        ((2, 1, 28, 30), nn.Conv2d(1, 32, 5, padding=2)),
        ((2, 1, 28, 28), nn.Conv2d(1, 24, 5, padding=2)),
        ((2, 1, 9, 9), nn.Conv2d(1, 4, 3)),
        ((2, 1, 28, 28), nn.Conv2d(1, 32, 5, padding=2, stride=2)),
        ((2, 1, 28, 28), nn.Conv2d(1, 32, 5, padding=2, padding_mode="reflect")),
        ((2, 1, 28, 28), nn.Conv2d(1, 32, 5, padding="same")),
        ((2, 1, 28, 28), nn.Conv2d(1, 32, 5, padding=2, bias=False)),
        ((16, 32, 14, 14), nn.Conv2d(32, 64, 5, padding=2).double()),
    ],
    ids=str,
)
def test_convolutions_that_the_loops_do_not_take(images, conv):
    assert convolve(torch.randn(images).to(conv.weight.dtype), conv) is None


def test_images_that_need_a_gradient_are_not_taken_by_the_first_convolution():
    conv, images = nn.Conv2d(1, 16, 5, padding=2), torch.randn(2, 1, 8, 8)
    assert convolve(images, conv) is not None
    assert convolve(images.requires_grad_(), conv) is None


@pytest.mark.parametrize(("channels", "batch_size"), [(1, 2), (32, 2), (32, 5)])
def test_rounding_reaches_values_and_gradients(channels, batch_size):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 16, 5, padding=2)
    images = torch.randn(batch_size, channels, 8, 8)
    output = convolve(images, conv, rounds=True)
    (grad,) = torch.autograd.grad(output.square().sum(), conv.weight)
    for values in (output, grad):
        assert torch.equal(values, values.bfloat16().float())
    assert not torch.equal(convolve(images, conv), output)


def test_the_loops_round_to_bf16_as_torch_does():
    torch.manual_seed(0)
    padded, taps = (torch.randn(shape).numpy() for shape in ((2, 8, 8), (25, 32)))
    images = torch.randn(2, 4, 4, 1).numpy()
    special = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1 + 2**-8, 1 + 3 * 2**-8]
    values = torch.tensor([*special, 3.4e38, 1e-40, *torch.randn(23).tolist()]).numpy()
    ours = made(loops.correlate, images, taps * 0, values, True)[0][0, 0, 0]
    assert np.array_equal(ours, rounded(values), equal_nan=True)

    values = np.nan_to_num(values)
    grad, maps = torch.randn(2, 4, 4, 32).numpy(), torch.randn(2, 14, 14, 32).numpy()
    spectra = made(loops.to_spectra, maps, False)
    for ours, expected in (
        (
            made(loops.correlate, images, taps, values, True)[0],
            rounded(made(loops.correlate, rounded(images), taps, values, False)[0]),
        ),
        (
            made(loops.correlate_grads, padded, grad, True),
            made(loops.correlate_grads, padded, rounded(grad), False),
        ),
        (made(loops.to_spectra, maps, True), made(loops.to_spectra, rounded(maps), False)),
        (
            made(loops.from_spectra, spectra, True, 14, 14),
            rounded(made(loops.from_spectra, spectra, False, 14, 14)),
        ),
    ):
        assert np.array_equal(ours, expected)
        assert ours.any()


def made(loop, *arguments):
    work = loops.Work(2)
    result = loop(work, *arguments)
    work.finish()
    return result


def rounded(values):
    return torch.from_numpy(values).bfloat16().float().numpy()

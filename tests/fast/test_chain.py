"""Several steps as one operation: the same bits as one at a time, and what it refuses."""

import pytest
import torch
from torch import nn

from groupnorm_bench.fast import blocks, compiler, convolution
from groupnorm_bench.fast.chain import Chain


@pytest.fixture(autouse=True)
def prepared():
    kinds = (*compiler.CONVOLUTIONS, "statistics", "group", "none")
    assert compiler.prepare(kinds) == ("compile on", True)


def links_for(norm, rounds=False):
    torch.manual_seed(0)
    convs = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 5, padding=2)
    norms = [norm(conv.out_channels) for conv in convs]
    links = [
        link
        for conv, each in zip(convs, norms, strict=True)
        for link in (convolution.link(conv, rounds), blocks.link(each))
    ]
    return links, nn.ModuleList([*convs, *norms])


def run(features, links, at_once):
    if at_once:
        chain = Chain(features)
        assert all(map(chain.add, links))
        return chain.run()
    for link in links:
        chain = Chain(features)
        assert chain.add(link)
        features = chain.run()
    return features


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d, lambda channels: nn.GroupNorm(8, channels), lambda _: nn.Identity()]
)
def test_a_chain_computes_bit_for_bit_what_its_links_do_alone(norm, rounds):
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    found = []
    for at_once in (True, False):
        links, modules = links_for(norm, rounds)
        output = run(images, links, at_once)
        output.square().sum().backward()
        grads = [parameter.grad for parameter in modules.parameters()]
        found.append([output.detach(), *grads, *modules.buffers()])
        with torch.no_grad():
            found[-1].append(run(images, links, at_once))
        assert torch.equal(found[-1][0], found[-1][-1])  # with gradients or without
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()


def test_a_second_backward_pass_is_refused():
    links, _ = links_for(nn.BatchNorm2d)
    total = run(torch.randn(2, 1, 28, 28), links, at_once=True).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="what the first one needed is overwritten"):
        total.backward()


def test_a_convolution_without_a_gradient_of_its_images_stands_first_alone():
    first = convolution.link(nn.Conv2d(1, 16, 5, padding=2), rounds=False)
    chain = Chain(torch.randn(2, 1, 8, 8))
    assert chain.add(blocks.link(nn.Identity()))
    assert not chain.add(first)


def test_parameters_that_are_frozen_get_no_gradient():
    links, modules = links_for(nn.BatchNorm2d)
    modules[1].weight.requires_grad_(False)
    run(torch.randn(2, 1, 28, 28), links, at_once=True).sum().backward()
    missing = [name for name, each in modules.named_parameters() if each.grad is None]
    assert missing == ["1.weight"]

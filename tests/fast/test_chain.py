"""Several steps as one operation: the same bits as one at a time, and what it refuses."""

import copy
import threading

import pytest
import torch
from torch import nn

from groupnorm_bench.fast import blocks, compiler, convolution, linear, loops, threads
from groupnorm_bench.fast.chain import Chain
from groupnorm_bench.models.precision import RoundToBf16


@pytest.fixture(autouse=True)
def prepared():
    assert compiler.prepare(compiler.kernels().KINDS) == ("compile on", True)


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
@pytest.mark.parametrize("num_images", [3, 37])
def test_a_chain_computes_bit_for_bit_what_its_links_do_alone(norm, rounds, num_images):
    images = torch.randn(num_images, 1, 28, 28, generator=torch.Generator().manual_seed(1))
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


@pytest.mark.parametrize("num_images", [5, 16, 37])
def test_images_are_taken_together_a_few_at_a_time(num_images, monkeypatch):
    """Each loop sees each image once, after the loops before it, and each thread all its parts."""
    seen, own = [], []

    def loop(name, first, last):
        seen.extend((name, each) for each in range(first, last))
        if threading.current_thread() is threading.main_thread():
            own.extend((name, each) for each in range(first, last))
        return last - first

    monkeypatch.setattr(loops, "_AT_ONCE", 8)
    with threads.sharing(2):
        work = loops.Work(num_images)
        work.add(loop, "a")
        work.beside(9, loop, "beside")
        work.add(loop, "b")
        counted = work.collect(loop, "c")
        work.finish()  # nothing is left
    for name, length in (("a", num_images), ("b", num_images), ("c", num_images), ("beside", 9)):
        assert sorted(each for kind, each in seen if kind == name) == list(range(length))
    assert (len(counted), sum(counted)) == (4, num_images)
    for image in range(num_images):
        places = [seen.index((name, image)) for name in "abc"]
        assert places == sorted(places)
    ahead = own.index(("b", 0)) - own.index(("a", 0))  # a helper may do all its part meanwhile
    assert ahead <= (8 if num_images >= threads.MIN_SHARED_BATCH else num_images + 9)


def head_for(channels=32, side=7, outputs=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, outputs))


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(("num_images", "outputs"), [(5, 10), (1, 1), (2, 3), (37, 13)])
def test_a_linear_layer_takes_maps_without_flattening_them(rounds, num_images, outputs):
    head = head_for(outputs=outputs)
    twin = copy.deepcopy(head)
    features = torch.randn(num_images, 32, 14, 14, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(num_images, outputs, generator=torch.Generator().manual_seed(2))
    found = []
    for by_loops, modules in ((True, head), (False, twin)):
        inputs = features.clone().requires_grad_()
        chain = Chain(inputs)
        assert chain.add(blocks.link(nn.Identity()))
        if by_loops:
            assert chain.add(linear.link(list(modules), rounds))
            output = chain.run()
        elif rounds:
            with RoundToBf16():
                output = modules(chain.run())
        else:
            output = modules(chain.run())
        (output * weights).sum().backward()
        found.append([output, inputs.grad, *(each.grad for each in modules.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        error = 0.01 if rounds else 1e-6  # a rounding the other way here and there
        torch.testing.assert_close(ours, theirs, rtol=0, atol=error * theirs.abs().max().item())
        if rounds and ours is not found[0][1]:
            assert torch.equal(ours, ours.bfloat16().float())


def test_a_linear_layer_stands_last_behind_maps_of_its_size():
    head = linear.link(list(head_for()), rounds=False)
    assert not Chain(torch.randn(2, 32, 7, 7)).add(head)  # which others might change
    for size, is_taken in ((14, True), (12, False)):
        chain = Chain(torch.randn(2, 32, size, size))
        assert chain.add(blocks.link(nn.Identity()))
        assert chain.add(head) is is_taken
    few = linear.link(list(head_for(channels=8)), rounds=False)
    chain = Chain(torch.randn(2, 8, 14, 14))
    assert chain.add(blocks.link(nn.Identity()))
    assert not chain.add(few)  # loops take sixteen channels at a time
    chain = Chain(torch.randn(2, 32, 14, 14))
    assert chain.add(blocks.link(nn.Identity()))
    assert chain.add(head)
    assert not chain.add(blocks.link(nn.Identity()))


@pytest.mark.parametrize(
    "modules",
    [
        [nn.Flatten(2), nn.Linear(49, 10)],
        [nn.Flatten(1, 2), nn.Linear(49, 10)],
        [nn.Flatten(), nn.Linear(49, 10, bias=False)],
        [nn.ReLU(), nn.Linear(49, 10)],
        [nn.Flatten(), nn.ReLU()],
    ],
    ids=str,
)
def test_other_heads_are_left_to_torchs_modules(modules):
    assert linear.link(modules, rounds=False) is None

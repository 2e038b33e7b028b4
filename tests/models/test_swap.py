"""Exchanging the norms of a network: what changes, and that nothing else does."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from groupnorm_bench import swap_norms
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.norms import NORMS, make_norm
from groupnorm_bench.norms.layers import GhostBatchNorm2d

FACTORIES = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "efficientnet_b0": lambda: torchvision.models.efficientnet_b0(num_classes=5, dropout=0.0),
    "timm densenet121": lambda: timm.create_model("densenet121", num_classes=5),  # BatchNormAct2d
    "timm resnetv2_50": lambda: timm.create_model("resnetv2_50", num_classes=5),
}


def built(factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return factory()


def group(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def outputs_and_gradients(model: nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(1)  # stochastic depth
    logits = model(images)
    logits.square().sum().backward()
    return [logits, *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("name", FACTORIES)
def test_arm_batch_on_a_batch_norm_model_changes_nothing_at_all(name):
    model, untouched = built(FACTORIES[name]), built(FACTORIES[name])
    modules = list(model.modules())
    sites = swap_norms(model, lambda channels: make_norm("batch", channels))
    assert all(site.kept for site in sites)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    pairs = zip(outputs_and_gradients(model), outputs_and_gradients(untouched), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", FACTORIES)
def test_every_other_weight_is_bit_equal_and_scales_are_carried(name):
    model, untouched = built(FACTORIES[name]), built(FACTORIES[name])
    state = torch.random.get_rng_state()
    sites = {site.name: site for site in swap_norms(model, group)}
    assert torch.equal(torch.random.get_rng_state(), state)
    norms = {n: m for n, m in untouched.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert sites.keys() == norms.keys()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    others = {n: p for n, p in untouched.named_parameters() if n.rpartition(".")[0] not in norms}
    assert others
    assert all(torch.equal(model.get_parameter(n), p) for n, p in others.items())
    for name, norm in norms.items():
        layer = model.get_submodule(name)
        layer = layer.norm if isinstance(layer, nn.Sequential) else layer
        assert type(layer) is nn.GroupNorm
        assert torch.equal(layer.weight, norm.weight)
        assert sites[name].carried == ("scale", "shift")


def test_a_network_of_fused_layers_keeps_its_activations():
    """A second way: forward hooks count what activates, and the formula is written out once."""
    model, untouched = (built(FACTORIES["timm densenet121"]) for _ in range(2))
    swap_norms(model, group)

    def activations(network):
        seen = []
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(lambda _, __, output: seen.append(output.shape))
        network(torch.randn(2, 3, 64, 64))
        return seen

    assert len(activations(untouched)) == 121
    assert activations(model) == activations(untouched)
    old, new = untouched.features.norm0, model.features.norm0
    features = torch.randn(2, 64, 5, 5)
    expected = F.relu(F.group_norm(features, 4, old.weight, old.bias))
    assert torch.equal(new(features.clone()), expected)


def test_a_scale_that_starts_at_zero_stays_at_zero():
    model = timm.create_model("resnet18", num_classes=5, zero_init_last=True)
    swap_norms(model, group)
    assert not model.layer1[0].bn2.weight.any()
    assert model.layer1[0].bn1.weight.all()


def test_a_layer_in_two_places_stays_one_layer_and_tied_scales_stay_tied():
    shared = nn.BatchNorm2d(4)
    tied = nn.BatchNorm2d(4)
    other = nn.BatchNorm2d(4)
    other.weight = tied.weight
    model = nn.Sequential(shared, nn.Sequential(shared), tied, other)
    sites = swap_norms(model, group)
    assert [site.name for site in sites] == ["0", "2", "3"]
    assert model[0] is model[1][0]
    assert model[2] is not model[3]
    assert model[2].weight is model[3].weight


def test_an_optimizer_made_before_goes_on_with_the_parameters_in_use():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    swap_norms(model, group)
    before = model[1].weight.clone()
    model(torch.randn(2, 3, 8, 8)).sin().sum().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)


def test_mode_dtype_frozen_scales_and_memory_format_are_kept():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).bfloat16()
    model.to(memory_format=torch.channels_last)
    model[1].weight.requires_grad_(False)
    model[1].eval()
    swap_norms(model, lambda channels: make_norm("rms-group", channels, 2))
    norm = model[1]
    assert (norm.training, model.training) == (False, True)
    assert {p.dtype for p in norm.parameters()} == {torch.bfloat16}
    assert (norm.weight.requires_grad, norm.bias.requires_grad) == (False, True)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_on_the_meta_device_stays_there():
    with torch.device("meta"):
        model = FACTORIES["timm resnetv2_50"]()
    swap_norms(model, group)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(6), nn.BatchNorm3d(6), nn.SyncBatchNorm(6), nn.GroupNorm(2, 6)],
    ids=lambda norm: type(norm).__name__,
)
def test_every_kind_of_layer_is_found(norm):
    model = nn.Sequential(norm)
    (site,) = swap_norms(model, lambda channels: nn.GroupNorm(3, channels))
    assert (site.was, site.num_channels) == (type(norm).__name__, 6)
    assert model[0].num_groups == 3


def test_from_batch_norm_to_a_kind_of_it_statistics_eps_and_momentum_come_along():
    """A second way: over one ghost batch, ghost batch norm is the batch norm that was there."""
    model = nn.Sequential(nn.BatchNorm2d(4, eps=1e-2, momentum=0.3)).double()
    model(torch.randn(8, 4, 3, 3).double())
    old = copy.deepcopy(model)
    (site,) = swap_norms(model, lambda channels: GhostBatchNorm2d(channels, 16))
    assert site.carried == ("scale", "shift", "running statistics")
    features = torch.randn(8, 4, 3, 3).double()
    assert torch.equal(model(features), old(features))
    assert torch.equal(model.eval()(features), old.eval()(features))


@pytest.mark.parametrize("name", [n for n, spec in NORMS.items() if not spec.fuses_activation])
def test_every_norm_of_the_table_without_activation_can_take_the_place(name):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    nn.init.uniform_(model[1].weight)
    scale = model[1].weight
    (site,) = swap_norms(model, lambda channels: make_norm(name, channels, 4))
    assert model(torch.randn(4, 3, 8, 8)).shape == (4, 8, 6, 6)
    assert (scale is getattr(model[1], "weight", None)) is (name != "none")
    assert ("scale" in site.carried or site.kept) is (name != "none")


class ScaledTanh(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, features):
        return 2 * (self.norm(features) / 2).tanh()


def test_a_norm_of_ones_own_takes_over_the_scale_of_the_layer_inside_it():
    model = nn.Sequential(nn.BatchNorm2d(4))
    weight = model[0].weight
    (site,) = swap_norms(model, ScaledTanh)
    assert model[0].norm.weight is weight
    assert site.carried == ("scale", "shift")


@pytest.mark.parametrize("arm", ["frn", "evonorm-s0"])
def test_a_norm_that_activates_takes_the_place_of_norm_and_activation(arm):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), timm.layers.BatchNormAct2d(8))
    swap_norms(model, lambda channels: make_norm(arm, channels))
    assert type(model[1]) is type(make_norm(arm, 8))
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())


class NormThenRelu(nn.BatchNorm2d):
    def forward(self, features):
        return F.relu(super().forward(features))


class Renamed(nn.BatchNorm2d):
    def forward(self, features):
        return super().forward(features)


def test_a_subclass_that_only_norms_is_exchanged():
    model = nn.Sequential(Renamed(4))
    (site,) = swap_norms(model, group)
    assert (site.was, site.became) == ("Renamed", "GroupNorm")


def hooked() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.register_forward_hook(lambda *_: None)
    return norm


def raising(channels):
    raise RuntimeError("no\nsuch norm")


@pytest.mark.parametrize(
    ("norm", "make", "message"),
    [
        (nn.LayerNorm(4), group, r"Sequential has no BatchNorm or GroupNorm.*LayerNorm in it is"),
        (nn.ReLU(), group, r"Sequential has no BatchNorm or GroupNorm to exchange$"),
        (nn.LazyBatchNorm2d(), group, r"norm layer '0' \(LazyBatchNorm2d\) is lazy; call"),
        (hooked(), group, r"norm layer '0' \(BatchNorm2d\) has hooks"),
        (NormThenRelu(4), group, r"norm layer '0' \(NormThenRelu\) computes more than a norm"),
        (nn.BatchNorm2d(4), raising, r"'0' \(BatchNorm2d\): make_norm\(4\) failed: Runt.* no such"),
        (nn.BatchNorm2d(4), lambda _: 3, r"make_norm\(4\) returned int, not a torch.nn.Module"),
        (
            nn.BatchNorm2d(72),
            lambda channels: make_norm("group", channels, 32),
            r"norm layer '0' \(BatchNorm2d\): num_groups=32 does not divide num_channels=72",
        ),
        (
            nn.BatchNorm2d(4),
            lambda channels: make_norm("frn", channels),
            r"norm layer '0' \(BatchNorm2d\) has no activation in it, and the arm's norm brings",
        ),
    ],
)
def test_what_cannot_be_exchanged_is_refused_and_the_model_left_as_it_was(norm, make, message):
    model = nn.Sequential(norm, nn.ReLU())
    with pytest.raises(ConfigError, match=message):
        swap_norms(model, make)
    assert model[0] is norm


def test_a_refusal_at_a_late_site_leaves_the_earlier_ones():
    model = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(6))
    with pytest.raises(ConfigError, match="norm layer '1'"):
        swap_norms(model, group)
    assert type(model[0]) is nn.BatchNorm2d


def test_a_model_that_is_a_norm_itself_is_refused():
    with pytest.raises(ConfigError, match="BatchNorm2d is itself a norm layer"):
        swap_norms(nn.BatchNorm2d(4), group)

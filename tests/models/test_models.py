"""Every network of the table, under every norm: its layers are where its spec says they are."""

import pytest
import torch
from torch import nn

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.models import MODELS
from groupnorm_bench.models.blocks import NormLayer
from groupnorm_bench.models.resnet import BasicBlock
from groupnorm_bench.norms import NORMS, make_norm
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_model


def build(model: str, norm: str, image_shape=(1, 28, 28), num_classes=10) -> nn.Module:
    spec = NORMS[norm]
    norm_layer = NormLayer(
        lambda channels: make_norm(norm, channels),
        fuses_activation=spec.fuses_activation,
        standardizes_weights=spec.standardizes_weights,
    )
    return MODELS[model].build(norm_layer, image_shape, num_classes)


FITTING = [
    (model, norm)
    for model, spec in MODELS.items()
    for norm in NORMS
    if spec.apart is None or not NORMS[norm].fuses_activation
]


@pytest.mark.parametrize(("model", "norm"), FITTING)
def test_norm_layers_see_the_channels_that_the_spec_promises(model, norm):
    network = build(model, norm)
    seen = {}
    for name in MODELS[model].norm_channels:
        network.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, name=name: seen.update({name: inputs[0].shape[1]})
        )
    logits = network(torch.randn(3, 1, 28, 28))
    assert logits.shape == (3, 10)
    assert seen == MODELS[model].norm_channels


@pytest.mark.parametrize("model", MODELS)
def test_a_network_takes_other_images_and_classes(model):
    logits = build(model, "group", (3, 32, 20), 7)(torch.randn(2, 3, 32, 20))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("model", [model for model, norm in FITTING if norm == "frn"])
def test_a_norm_that_activates_by_itself_is_not_activated_twice(model):
    def count(norm):
        return sum(isinstance(module, nn.ReLU) for module in build(model, norm).modules())

    assert count("group") - count("frn") == len(MODELS[model].norm_channels)


@pytest.mark.parametrize("model", MODELS)
def test_one_seed_gives_every_norm_the_same_other_weights(model):
    plain = build_model(TrainConfig(model=model, norm="none", seed=3)).state_dict()
    assert len(plain) >= 4
    for name in [norm for fitting, norm in FITTING if fitting == model]:
        state = build_model(TrainConfig(model=model, norm=name, seed=3)).state_dict()
        assert all(torch.equal(state[key], value) for key, value in plain.items()), name
    other = build_model(TrainConfig(model=model, norm="none", seed=4)).state_dict()
    assert not torch.equal(plain["linear.weight"], other["linear.weight"])


def test_resnet20_is_the_papers():
    """He et al. 2015, table 6: 0.27 million parameters; 41 million multiply-adds at 32x32."""
    network = build("resnet20", "batch", (3, 32, 32), 10)
    assert sum(p.numel() for p in network.parameters()) == 269_722
    maps = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: maps.append(tuple(out.shape[1:])))
    network(torch.zeros(2, 3, 32, 32))
    assert maps == [(16, 32, 32)] * 7 + [(32, 16, 16)] * 6 + [(64, 8, 8)] * 6


def test_a_residual_block_is_its_formula():
    block = BasicBlock(NormLayer(nn.BatchNorm2d), 4, 8).double()
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    inner = torch.conv2d(x, block.conv1.weight, stride=2, padding=1)
    inner = (inner - inner.mean((0, 2, 3), True)) / (
        inner.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    inner = torch.conv2d(inner.clamp(min=0), block.conv2.weight, padding=1)
    inner = (inner - inner.mean((0, 2, 3), True)) / (
        inner.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    inner[:, :4] += x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), inner.clamp(min=0))


def test_resnet20_refuses_a_norm_that_brings_its_activation():
    with pytest.raises(ConfigError, match=r"'frn' brings its own activation.*'stage1.0.norm2'"):
        TrainConfig(model="resnet20", norm="frn")
    with pytest.raises(ConfigError, match=r"resnet20's 16, 32 and 64 channels; set num_groups to"):
        TrainConfig(model="resnet20", num_groups=32)
    with pytest.raises(ConfigError, match="model='resnet21' is unknown; did you mean 'resnet20'"):
        TrainConfig(model="resnet21")

"""Every network of the table, under every norm: its layers are where its spec says they are."""

import pytest
import torch
from torch import nn

from groupnorm_bench.models import MODELS
from groupnorm_bench.models.blocks import NormLayer
from groupnorm_bench.norms import NORMS, make_norm


def build(model: str, norm: str, image_shape=(1, 28, 28), num_classes=10) -> nn.Module:
    spec = NORMS[norm]
    norm_layer = NormLayer(
        lambda channels: make_norm(norm, channels),
        fuses_activation=spec.fuses_activation,
        standardizes_weights=spec.standardizes_weights,
    )
    return MODELS[model].build(norm_layer, image_shape, num_classes)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("model", MODELS)
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


@pytest.mark.parametrize("model", MODELS)
def test_a_norm_that_activates_by_itself_is_not_activated_twice(model):
    def count(norm):
        return sum(isinstance(module, nn.ReLU) for module in build(model, norm).modules())

    assert count("group") - count("frn") == len(MODELS[model].norm_channels)

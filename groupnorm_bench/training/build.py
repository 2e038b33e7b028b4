"""The network of a config, with initial weights drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groupnorm_bench.datasets import DatasetSpec, dataset_spec
from groupnorm_bench.errors import ConfigError, one_line
from groupnorm_bench.models.blocks import NormLayer
from groupnorm_bench.norms import make_norm
from groupnorm_bench.settings.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and its norm layers by their names in it."""

    model: nn.Module
    norm_layers: dict[str, nn.Module]


def build_model(config: TrainConfig) -> nn.Module:
    """Build the network of a config, on the CPU, with weights drawn from its seed.

    The same seed gives bit-equal convolution and linear weights under every norm, since norm
    layers draw no random numbers; torch's global generator is left as it was.

    Raises:
        ConfigError: the norm cannot be built here or does not fit the network.
    """
    return build_network(config).model


def build_network(config: TrainConfig) -> Network:
    """Build what `build_model` does, and tell where its norm layers are."""
    spec = config.norm_spec
    norm_layer = NormLayer(
        lambda channels: make_norm(config.norm, channels, config.num_groups_for(channels)),
        fuses_activation=spec.fuses_activation,
        standardizes_weights=spec.standardizes_weights,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed(config.seed))
        data = images_of(config)
        model = config.model_spec.build(norm_layer, data.image_shape, data.num_classes)
    if config.model == "cnn":  # for the loops; torch's GroupNorm on a CPU is slow in this layout
        model.to(memory_format=torch.channels_last)
    made = {id(layer) for layer, _ in norm_layer.made}
    network = Network(model, {name: m for name, m in model.named_modules() if id(m) in made})
    if ":" in config.norm:
        _check_norm(config, network)
    return network


def images_of(config: TrainConfig) -> DatasetSpec:
    """Return what is known of the images that a config trains on."""
    return dataset_spec(config.dataset)


def weights_seed(seed: int) -> int:
    """Return the seed of the generator of initial weights; data order uses the odd numbers."""
    return 2 * seed


def order_seed(seed: int) -> int:
    """Return the seed of the generator of data order."""
    return 2 * seed + 1


def _check_norm(config: TrainConfig, network: Network) -> None:
    """Refuse a norm of the user's own that cannot take this batch or changes the shape."""
    seen: list[Tensor] = []

    def before(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    def after(norm: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        _check_output(config.norm, seen.pop(), output)

    model, layers = network.model, network.norm_layers.values()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(torch.zeros(min(config.batch_size, 2), *images_of(config).image_shape))
    except ConfigError:
        raise
    except Exception as error:  # a user's code may raise anything; each is theirs to mend
        raise ConfigError(
            f"norm={config.norm!r} cannot normalise a tensor shaped "
            f"{list(seen[-1].shape)}: {one_line(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    model.load_state_dict(state)


def _check_output(norm: str, features: Tensor, output: Any) -> None:
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"norm={norm!r} returned {type(output).__name__}; a norm returns a tensor"
        )
    if (output.shape, output.dtype) != (features.shape, features.dtype):
        raise ConfigError(
            f"norm={norm!r} changes the shape {list(features.shape)} of {features.dtype}"
            f" to {list(output.shape)} of {output.dtype}; a norm returns what it was given"
        )

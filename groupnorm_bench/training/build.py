"""The network of a config, with initial weights drawn from its seed."""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from groupnorm_bench.datasets import DatasetSpec, dataset_spec
from groupnorm_bench.errors import ConfigError, GnbenchError, one_line
from groupnorm_bench.models import LIBRARIES
from groupnorm_bench.models.blocks import NormLayer
from groupnorm_bench.models.swap import NormSite, norm_at, norm_channels, swap_norms
from groupnorm_bench.norms import make_norm
from groupnorm_bench.settings.config import AUTO_GROUPS, TrainConfig, divisors
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    from groupnorm_bench.models.sites import Survey


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and where its norm layers are."""

    model: nn.Module
    sites: tuple[NormSite, ...]

    notes: tuple[str, ...] = ()
    """What to tell the user of how it was built."""

    @property
    def norm_layers(self) -> dict[str, nn.Module]:
        """The norm layers by their names, without what `swap_norms` joined to them."""
        return {site.name: norm_at(self.model, site.name) for site in self.sites}


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
    if not config.model_spec.norm_channels:
        check_model(config)
    with seeded(weights_seed(config.seed)):
        network = _assemble(config)
    if config.model == "cnn":  # for the loops; torch's GroupNorm on a CPU is slow in this layout
        network.model.to(memory_format=torch.channels_last)
    if ":" in config.norm:
        _check_norm(config, network)
    return network


def check_model(config: TrainConfig) -> Survey:
    """Build the network of a config to throw away, run it once, and return what its norms met.

    On the meta device, which neither draws weights nor computes; on the CPU where code of others
    does not work there.

    Raises:
        ConfigError: it cannot be built or take these images, has no norm to exchange, gives another
            number of classes, or a group would hold one element.
    """
    try:
        with torch.device("meta"):
            return _survey(config, config.batch_size)
    except Exception as error:  # code of others may not work there; on the CPU it is in earnest
        if isinstance(error, GnbenchError) and error.__cause__ is None:
            raise
        return _survey(config, min(config.batch_size, 2))


def _survey(config: TrainConfig, num_images: int) -> Survey:
    from groupnorm_bench.models.sites import survey  # its counter is not for every training

    data = images_of(config)
    with seeded(weights_seed(config.seed)):
        network = _assemble(config)
        images = torch.zeros(num_images, *data.image_shape)
        try:
            found = survey(network.model, network.sites, images)
        except ConfigError as error:
            raise ConfigError(f"model={config.model!r}: {error}") from error.__cause__
    if found.output_shape != (data.num_classes,):
        raise ConfigError(
            f"model={config.model!r} returns {found.output_shape[0]} logits an image, and "
            f"these have {data.num_classes} classes; let it heed num_classes"
        )
    return found


def _assemble(config: TrainConfig) -> Network:
    spec, data = config.norm_spec, images_of(config)
    norm_layer = norm_layer_of(config)
    try:
        model = config.model_spec.build(norm_layer, data.image_shape, data.num_classes)
    except ConfigError as error:
        if config.model_spec.norm_channels or str(error).startswith("model="):
            raise
        raise ConfigError(f"model={config.model!r}: {error}") from error.__cause__
    if norm_layer.made:
        return Network(model, _sites_made(config, norm_layer, model))
    if spec.standardizes_weights:
        raise ConfigError(_no_word_of(config, "conv", "convolution"))
    try:
        _check_groups(config, norm_channels(model))
        sites = tuple(swap_norms(model, norm_layer))
    except ConfigError as error:
        raise ConfigError(f"model={config.model!r}: {error}") from error.__cause__
    return Network(model, sites, build_notes(config, sites))


def norm_layer_of(config: TrainConfig) -> NormLayer:
    """Return the factory of a config's norms."""
    spec = config.norm_spec
    return NormLayer(
        lambda channels: make_norm(
            config.norm, channels, config.num_groups_for(channels), config.ghost_size
        ),
        fuses_activation=spec.fuses_activation,
        standardizes_weights=spec.standardizes_weights,
    )


def build_notes(config: TrainConfig, sites: Sequence[NormSite]) -> tuple[str, ...]:
    """Return what to tell the user of a network that was made elsewhere, a line each."""
    notes = []
    kept = sum(site.kept for site in sites)
    exchanged = sum(not site.kept and site.was != site.became for site in sites)
    if kept or exchanged:
        layers = count(exchanged, "norm layer")
        notes.append(f"{config.model}: {layers} exchanged for {config.arm}")
        notes[0] += f", {kept} kept as they are" * bool(kept)
    one_channel = images_of(config).image_shape[0] == 1
    if one_channel and config.model.partition(":")[0] in LIBRARIES:
        notes.append(f"{config.model}: its first convolution is made for one channel")
    return tuple(notes)


def _sites_made(
    config: TrainConfig, norm_layer: NormLayer, model: nn.Module
) -> tuple[NormSite, ...]:
    """Return the layers that a network got from `norm_layer`, in its own order."""
    if config.norm_spec.fuses_activation and "activation" not in norm_layer.asked_for:
        raise ConfigError(_no_word_of(config, "activation", "activation behind the norm"))
    if config.norm_spec.standardizes_weights and "conv" not in norm_layer.asked_for:
        raise ConfigError(_no_word_of(config, "conv", "convolution"))
    made = {id(layer): channels for layer, channels in norm_layer.made}
    found = [(name, layer) for name, layer in model.named_modules() if id(layer) in made]
    if not found:
        raise ConfigError(
            f"model={config.model!r} calls norm_layer and leaves out what it returns; a network "
            "needs one norm at least"
        )
    return tuple(
        NormSite(
            name=name,
            num_channels=made[id(layer)],
            was=type(layer).__name__,
            became=type(layer).__name__,
            carried=(),
            kept=False,
        )
        for name, layer in found
    )


def _no_word_of(config: TrainConfig, method: str, what: str) -> str:
    return (
        f"norm={config.norm!r} changes the {what} too, and model={config.model!r} makes its own; "
        f"use norm_layer.{method}() in a function of your own, or a norm that leaves it alone"
    )


def _check_groups(config: TrainConfig, channels: Mapping[str, int]) -> None:
    """Refuse a number of groups that some layer's channels do not divide by; tell what all do."""
    if not config.norm_spec.reads_groups or not channels:
        return
    setting = "num_groups" if config.group_size is None else "group_size"
    value = getattr(config, setting)
    for name, num_channels in channels.items():
        if value != AUTO_GROUPS and num_channels % value:
            raise ConfigError(
                f"{setting}={value} does not divide the {num_channels} channels of norm layer "
                f"{name!r}; "
                f"set {setting} to one of {divisors(math.gcd(*channels.values()))}, or num_groups "
                "to auto"
            )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed what a network may draw its weights from, and leave all as it was afterwards."""
    drawn = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])


def images_of(config: TrainConfig) -> DatasetSpec:
    """Return what is known of the images that a config trains on."""
    return dataset_spec(config.dataset)


def noise_seed(seed: int, step: int) -> int:
    """Return the seed of what a network draws in a step, as for dropout: the same in every arm."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8])


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

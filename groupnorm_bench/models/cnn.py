"""The CNN of the W&B report, with a pluggable norm."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.errors import ConfigError, one_line
from groupnorm_bench.fast import bf16, blocks
from groupnorm_bench.fast.convolution import convolve
from groupnorm_bench.norms import CONV_CHANNELS, NormSpec, make_norm
from groupnorm_bench.settings.config import TrainConfig

NUM_CLASSES = 10
IMAGE_SIZE = 28


class CNN(nn.Module):
    """Two blocks of 5x5 convolution, norm, ReLU and 2x2 max-pool, then one linear layer.

    For images [batch, 1, 28, 28]; 83,466 parameters without norm, 83,658 with a scale and a
    shift per channel. It computes the same function whether `fast` or not: then by
    `convolution.convolve` and `blocks.norm_relu_pool`, else by the plain modules.
    """

    fast = True
    use_loops = False
    """Whether convolutions and norm blocks run by the compiled loops; they must be prepared."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        spec = config.norm_spec
        first, second = CONV_CHANNELS
        conv = _conv_class(spec)
        self.activates = not spec.fuses_activation
        self.conv1 = conv(1, first, 5, padding=2, bias=True)
        self.norm1 = make_norm(config.norm, first, config.num_groups_for(first))
        self.conv2 = conv(first, second, 5, padding=2, bias=True)
        self.norm2 = make_norm(config.norm, second, config.num_groups_for(second))
        self.linear = nn.Linear(second * (IMAGE_SIZE // 4) ** 2, NUM_CLASSES)

    @property
    def fits_loops(self) -> bool:
        """Whether the compiled loops have all of its layers on a CPU: elsewhere they do not pay."""
        return type(self.conv1) is nn.Conv2d and blocks.has_block(self.norm1)

    def forward(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 10"]:
        features = self._block(images, self.conv1, self.norm1)
        features = self._block(features, self.conv2, self.norm2)
        return bf16.call(self.linear, features.flatten(1))

    def _block(self, images: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
        features = convolve(images, conv, self.use_loops) if self.fast else bf16.call(conv, images)
        if self.fast and self.activates:
            pooled = blocks.norm_relu_pool(features, norm, self.use_loops)
            if pooled is not None:
                return pooled
        features = bf16.call(norm, features)
        return F.max_pool2d(F.relu(features) if self.activates else features, 2)

    def norm_outputs(
        self, images: Float[Tensor, "batch 1 28 28"]
    ) -> Iterator[tuple[str, Float[Tensor, "batch channels height width"]]]:
        """Yield each norm layer's name and output, before activation unless it is blocks."""
        for conv, norm, name in (
            (self.conv1, self.norm1, "norm1"),
            (self.conv2, self.norm2, "norm2"),
        ):
            features = norm(conv(images))
            yield name, features
            images = F.max_pool2d(F.relu(features) if self.activates else features, 2)


def _conv_class(spec: NormSpec) -> type[nn.Conv2d]:
    if not spec.standardizes_weights:
        return nn.Conv2d
    from timm.layers.std_conv import StdConv2d

    return StdConv2d


def build_model(config: TrainConfig) -> CNN:
    """Build the CNN of a config, on the CPU, with weights drawn from its seed.

    The same seed gives bit-equal convolution and linear weights under every norm, since norm
    layers draw no random numbers; torch's global generator is left as it was.

    Raises:
        ConfigError: the norm cannot be built here or does not fit the CNN.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed(config.seed))
        model = CNN(config)
    model.to(memory_format=torch.channels_last)
    _check_norm(config, model)
    return model


def weights_seed(seed: int) -> int:
    """Return the seed of the generator of initial weights; data order uses the odd numbers."""
    return 2 * seed


def order_seed(seed: int) -> int:
    """Return the seed of the generator of data order."""
    return 2 * seed + 1


def _check_norm(config: TrainConfig, model: CNN) -> None:
    """Refuse a norm of the user's own that cannot take this batch or changes the shape."""
    if ":" not in config.norm:
        return
    size = IMAGE_SIZE
    for channels, norm in zip(CONV_CHANNELS, (model.norm1, model.norm2), strict=True):
        state = {name: value.clone() for name, value in norm.state_dict().items()}
        features = torch.zeros(min(config.batch_size, 2), channels, size, size)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                output = norm(features)
        except Exception as error:  # a user's code may raise anything; each is theirs to mend
            raise ConfigError(
                f"norm={config.norm!r} cannot normalise a tensor shaped "
                f"{list(features.shape)}: {one_line(error)}"
            ) from error
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"norm={config.norm!r} returned {type(output).__name__}; a norm returns a tensor"
            )
        if (output.shape, output.dtype) != (features.shape, features.dtype):
            raise ConfigError(
                f"norm={config.norm!r} changes the shape {list(features.shape)} of {features.dtype}"
                f" to {list(output.shape)} of {output.dtype}; a norm returns what it was given"
            )
        norm.load_state_dict(state)
        size //= 2

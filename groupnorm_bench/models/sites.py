"""What each norm layer of a network meets in a forward pass: found by running it once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from groupnorm_bench.errors import ConfigError, one_line
from groupnorm_bench.models.swap import NormSite, norm_at


@dataclass(frozen=True, kw_only=True, slots=True)
class NormUse:
    """One norm layer at work on one batch."""

    site: NormSite
    num_groups: int | None
    """Groups of the layer; None where it has none."""
    map_size: tuple[int, ...]
    """Height and width of its features; () where they are a vector."""
    elements: int | None
    """Numbers that a statistic of a group is taken over; None where the layer has no groups."""
    calls: int
    """Times that one forward pass calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A network's norm layers and its size."""

    uses: list[NormUse]
    parameters: int
    multiply_adds: int
    """Of the convolutions, linear layers and attention of one image's forward pass."""
    output_shape: tuple[int, ...]


def survey(model: nn.Module, sites: Sequence[NormSite], images: Tensor) -> Survey:
    """Run a network once, in training mode, and return what its norm layers met.

    Args:
        model: one to throw away, on any device, the meta device included: its running statistics
            may change.
        sites: the layers to look at, as `swap_norms` returns them.
        images: a batch, shaped [batch, channels, height, width].

    Raises:
        ConfigError: the model cannot take these images or gives no [batch, classes] tensor, or a
            group holds one element, of which a norm makes a constant.
    """
    layers = {site.name: norm_at(model, site.name) for site in sites}
    shapes: dict[str, list[torch.Size]] = {name: [] for name in layers}
    model.train()
    with _recorded(layers, shapes), FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            output = model(images)
        except Exception as error:  # a user's network may raise anything; each is theirs to mend
            raise ConfigError(
                f"{type(model).__name__} cannot take images shaped {list(images.shape[1:])}: "
                f"{one_line(error)}; it may be made for images of another size"
            ) from error
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
        what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"{type(model).__name__} returned {what} for {len(images)} images; "
            "a classifier returns one row of logits an image"
        )
    return Survey(
        uses=[_use(site, layers[site.name], shapes[site.name]) for site in sites],
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=counter.get_total_flops() // 2 // len(images),
        output_shape=tuple(output.shape[1:]),
    )


@contextlib.contextmanager
def _recorded(layers: dict[str, nn.Module], shapes: dict[str, list[torch.Size]]) -> Iterator[None]:
    handles = [
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: shapes[name].append(inputs[0].shape)
        )
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _use(site: NormSite, layer: nn.Module, shapes: list[torch.Size]) -> NormUse:
    num_groups = getattr(layer, "num_groups", getattr(layer, "groups", None))
    sizes = [tuple(shape[2:]) for shape in shapes]
    map_size = min(sizes, key=math.prod, default=())
    elements = None
    if num_groups is not None and sizes:
        elements = site.num_channels // num_groups * math.prod(map_size)
        if elements == 1:
            raise ConfigError(
                f"norm layer {site.name!r} ({site.became}, {site.num_channels} channels in "
                f"{num_groups} groups, features {'x'.join(map(str, map_size)) or 'without pixels'})"
                " would normalise each number by itself, which leaves a constant; "
                "use fewer groups"
            )
    return NormUse(
        site=site, num_groups=num_groups, map_size=map_size, elements=elements, calls=len(shapes)
    )

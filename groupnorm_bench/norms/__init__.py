"""The table of norms: what each is, which settings it reads, and how it is built.

Loads without torch: builders import it, and our own layers in `layers.py`, when called.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groupnorm_bench.errors import ConfigError, nearest, one_line
from groupnorm_bench.own import is_own, own_function

if TYPE_CHECKING:
    from torch import nn

GHOST_SIZE = 16
"""Images of a sub-batch of `ghost-batch`, where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NormSpec:
    """What the rest of the tool must know of a norm before it is built."""

    help: str
    """One line for `gnbench norms`."""
    paper: str
    build: Callable[..., nn.Module]
    """Called as build(num_channels, num_groups), for inputs [batch, channels, height, width]; with
    `ghost_size` as well where that is read."""
    reads_groups: bool = False
    """Reads `num_groups` / `group_size`; for other norms these settings are inert."""
    reads_ghost_size: bool = False
    """Reads `ghost_size`; for other norms it is inert."""
    fuses_activation: bool = False
    """Is norm and activation in one: no ReLU follows."""
    standardizes_weights: bool = False
    """Wants the convolution before it to standardise its weights."""
    uses_batch_statistics: bool = False
    """In training, the output for an image depends on the rest of its batch."""
    has_running_statistics: bool = False
    """Evaluates with statistics gathered in training, so train and eval mode differ."""
    parameters_per_channel: int = 2
    """Learned numbers per channel: 2 is a scale and a shift."""
    needs: str | None = None
    """A package beyond the core ones, installed by the extra `norms`."""


def _none(num_channels: int, num_groups: int) -> nn.Module:
    from torch import nn

    return nn.Identity()


def _batch(num_channels: int, num_groups: int) -> nn.Module:
    from torch import nn

    return nn.BatchNorm2d(num_channels)


def _group(num_channels: int, num_groups: int) -> nn.Module:
    from torch import nn

    return nn.GroupNorm(num_groups, num_channels)


def _layer(num_channels: int, num_groups: int) -> nn.Module:
    return _group(num_channels, 1)


def _instance(num_channels: int, num_groups: int) -> nn.Module:
    return _group(num_channels, num_channels)


def _rms_group(num_channels: int, num_groups: int) -> nn.Module:
    from groupnorm_bench.norms.layers import RMSGroupNorm

    return RMSGroupNorm(num_groups, num_channels)


def _batch_renorm(num_channels: int, num_groups: int) -> nn.Module:
    from groupnorm_bench.norms.layers import BatchRenorm2d

    return BatchRenorm2d(num_channels)


def _ghost_batch(num_channels: int, num_groups: int, ghost_size: int) -> nn.Module:
    from groupnorm_bench.norms.layers import GhostBatchNorm2d

    return GhostBatchNorm2d(num_channels, ghost_size)


def _frn(num_channels: int, num_groups: int) -> nn.Module:
    from timm.layers.filter_response_norm import FilterResponseNormTlu2d

    return FilterResponseNormTlu2d(num_channels)


def _evonorm_s0(num_channels: int, num_groups: int) -> nn.Module:
    from timm.layers.evo_norm import EvoNorm2dS0

    return EvoNorm2dS0(num_channels, groups=num_groups)


NORMS: dict[str, NormSpec] = {
    "none": NormSpec(help="no normalisation", paper="-", build=_none, parameters_per_channel=0),
    "batch": NormSpec(
        help="per channel, over the batch and all pixels",
        paper="Ioffe & Szegedy 2015, arXiv:1502.03167",
        build=_batch,
        uses_batch_statistics=True,
        has_running_statistics=True,
    ),
    "group": NormSpec(
        help="per image, over groups of adjacent channels",
        paper="Wu & He 2018, arXiv:1803.08494, eq. 7",
        build=_group,
        reads_groups=True,
    ),
    "layer": NormSpec(
        help="per image, over all channels (group norm with one group)",
        paper="Ba, Kiros & Hinton 2016, arXiv:1607.06450",
        build=_layer,
    ),
    "instance": NormSpec(
        help="per image and channel (group norm with one channel a group)",
        paper="Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022",
        build=_instance,
    ),
    "group-ws": NormSpec(
        help="group norm after convolutions with standardised weights",
        paper="Qiao et al. 2019, arXiv:1903.10520, eq. 7",
        build=_group,
        reads_groups=True,
        standardizes_weights=True,
        needs="timm",
    ),
    "rms-group": NormSpec(
        help="group norm without subtracting the mean",
        paper="Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4, over groups",
        build=_rms_group,
        reads_groups=True,
    ),
    "batch-renorm": NormSpec(
        help="batch norm corrected towards its running statistics",
        paper="Ioffe 2017, arXiv:1702.03275, algorithm 1",
        build=_batch_renorm,
        uses_batch_statistics=True,
        has_running_statistics=True,
    ),
    "ghost-batch": NormSpec(
        help="batch norm over sub-batches of `--ghost-size` images",
        paper="Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1",
        build=_ghost_batch,
        reads_ghost_size=True,
        uses_batch_statistics=True,
        has_running_statistics=True,
    ),
    "frn": NormSpec(
        help="filter response norm with a learned threshold for activation",
        paper="Singh & Krishnan 2020, arXiv:1911.09737, eqs. 1 to 3",
        build=_frn,
        fuses_activation=True,
        parameters_per_channel=3,
        needs="timm",
    ),
    "evonorm-s0": NormSpec(
        help="searched norm and activation in one, per image",
        paper="Liu et al. 2020, arXiv:2004.02967, table 2",
        build=_evonorm_s0,
        reads_groups=True,
        fuses_activation=True,
        parameters_per_channel=3,
        needs="timm",
    ),
}


def norm_spec(name: str) -> NormSpec:
    """Return the spec of a norm: a key of `NORMS`, or a user's `package.module:make_norm`.

    A user's own norm is assumed to read `num_groups` and to be followed by ReLU; it is not
    imported here.

    Raises:
        ConfigError: `name` is neither.
    """
    if name in NORMS:
        return NORMS[name]
    if is_own(name):
        return NormSpec(
            help=f"your own, {name}", paper="-", build=_custom_builder(name), reads_groups=True
        )
    raise ConfigError(f"norm={name!r} is unknown{nearest(name, NORMS)}")


def _custom_builder(name: str) -> Callable[[int, int], nn.Module]:
    def build(num_channels: int, num_groups: int) -> nn.Module:
        from torch import nn

        try:
            layer = own_function(name)(num_channels, num_groups)
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            raise ConfigError(
                f"norm={name!r} cannot be built: {one_line(error)}; it must be importable from "
                "here and callable with (num_channels, num_groups)"
            ) from error
        if not isinstance(layer, nn.Module):
            raise ConfigError(
                f"norm={name!r} returned {type(layer).__name__}, not a torch.nn.Module"
            )
        return layer

    return build


def make_norm(
    name: str, num_channels: int, num_groups: int = 8, ghost_size: int = GHOST_SIZE
) -> nn.Module:
    """Return a norm layer for inputs shaped [batch, num_channels, height, width].

    GroupNorm takes its mean and variance over each sample's (num_channels / num_groups,
    height, width) block: Wu & He 2018, arXiv:1803.08494, eq. 7. `gnbench norms` lists the rest.

    Args:
        name: a key of `NORMS`, or `package.module:make_norm` for a norm of your own.
        num_channels: channels of the input, not of the image.
        num_groups: NUMBER of groups, as in the paper and in torch; norms without groups ignore it.
        ghost_size: images of a sub-batch of `ghost-batch`, 2 or more; other norms ignore it.

    Raises:
        ConfigError: `name` is unknown or cannot be built here, `num_groups` does not divide
            `num_channels`, or a ghost of `ghost_size` images is no batch.
    """
    spec = norm_spec(name)
    if spec.needs is not None and importlib.util.find_spec(spec.needs) is None:
        raise ConfigError(
            f"norm={name!r} needs the package {spec.needs}; pip install 'groupnorm-bench[norms]'"
        )
    if spec.reads_groups and (num_groups < 1 or num_channels % num_groups != 0):
        valid = [g for g in range(1, num_channels + 1) if num_channels % g == 0]
        raise ConfigError(
            f"num_groups={num_groups} does not divide num_channels={num_channels}; "
            f"set num_groups to one of {valid}"
        )
    if spec.reads_ghost_size:
        if ghost_size < 2:
            raise ConfigError(
                f"ghost_size={ghost_size} is no batch to take statistics over; "
                "set ghost_size to 2 or more, or norm to 'instance'"
            )
        return spec.build(num_channels, num_groups, ghost_size)
    return spec.build(num_channels, num_groups)

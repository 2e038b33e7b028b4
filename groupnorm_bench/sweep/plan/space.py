"""The space that random and bayes draw from: quantiles to a cell, and a cell back to quantiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS, LINKS, NEUTRAL, read_under_gates
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.sweep.file.axes import Axis, on_base

_GATES = frozenset(link[0] for link in LINKS)
"""Settings that can make others inert: chosen first, so that those are never drawn."""


def resolved(axis: Axis, resolve_dataset: Callable[[str], str]) -> Axis:
    """Return the axis with every data set called "auto" replaced by what it stands for here."""
    if "dataset" not in axis.settings:
        return axis

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: resolve(v) if k == "dataset" else v for k, v in value.items()}
        return resolve_dataset(value)

    values = tuple(resolve(value) for value in axis.distribution.values)
    return dataclasses.replace(
        axis, distribution=dataclasses.replace(axis.distribution, values=values)
    )


def choose_cell(
    axes: Iterable[Axis], base: TrainConfig, share: Callable[[Axis], float]
) -> TrainConfig:
    """Build a cell by asking `share` for a quantile of each axis that matters.

    Axes whose every setting is inert under what was chosen before are not asked for.

    Raises:
        ConfigError: the choices do not fit together.
    """
    axes = list(axes)
    gates = [axis for axis in axes if _GATES & set(axis.settings)]
    settings: dict[str, Any] = {}
    for axis in gates:
        settings.update(axis.assignment(axis.distribution.quantile(share(axis))))
    live = _live(settings, base)
    if isinstance(base, OwnConfig):  # what its function does with them, nobody knows
        live |= {name for axis in axes for name in axis.settings if name not in ARM_SETTINGS}
    for axis in axes:
        if axis not in gates and live & set(axis.settings):
            settings.update(axis.assignment(axis.distribution.quantile(share(axis))))
    return on_base(base, settings)


def _live(settings: Mapping[str, Any], base: TrainConfig) -> set[str]:
    """Return the settings that matter once the gates are set, whichever way groups are spelled."""
    config = on_base(base.replace(batch_size=NEUTRAL["batch_size"]), settings)
    return set(config.cell_settings) | read_under_gates(config)


def shares_of(
    axes: Iterable[Axis], base: TrainConfig, config: TrainConfig
) -> dict[str, float] | None:
    """Return the quantiles, by label, at which `choose_cell` gives this cell; None if it cannot.

    Axes whose settings this cell does not read are left out.
    """
    axes = list(axes)
    live = config.cell_settings
    swept = {name for axis in axes for name in axis.settings}
    try:
        rebuilt = on_base(base, {n: v for n, v in live.items() if n in swept})
    except ConfigError:
        return None
    if rebuilt.cell_settings != live:
        return None
    shares: dict[str, float] = {}
    for axis in axes:
        if not set(axis.settings) & set(live):
            continue
        share = _share(axis, live)
        if share is None:
            return None
        shares[axis.label] = share
    return shares


def _share(axis: Axis, live: Mapping[str, Any]) -> float | None:
    distribution = axis.distribution
    if not distribution.values:
        assert axis.setting is not None
        return distribution.share_below(live[axis.setting])
    for value in distribution.values:
        if all(live.get(name, v) == v for name, v in axis.assignment(value).items()):
            return distribution.share_below(value)
    return None

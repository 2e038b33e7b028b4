"""Options beside a sweep file: they win over its constants, and never over what it sweeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import EXCLUSIVE
from groupnorm_bench.sweep.file.axes import Axis
from groupnorm_bench.sweep.file.spec import SweepSpec
from groupnorm_bench.wording import setting_value


def override(
    spec: SweepSpec, base: TrainConfig, given: Collection[str]
) -> tuple[SweepSpec, tuple[str, ...]]:
    """Take out of a sweep file what the person set by hand.

    Args:
        spec: the file.
        base: the settings beside it.
        given: names of those in `base` that were typed, whatever their value.

    Returns:
        the sweep without those constants, and a line for each that had another value.

    Raises:
        ConfigError: a setting is typed that the file sweeps, or `seed`.
    """
    if "seed" in given:
        raise ConfigError(f"seed={base.seed} does nothing in a sweep; use --seeds N")
    axes: list[Axis] = []
    lines: list[str] = []
    parameters = dict(spec.raw.get("parameters", {}))
    winners = _winners(base, given)
    for axis in spec.axes:
        beaten = [name for name in axis.settings if name in winners]
        for name in beaten:
            lines += _constant_beaten(spec, axis, name, winners[name], base)
        kept = _without(axis, beaten) if beaten else axis
        if kept is not None:
            axes.append(kept)
        if beaten:
            parameters = _replaced(parameters, axis.label.split("."), kept)
    return (
        dataclasses.replace(spec, axes=tuple(axes), raw={**spec.raw, "parameters": parameters}),
        tuple(lines),
    )


def _winners(base: TrainConfig, given: Collection[str]) -> dict[str, str]:
    """Return, by setting of the file, the typed one that replaces it."""
    winners = {name: name for name in given}
    for pair in EXCLUSIVE:
        for name, other in (pair, pair[::-1]):
            if name in given and other not in given and base.value(name) is not None:
                winners[other] = name
    return winners


def _constant_beaten(
    spec: SweepSpec, axis: Axis, name: str, winner: str, base: TrainConfig
) -> list[str]:
    """Say what is replaced.

    Raises:
        ConfigError: the file sweeps it.
    """
    typed = f"{winner}={setting_value(base.value(winner))}"
    values = [axis.assignment(value).get(name) for value in axis.distribution.values]
    if not values or any(value != values[0] for value in values):
        rival = "" if winner == name else f" excludes {name}, which"
        raise ConfigError(
            f"{typed}{rival} is swept by {spec.path}; leave the option out, or {name} in the file"
        )
    old = f"{name}={setting_value(values[0])}"
    return [] if old == typed else [f"{typed} replaces {old} of {axis.where}"]


def _without(axis: Axis, names: Collection[str]) -> Axis | None:
    if axis.setting is not None:
        return None
    kept = [_less(value, axis, names) for value in axis.distribution.values]
    if not any(kept):
        return None
    distribution = dataclasses.replace(axis.distribution, values=tuple(kept))
    return dataclasses.replace(axis, distribution=distribution)


def _less(value: Mapping[str, Any], axis: Axis, names: Collection[str]) -> dict[str, Any]:
    return {key: one for key, one in value.items() if set(axis.assignment({key: one})) - set(names)}


def _replaced(parameters: Mapping[str, Any], path: list[str], axis: Axis | None) -> dict[str, Any]:
    """Return the file's `parameters` with the entry at `path` taken out, or with fewer settings."""
    first, *inner = path
    changed = dict(parameters)
    if inner:
        below = _replaced(parameters[first]["parameters"], inner, axis)
        changed[first] = {"parameters": below}
        if not below:
            del changed[first]
    elif axis is None:
        del changed[first]
    else:
        values = list(axis.distribution.values)
        entry = dict(parameters[first])
        key = "value" if "value" in entry else "values"
        changed[first] = entry | {key: values[0] if key == "value" else values}
    return changed

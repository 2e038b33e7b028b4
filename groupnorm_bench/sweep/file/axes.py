"""The parameters of a sweep file: each an axis of values, of one setting or of several at once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import EXCLUSIVE, NEUTRAL
from groupnorm_bench.settings.layers import make_config
from groupnorm_bench.settings.own_config import TRIAL, OwnConfig
from groupnorm_bench.settings.yamlfile import YamlFile
from groupnorm_bench.sweep.file.distributions import Distribution, read_distribution

MAX_SEEDS = 10_000
_GROUPS = ("num_groups", "group_size")
_NEUTRAL = TrainConfig(**NEUTRAL)
"""Checks a value by itself: with it no setting depends on another."""


def on_base(base: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the base with some settings changed, spelled as a file spells them.

    Raises:
        ConfigError: a name is unknown, or the values do not fit.
    """
    return make_config([_layer(base), settings])


@functools.lru_cache(maxsize=16)
def _layer(base: TrainConfig) -> dict[str, Any]:
    return base.to_dict()


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One parameter of the file."""

    label: str
    """As the file names it, nested ones with dots: `optim.lr`."""
    where: str
    """Its `file:line`."""
    distribution: Distribution
    setting: str | None
    """The setting it sets; None where its values are dictionaries of settings."""
    neutral: TrainConfig = _NEUTRAL
    """What its values are checked on; an `OwnConfig` in a sweep of a `trial`."""

    def assignment(self, value: Any) -> dict[str, Any]:
        """Return the settings that `value`, one of this axis's, stands for.

        Raises:
            SweepError: the value is not one these settings take.
        """
        given = value if self.setting is None else {self.setting: value}
        try:
            config = on_base(self.neutral, given)
        except ConfigError as error:
            raise SweepError(f"{self.where} {self.label}: {error}") from error
        names = [self.neutral.name_of(key) for key in given]
        return {name: config.value(name) for name in names}

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that it sets."""
        if self.setting is not None:
            return (self.setting,)
        try:
            values = self.distribution.values
            names = [self.neutral.name_of(key) for value in values for key in value]
        except ConfigError as error:
            raise SweepError(f"{self.where} {self.label}: {error}") from error
        return tuple(dict.fromkeys(names))


def read_axes(
    document: YamlFile, method: str, trial: str | None = None
) -> tuple[tuple[Axis, ...], tuple[int, ...]]:
    """Return the axes in the file's order, and the seeds; (0,) where the file sweeps none.

    Args:
        document: the file.
        method: its own.
        trial: the training function of the user's own; with one, settings may have any names.

    Raises:
        SweepError: a parameter is unknown, set twice, or has a value its setting does not take.
    """
    parameters = document.data.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise SweepError(
            f"{document.where('parameters')} has no parameters; write them under `parameters:`"
        )
    neutral = _NEUTRAL if trial is None else OwnConfig(trial=trial, norm=NEUTRAL["norm"])
    axes = [
        axis
        for key in parameters
        if key != TRIAL
        for axis in _walk(document, ("parameters", key), neutral)
    ]
    seeds: tuple[int, ...] = (0,)
    setters: dict[str, Axis] = {}
    for axis in axes:
        for name in axis.settings:
            if name in setters:
                raise SweepError(
                    f"{axis.where} {name} is set by {axis.label!r} and by "
                    f"{setters[name].label!r}; keep one of them"
                )
            setters[name] = axis
        if axis.setting == "seed":
            seeds = _seeds(axis)
        elif axis.setting is None and "seed" in axis.settings:
            raise SweepError(
                f"{axis.where} {axis.label}: seed means repeats; give it a parameter of its own"
            )
        else:
            _check_axis(axis, method)
    for one, other in EXCLUSIVE if trial is None else (_GROUPS,):
        if one in setters and other in setters and setters[one] is not setters[other]:
            raise SweepError(
                f"{setters[other].where} {one} and {other} exclude each other; keep one of them"
            )
    return tuple(axis for axis in axes if axis.setting != "seed"), seeds


def _walk(document: YamlFile, keys: tuple[str, ...], neutral: TrainConfig) -> list[Axis]:
    """Return the axes at and below one entry of `parameters`."""
    given: Any = document.data
    for key in keys:
        given = given[key]
    label = ".".join(keys[1::2])
    if not isinstance(given, dict):
        raise SweepError(
            f"{document.where(*keys)} {label}: {given!r} is not a mapping; write "
            f"`{keys[-1]}: {{value: {given!r}}}`"
        )
    if "parameters" in given:
        inner = given["parameters"]
        others = [key for key in given if key != "parameters"]
        if others:
            raise SweepError(
                f"{document.where(*keys, others[0])} {label}: {others[0]!r} beside `parameters`; "
                "keep one of them"
            )
        if not isinstance(inner, dict) or not inner:
            raise SweepError(
                f"{document.where(*keys, 'parameters')} {label}: has no parameters; write them "
                "under `parameters:`"
            )
        below = [(*keys, "parameters", key) for key in inner]
        return [axis for keys in below for axis in _walk(document, keys, neutral)]
    return [_axis(document, keys, label, given, neutral)]


def _axis(
    document: YamlFile,
    keys: tuple[str, ...],
    label: str,
    given: Mapping[str, Any],
    neutral: TrainConfig,
) -> Axis:
    def where(*inner: str) -> str:
        return document.where(*keys, *inner)

    distribution = read_distribution(label, given, where)
    dictionaries = [isinstance(value, dict) for value in distribution.values]
    at = next((where(key) for key in ("values", "value", "min") if key in given), where())
    if any(dictionaries):
        if not all(dictionaries) or not all(distribution.values):
            raise SweepError(
                f"{at} {label}: mixes dictionaries of settings with other values; make all of "
                "them dictionaries"
            )
        if _is_setting(keys[-1]):
            raise SweepError(
                f"{at} {label}: is a setting and takes no dictionaries; call the parameter 'arm'"
            )
        return Axis(label=label, where=at, distribution=distribution, setting=None, neutral=neutral)
    try:
        setting = neutral.name_of(keys[-1])
    except ConfigError as error:
        raise SweepError(f"{where()} {error}") from error
    return Axis(label=label, where=at, distribution=distribution, setting=setting, neutral=neutral)


def _is_setting(name: str) -> bool:
    try:
        TrainConfig.name_of(name)
    except ConfigError:
        return False
    return True


def _check_axis(axis: Axis, method: str) -> None:
    """Check every value, or both ends of a range, by itself."""
    distribution = axis.distribution
    if method == "grid" and distribution.grid_values() is None:
        raise SweepError(
            f"{axis.where} {axis.label}: a grid cannot walk {distribution.kind}; list `values`, "
            "or use method random or bayes"
        )
    if method == "bayes" and distribution.probabilities:
        raise SweepError(
            f"{axis.where} {axis.label}: probabilities are not supported with method bayes, which "
            "learns its own; leave them out, or use method random"
        )
    walked = distribution.grid_values() if method == "grid" else None
    ends = (walked[0], walked[-1]) if walked else distribution.bounds
    values = distribution.values or ends or (distribution.quantile(0.99),)
    for value in values:
        checked = axis.assignment(value)
        if axis.setting is not None and not distribution.values:
            _check_steps(axis, value, checked[axis.setting])


def _check_steps(axis: Axis, value: Any, checked: Any) -> None:
    """Refuse a range whose draws a setting of whole numbers does not take."""
    distribution = axis.distribution
    stepped = distribution.kind == "int_uniform" or (
        distribution.kind[:2] == "q_" and float(distribution.q).is_integer()
    )
    if isinstance(checked, int) and not stepped:
        raise SweepError(
            f"{axis.where} {axis.label}: {distribution.kind} draws fractions, but "
            f"{axis.setting} is a whole number; use int_uniform, or a q_ kind with a whole q"
        )


def _seeds(axis: Axis) -> tuple[int, ...]:
    values = axis.distribution.grid_values()
    if values is None:
        raise SweepError(
            f"{axis.where} seed means repeats, not a range to draw from; list `values`"
        )
    if len(values) > MAX_SEEDS:
        raise SweepError(f"{axis.where} seed has {len(values):,} values; {MAX_SEEDS:,} is the most")
    seeds = tuple(int(axis.assignment(value)["seed"]) for value in values)
    if len(set(seeds)) != len(seeds):
        raise SweepError(f"{axis.where} seed has a value twice; keep one of each")
    return seeds


def seeds_from_count(count: int) -> tuple[int, ...]:
    """Return the seeds that `--seeds COUNT` asks for: 0 to COUNT - 1.

    Raises:
        SweepError: the count is not between 1 and 10,000.
    """
    if not 1 <= count <= MAX_SEEDS:
        raise SweepError(f"seeds={count} is not a number of repeats; use 1 to 10,000")
    return tuple(range(count))

"""From what people give to a config: gnbench's own settings, or those of a trial of theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig, is_none
from groupnorm_bench.settings.own_config import TRIAL, OwnConfig
from groupnorm_bench.settings.yamlfile import read_yaml


def make_config(layers: Iterable[Mapping[str, Any]]) -> TrainConfig:
    """Build the config that settings stand for: an `OwnConfig` where they name a `trial`.

    Raises:
        ConfigError: see the two.
    """
    layers = list(layers)
    if any(not is_none(layer.get(TRIAL)) for layer in layers):
        return OwnConfig.from_layers(layers)
    return TrainConfig.from_layers(
        {name: value for name, value in layer.items() if name != TRIAL} for layer in layers
    )


def with_trial(base: TrainConfig, given: Iterable[str], trial: str) -> OwnConfig:
    """Return what a config's given settings are to a training function of the user's own."""
    if isinstance(base, OwnConfig):
        return dataclasses.replace(base, trial=trial)
    return OwnConfig.from_layers([{TRIAL: trial, **{name: getattr(base, name) for name in given}}])


def read_settings(path: Path, trial: str | None = None) -> dict[str, Any]:
    """Read a YAML file of settings, by their names.

    A mapping stands for the settings in it, as in `arm: {norm: group, num_groups: 8}`: so a W&B
    agent's `${args_json_file}` spells an axis of a sweep that sets several.

    Args:
        path: the file.
        trial: the training function of the user's own that was typed beside it.

    Raises:
        ConfigError: the file cannot be read, or a key in it is no setting (its line is named).
    """
    document = read_yaml(path)
    flat = [
        (key, name, one)
        for key, value in document.data.items()
        for name, one in (value if isinstance(value, dict) else {key: value}).items()
    ]
    told = [value for _, name, value in flat if name == TRIAL]
    kind = OwnConfig if trial is not None or told else TrainConfig
    settings: dict[str, Any] = {}
    for key, name, value in flat:
        try:
            kind.name_of(name)
        except ConfigError as error:
            raise ConfigError(f"{document.where(key)}: {error}") from error
        if name in settings:
            raise ConfigError(f"{document.where(key)}: {name} is given twice; keep one of them")
        settings[name] = value
    try:
        make_config([{TRIAL: trial}, settings])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return {kind.name_of(name): value for name, value in settings.items()}


def names_in(layers: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the settings that some layers give, whichever way they are spelled.

    Raises:
        ConfigError: a name is unknown.
    """
    is_own = any(not is_none(layer.get(TRIAL)) for layer in layers)
    kind = OwnConfig if is_own else TrainConfig
    names = (name for layer in layers for name in layer)
    return frozenset(kind.name_of(name) for name in names if is_own or name != TRIAL)

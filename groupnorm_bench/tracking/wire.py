"""Settings on their way to W&B's config of a run, and back: flat, no dots, no missing values."""

from __future__ import annotations

import itertools
from typing import Any

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import EXCLUSIVE, SETTINGS

_EXCLUSIVE = frozenset(itertools.chain(*EXCLUSIVE))
_DEFAULTS = TrainConfig()
_ZERO_IF_UNSET = _EXCLUSIVE | {name for name in SETTINGS if getattr(_DEFAULTS, name) is None}
"""A missing value drops the run's line from a parallel-coordinates plot, so these are 0 instead."""


def to_wandb(config: TrainConfig, suite: str) -> dict[str, Any]:
    """Return the config of a W&B run; of settings that exclude each other, the inert one is 0."""
    settings = {name: getattr(config, name) for name in config.__dataclass_fields__}
    inert = config.inert & _EXCLUSIVE
    settings = {
        name: 0 if value is None or name in inert else value for name, value in settings.items()
    }
    return settings | {"arm": config.arm, "cell": config.cell, "suite": suite}


def from_wandb(config: dict[str, Any]) -> TrainConfig:
    """Return the settings in a W&B config: the inverse of `to_wandb`.

    Raises:
        ConfigError: there is no `norm` in it, or a setting is not valid.
    """
    settings = {
        name: value
        for name, value in config.items()
        if name in SETTINGS and not (name in _ZERO_IF_UNSET and value == 0)
    }
    if "norm" not in settings:
        raise ConfigError("has no setting 'norm'; gnbench did not make it")
    for replaced, name in EXCLUSIVE:
        if settings.get(name) is not None:
            settings.pop(replaced, None)
    return TrainConfig.from_mapping(settings)

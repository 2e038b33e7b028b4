"""Settings on their way to W&B's config of a run, and back: flat, no dots, no missing values."""

from __future__ import annotations

import itertools
from typing import Any

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS, EXCLUSIVE, SETTINGS
from groupnorm_bench.settings.layers import make_config
from groupnorm_bench.settings.own_config import TRIAL, OwnConfig

_OWN = "own"
"""Names the settings of a training function of the user's own, which may be called anything."""
_GATED_ARM = {name for name in ARM_SETTINGS if SETTINGS[name].gate is not None}
_MAY_BE_ZERO = frozenset(itertools.chain(*EXCLUSIVE)) | _GATED_ARM
_DEFAULTS = TrainConfig()
_ZERO_IF_UNSET = _MAY_BE_ZERO | {name for name in SETTINGS if getattr(_DEFAULTS, name) is None}
"""A missing value drops the run's line from a parallel-coordinates plot, so these are 0 instead."""


def to_wandb(config: TrainConfig, suite: str) -> dict[str, Any]:
    """Return the config of a W&B run; what the arm does not read is 0, of two that exclude each
    other the one that is not set.
    """
    names = {"arm": config.arm, "cell": config.cell, "suite": suite}
    if isinstance(config, OwnConfig):
        told = {name: 0 if value is None else value for name, value in config.to_dict().items()}
        told |= dict.fromkeys(config.inert, 0)
        return told | names | {_OWN: " ".join(name for name, _ in config.own)}
    settings = {name: getattr(config, name) for name in config.__dataclass_fields__}
    inert = config.inert & _MAY_BE_ZERO
    settings = {
        name: 0 if value is None or name in inert else value for name, value in settings.items()
    }
    return settings | names


def is_ours(config: dict[str, Any]) -> bool:
    """Return whether gnbench wrote a W&B config: others may call a setting `norm`, too."""
    return {"norm", "arm", "cell"} <= config.keys()


def from_wandb(config: dict[str, Any]) -> TrainConfig:
    """Return the settings in a W&B config: the inverse of `to_wandb`.

    Raises:
        ConfigError: there is no `norm` in it, or a setting is not valid.
    """
    own: dict[str, Any] = {}
    if config.get(TRIAL):
        names = str(config.get(_OWN) or "").split()
        own = {TRIAL: config[TRIAL], **{n: config[n] for n in names if n in config}}
        config = {n: v for n, v in config.items() if n in (*ARM_SETTINGS, "seed", "device")}
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
    return make_config([settings | own])

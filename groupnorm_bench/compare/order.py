"""The order in which arms and settings are shown, and settings in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from groupnorm_bench.norms import NORMS
from groupnorm_bench.wording import setting_value

if TYPE_CHECKING:
    from groupnorm_bench.settings.config import TrainConfig


def arm_order(config: TrainConfig) -> tuple[Any, ...]:
    """Sort key of arms: the norms as `gnbench norms` lists them, then by groups or ghosts."""
    names = list(NORMS)
    known = names.index(config.norm) if config.norm in names else len(names)
    ghosts = config.ghost_size if config.norm_spec.reads_ghost_size else 0
    return (known, config.norm, num_groups_of(config) or ghosts, config.arm)


def num_groups_of(config: TrainConfig) -> int | None:
    """Return the groups of the network's first norm layer; None for a norm without groups."""
    if not config.norm_spec.reads_groups:
        return None
    channels = config.model_spec.norm_channels or {"first": config.group_size or 1}
    return config.num_groups_for(next(iter(channels.values())))


def arm_by(config: TrainConfig, names: Sequence[str]) -> str:
    """Return what an arm is called that these settings make, as `adam` or `norm=batch, lr=0.1`."""
    live = config.cell_settings
    values = {name: config.arm if name == "norm" else live.get(name) for name in names}
    if len(values) == 1:
        return setting_value(next(iter(values.values())))
    return describe(values, values)


def setting_key(setting: dict[str, Any]) -> str:
    """Return a setting as a key for grouping."""
    return json.dumps(setting, sort_keys=True)


def setting_order(setting: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key of settings: numbers by size, words by letter, missing values first."""
    return tuple(
        (name, value is not None, isinstance(value, str), value if value is not None else 0)
        for name, value in sorted(setting.items())
    )


def varying(settings: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Return the names that do not have one and the same value in all settings."""
    every = list({id(setting): setting for setting in settings}.values())  # runs share theirs
    names = dict.fromkeys(name for setting in every for name in setting)
    return tuple(n for n in names if len({json.dumps(s.get(n)) for s in every}) > 1)


def describe(setting: dict[str, Any], names: Iterable[str]) -> str:
    """Return `batch_size=8, lr=0.001` for those of `names` that the setting has."""
    parts = (
        f"{n}={setting[n]:g}" if isinstance(setting[n], float) else f"{n}={setting[n]}"
        for n in names
        if n in setting
    )
    return ", ".join(parts)

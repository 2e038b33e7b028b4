"""Each network of a plan under each of its arms, built once before anything runs.

Settings tell whether an arm fits a network of ours. Of one made elsewhere, and of a norm of the
user's own, only building them tells: on the meta device, where nothing is drawn or computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS, NEUTRAL
from groupnorm_bench.sweep.file.axes import Axis, on_base
from groupnorm_bench.sweep.file.spec import SweepSpec

_BUILT_OF = ("model", "dataset", *ARM_SETTINGS)
"""Settings that a network is built of, the one to blame first."""


def check_networks(spec: SweepSpec, base: TrainConfig) -> None:
    """Build what a plan needs to have built to be sure of it.

    Raises:
        SweepError: a network cannot be built under an arm; the message has the `file:line` of the
            axis that chose it.
    """
    axes = [axis for axis in spec.axes if set(_BUILT_OF) & set(axis.settings)]
    words = [base.model, base.norm, *(str(v) for axis in axes for v in axis.distribution.values)]
    if not any(":" in word for word in words):
        return
    seen = set()
    for config in _networks(spec, axes, base):
        key = tuple(getattr(config, name) for name in _BUILT_OF)
        if key not in seen and ":" in config.model + config.norm:
            try:
                _build(config)
            except ConfigError as error:
                raise SweepError(f"{_where(spec, axes)} {error}") from error
        seen.add(key)


def check_trial(spec: SweepSpec) -> None:
    """Import the training function of the user's own that a plan is of.

    Raises:
        SweepError: it cannot be, or it takes no run.
    """
    from groupnorm_bench.trial.own import load_trial

    assert spec.trial is not None
    try:
        load_trial(spec.trial)
    except ConfigError as error:
        raise SweepError(f"{spec.path}: {error}") from error


def _networks(spec: SweepSpec, axes: list[Axis], base: TrainConfig) -> Iterator[TrainConfig]:
    if "batch_size" in spec.settings:
        base = base.replace(batch_size=NEUTRAL["batch_size"])
    choices = [[axis.assignment(v) for v in axis.distribution.values] for axis in axes]
    for parts in itertools.product(*choices):
        settings = {name: value for part in parts for name, value in part.items()}
        try:
            yield on_base(base, settings)
        except ConfigError:
            continue  # no point of a grid, which refuses it; a search draws again


def _build(config: TrainConfig) -> None:
    from groupnorm_bench.training.build import build_network, check_model

    if ":" in config.norm:
        build_network(config)
    else:
        check_model(config)


def _where(spec: SweepSpec, axes: list[Axis]) -> str:
    for name in _BUILT_OF:
        for axis in axes:
            if name in axis.settings:
                return axis.where
    return f"{spec.path}:"

"""Whether the training sets of a plan hold its batches: told before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from groupnorm_bench.datasets import dataset_spec
from groupnorm_bench.errors import SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.axes import Axis
from groupnorm_bench.sweep.file.spec import SweepSpec
from groupnorm_bench.wording import count

_ASKED = ("batch_size", "train_limit", "dataset")
"""What decides it, the one to blame first."""
_ALMOST = 2.0**-40
"""How near to its ends a range is asked."""


def datasets_of(spec: SweepSpec, base: TrainConfig) -> list[str]:
    """Return the data sets that a sweep's runs may have, by name."""
    axes = [axis for axis in spec.axes if "dataset" in axis.settings]
    told = [part.get("dataset", base.dataset) for axis in axes for part in _extremes(axis)]
    return list(dict.fromkeys(told or [base.dataset]))


def check_batches(
    spec: SweepSpec, base: TrainConfig, runs: Iterable[TrainConfig] | None = None
) -> None:
    """Refuse a batch, or a `train_limit`, of more images than there are to train on.

    Args:
        spec: the sweep, whose axes are asked.
        base: what it leaves open.
        runs: those there will be, where a cap leaves some of a grid out; None if all are.

    Raises:
        SweepError: there is one; the message has the `file:line` of the axis that chose it.
    """
    axes = [axis for axis in spec.axes if set(_ASKED) & set(axis.settings)]
    usual = {name: base.value(name) for name in _ASKED}
    for parts in itertools.product(*map(_extremes, axes)):
        settings = usual | {name: v for part in parts for name, v in part.items()}
        problem = _problem(settings)
        if problem is not None and (runs is None or any(map(_problem_of, runs))):
            raise SweepError(f"{_where(spec, axes)} {problem}")


def _extremes(axis: Axis) -> list[Mapping[str, Any]]:
    """Return what an axis may choose; of numbers alone the least and the largest."""
    distribution = axis.distribution
    values = distribution.values  # none: a range, or a kind that has no end
    if distribution.bounds is not None:
        values = tuple(distribution.quantile(u) for u in (_ALMOST, 1 - _ALMOST))
    parts = [axis.assignment(value) for value in values]
    name = axis.setting
    if name in ("batch_size", "train_limit") and len(parts) > 2:
        numbers = sorted((part for part in parts if part[name] is not None), key=lambda p: p[name])
        return [*numbers[:1], *numbers[-1:], *(part for part in parts if part[name] is None)]
    return list(parts) or [{}]


def _problem_of(run: TrainConfig) -> str | None:
    return _problem({name: run.value(name) for name in _ASKED})


def _problem(settings: Mapping[str, Any]) -> str | None:
    there = dataset_spec(settings["dataset"]).counts.train
    limit, batch_size = settings["train_limit"], settings["batch_size"]
    if limit is not None and limit > there:
        return (
            f"train_limit={limit} is more than the {count(there, 'training image')} of "
            f"{settings['dataset']}; set it to at most that"
        )
    if batch_size > (limit or there):
        return (
            f"batch_size={batch_size} is larger than the training set of "
            f"{count(limit or there, 'image')}; set it to at most that"
        )
    return None


def _where(spec: SweepSpec, axes: list[Axis]) -> str:
    for name in _ASKED:
        for axis in axes:
            if name in axis.settings:
                return axis.where
    return f"{spec.path}:"

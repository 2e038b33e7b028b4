"""Values that a report draws: means with intervals, curves over epochs, digits that arms miss."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from groupnorm_bench.compare import stats
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.metrics import metric_spec

LEVEL = 0.95
"""Confidence of every interval here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over seeds with its uncertainty, in points where the metric is an accuracy."""

    n: int
    mean: float
    sd: float | None
    """Standard deviation over seeds (n - 1); None for a single run."""
    low: float | None
    high: float | None
    """Student-t interval of the mean at `LEVEL`; None for a single run."""


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of at least one number with its Student-t interval.

    Raises:
        ValueError: there is no number.
    """
    if not len(values):
        raise ValueError("the mean of no number")
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Estimate(n=1, mean=mean, sd=None, low=None, high=None)
    test = stats.student_t(numbers, 1 - LEVEL)
    sd = float(numbers.std(ddof=1))
    return Estimate(n=len(numbers), mean=mean, sd=sd, low=test.low, high=test.high)


def estimate_metric(rows: Iterable[RunRow], metric: str) -> Estimate | None:
    """Return a summary metric's mean over runs, or None where no run has it."""
    values = [value for row in rows if (value := row.printed(metric)) is not None]
    return estimate(values) if values else None


def estimate_last(rows: Iterable[RunRow], key: str) -> Estimate | None:
    """Return the mean over runs of a history key at each run's last epoch, or None.

    `norm/eval_gap` is a difference of accuracies, and is returned in points.
    """
    values = [
        float(value) * metric_spec(key).factor
        for row in rows
        if row.history and _is_number(value := row.history[-1].get(key))
    ]
    return estimate(values) if values else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A history key over epochs: one number per epoch in each list."""

    epochs: list[int]
    n: list[int]
    """Runs that have the key at that epoch."""
    mean: list[float]
    low: list[float | None]
    high: list[float | None]
    """Mean minus and plus one standard deviation over seeds; None where one run is left."""


def curve(rows: Iterable[RunRow], key: str) -> Curve | None:
    """Return a history key's mean over runs at each epoch, or None where no run has it."""
    found = [
        {
            int(entry["epoch"]): value
            for entry in row.history
            if _is_number(value := entry.get(key)) and isinstance(entry.get("epoch"), int)
        }
        for row in rows
    ]
    epochs = sorted({epoch for values in found for epoch in values})
    if not epochs:
        return None
    table = np.array([[values.get(epoch, np.nan) for epoch in epochs] for values in found])
    table *= metric_spec(key).factor  # [runs, epochs]
    n = np.isfinite(table).sum(axis=0)
    mean = np.nansum(table, axis=0) / n
    squares = np.nansum((table - mean) ** 2, axis=0)
    sd = np.sqrt(np.divide(squares, n - 1, out=np.full(len(n), np.nan), where=n > 1))
    return Curve(
        epochs=epochs,
        n=n.tolist(),
        mean=mean.tolist(),
        low=[None if math.isnan(value) else value for value in (mean - sd).tolist()],
        high=[None if math.isnan(value) else value for value in (mean + sd).tolist()],
    )


def _is_number(value: Any) -> TypeGuard[float]:
    kind = type(value)  # a bool is no number
    return (kind is float or kind is int) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class MissedImage:
    """A test image and how many runs of each arm misread it."""

    index: int
    """In the test set's order."""
    missed: dict[str, int]
    """By arm: runs that misread it."""
    share: float
    """Mean over arms of the share of their runs that misread it, so that no arm weighs more."""
    read_as: dict[int, int]
    """By class: runs that took it for that, most first; empty where no run kept it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MostMissed:
    """The test images of one data set that runs misread most often, worst first."""

    dataset: str
    runs: dict[str, int]
    """By arm: runs whose hits were kept."""
    images: list[MissedImage]


def most_missed(rows: Iterable[RunRow], limit: int = 24) -> MostMissed | None:
    """Return the images missed most by the runs of one data set, or None where no hits were kept.

    Where runs of several data sets are given, the one with most runs is read.
    """
    counts: dict[str, dict[str, tuple[np.ndarray[Any, Any], int]]] = {}
    rows = list(rows)
    for row in rows:
        hits = row.hits()
        if hits is None:
            continue
        arms = counts.setdefault(_images_of(row), {})
        missed, runs = arms.get(row.arm, (np.zeros(len(hits), dtype=np.int64), 0))
        arms[row.arm] = (missed + ~hits, runs + 1)
    if not counts:
        return None
    key = max(counts, key=lambda name: sum(runs for _, runs in counts[name].values()))
    arms = counts[key]
    share = np.mean([missed / runs for missed, runs in arms.values()], axis=0)
    order = np.argsort(-share, kind="stable")[:limit]
    taken = _taken_for([row for row in rows if _images_of(row) == key], order)
    return MostMissed(
        dataset=key.rpartition(":")[0],
        runs={arm: runs for arm, (_, runs) in arms.items()},
        images=[
            MissedImage(
                index=int(i),
                missed={arm: int(missed[i]) for arm, (missed, _) in arms.items()},
                share=float(share[i]),
                read_as=taken[int(i)],
            )
            for i in order
            if share[i] > 0
        ],
    )


def _images_of(row: RunRow) -> str:
    """Return what tells test sets apart: the data set, and how many images it has."""
    hits = row.hits()
    return "" if hits is None else f"{row.config.dataset}:{len(hits)}"


def _taken_for(rows: Sequence[RunRow], images: Iterable[int]) -> dict[int, dict[int, int]]:
    """Return for each image how many runs took it for which class, most first."""
    counts: dict[int, Counter[int]] = {int(image): Counter() for image in images}
    for row in rows:
        misreads = row.misreads()
        for image, count in counts.items() if misreads is not None else ():
            if misreads is not None and misreads[image] >= 0:
                count[int(misreads[image])] += 1
    return {image: dict(count.most_common()) for image, count in counts.items()}


def confusions(
    rows: Iterable[RunRow], labels: Sequence[int], num_classes: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Return by arm how often each class was taken for which, as a mean over the arm's runs.

    Args:
        rows: runs of one data set.
        labels: the true class of each test image.
        num_classes: how many there are.

    Returns:
        shares of the images of a class, [true class, class it was taken for], each row's sum 1;
        no arm of which no run kept it.
    """
    truth = np.asarray(labels, dtype=np.int64)
    sizes = np.maximum(np.bincount(truth, minlength=num_classes), 1)
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for row in rows:
        misreads = row.misreads()
        if misreads is None or len(misreads) != len(truth) or misreads.max() >= num_classes:
            continue
        taken = np.where(misreads < 0, truth, misreads)
        flat = np.bincount(truth * num_classes + taken, minlength=num_classes**2)
        matrix = flat.reshape(num_classes, num_classes) / sizes[:, None]
        found.setdefault(row.arm, []).append(matrix)
    return {arm: np.mean(matrices, axis=0) for arm, matrices in found.items()}

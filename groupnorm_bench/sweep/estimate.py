"""How long a plan will take, from a moment's training at each of its norms and batch sizes."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groupnorm_bench.errors import TrainingStopped
from groupnorm_bench.settings.config import TrainConfig

if TYPE_CHECKING:
    from groupnorm_bench.datasets.tensors import Dataset
    from groupnorm_bench.training.loop import Training

PROBE_SECONDS = 0.25
"""What a probe may take; fewer are made as the budget shrinks."""
BUDGET_SECONDS = 8.0
RUN_SECONDS = 0.8
"""What a run costs beside its training: W&B's files, the result, the test media."""
_WARM_STEPS = 1
_MIN_STEPS = 2
_EVAL_IMAGES = 250

_Kind = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured of one kind of run. Seconds."""

    step: float
    eval_image: float


def kind_of(config: TrainConfig) -> _Kind:
    """Return what the pace depends on most: the network, the norm, the batch size."""
    return config.model, config.norm, config.batch_size


def estimate_seconds(runs: Sequence[TrainConfig], datasets: Mapping[str, Dataset]) -> list[float]:
    """Return the expected seconds of each run, trained alone on the threads torch now has.

    Each kind of run is probed once. Once the budget is spent, a kind that was not probed takes
    the pace of the probed one whose network is the same and whose batch size is nearest.
    """
    deadline = math.inf
    paces: dict[_Kind, Pace] = {}
    for run in runs:
        if kind_of(run) not in paces and time.monotonic() < deadline:
            paces[kind_of(run)] = probe(run, datasets[run.dataset])
            if len(paces) == 1:  # the first one loads, and may compile, what all need
                deadline = time.monotonic() + BUDGET_SECONDS
    return [_seconds(run, _nearest(paces, run), datasets[run.dataset]) for run in runs]


def _nearest(paces: dict[_Kind, Pace], run: TrainConfig) -> Pace:
    def distance(kind: _Kind) -> tuple[bool, float, bool]:
        model, norm, batch_size = kind
        ratio = max(batch_size, run.batch_size) / min(batch_size, run.batch_size)
        return model != run.model, ratio, norm != run.norm

    return paces[min(paces, key=distance)]


def _seconds(run: TrainConfig, pace: Pace, dataset: Dataset) -> float:
    steps, epochs = _length(run, dataset)
    evaluated = epochs * len(dataset.val) + len(dataset.test)
    return steps * pace.step + evaluated * pace.eval_image + RUN_SECONDS


def _length(run: TrainConfig, dataset: Dataset) -> tuple[int, int]:
    """Return how many steps and epochs a run has."""
    images = run.train_limit or len(dataset.train)
    per_epoch = max(images // run.batch_size, 1)
    steps = run.max_steps or run.epochs * per_epoch
    return steps, -(-steps // per_epoch)


def probe(config: TrainConfig, dataset: Dataset) -> Pace:
    """Train for a moment, tracking nothing and keeping nothing, and return the pace.

    Raises:
        ConfigError, DataError, DeviceError: the run could not be trained; better known now.
    """
    from groupnorm_bench.training.device import resolve_device
    from groupnorm_bench.training.hooks import Hooks
    from groupnorm_bench.training.loop import Training

    stamps: list[float] = []

    def on_step(step: int, loss: float, accuracy: float) -> None:
        stamps.append(time.perf_counter())

    def should_stop() -> bool:
        warm = len(stamps) - _WARM_STEPS
        return warm >= _MIN_STEPS and stamps[-1] - stamps[_WARM_STEPS - 1] > PROBE_SECONDS

    config = config.replace(schedule="constant")  # no schedule has steps after its last
    training = Training(config, dataset, resolve_device(config.device))
    training.epochs = training.total_steps = 10**9  # it is the clock that ends a probe
    with contextlib.suppress(TrainingStopped):
        training.run(Hooks(on_step=on_step, should_stop=should_stop))
    # The median: an epoch's end falls between two steps.
    steps = [after - before for before, after in itertools.pairwise(stamps[_WARM_STEPS - 1 :])]
    return Pace(statistics.median(steps), _eval_seconds(training))


def _eval_seconds(training: Training) -> float:
    """Return the seconds that scoring an image takes."""
    from groupnorm_bench.datasets.tensors import Split
    from groupnorm_bench.training.scoring import evaluate

    data = training.data
    part = Split(data.val.images[:_EVAL_IMAGES], data.val.labels[:_EVAL_IMAGES])
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        evaluate(training.way, data, part)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / len(part)

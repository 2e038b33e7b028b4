"""Speed of whole training steps, against the machine's own limit."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.bench.timing import Case, OnRound, Spread, interleaved, no_word
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_model, images_of
from groupnorm_bench.training.optimizers import make_optimizer
from groupnorm_bench.training.way import Way, choose_way

_CPU = torch.device("cpu")
_IN_A_ROW = 5
"""Steps that are timed together: a training's follow one another, as do its threads' parts."""


@dataclass(frozen=True, slots=True)
class TrainSpeed:
    """Training steps of the CNN, optimizer included, and their share of the limit."""

    arm: str
    precision: str
    batch_size: int
    images_per_second: Spread
    limit: float
    """Images/s of the convolutions and the linear layer alone, forward and backward."""
    share: float
    """Median over rounds of the step's speed as a fraction of the limit's."""


def bench_train(
    configs: Iterable[TrainConfig], repeats: int = 20, on_round: OnRound = no_word
) -> list[TrainSpeed]:
    """Time training steps on the CPU, each beside its limit, on random images.

    As a long run trains, unless a config's `compile` is off.

    Raises:
        ConfigError: a norm cannot be built here.
    """
    configs = list(configs)
    steps = [train_step(config) for config in configs]
    limits = {(c.precision, c.batch_size): _limit_step(c) for c in configs}
    seconds = interleaved([*steps, *limits.values()], repeats, on_round)
    limit_seconds = dict(zip(limits, seconds[len(steps) :], strict=True))
    rows = []
    for config, times in zip(configs, seconds[: len(steps)], strict=True):
        size = config.batch_size
        limit = limit_seconds[config.precision, size]
        rows.append(
            TrainSpeed(
                config.arm,
                config.precision,
                size,
                Spread.of([size / s for s in times]),
                statistics.median(size / s for s in limit),
                statistics.median(b / s for s, b in zip(times, limit, strict=True)),
            )
        )
    return rows


def _way(model: nn.Module, config: TrainConfig) -> Way:
    return choose_way(model, config, _CPU, images=10**9)


def _random_batch(config: TrainConfig) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    data, size = images_of(config), config.batch_size
    images = torch.randn(size, *data.image_shape, generator=generator)
    return images, torch.randint(0, data.num_classes, (size,), generator=generator)


@contextlib.contextmanager
def _settled(way: Way, batch_size: int, step: Callable[[], None]) -> Iterator[None]:
    """Enter a way's context and take a step: threads have begun, as in all steps but the first."""
    with way.context(batch_size):
        step()
        yield


def train_step(config: TrainConfig) -> Case:
    """Return a training step on the CPU, optimizer included, on random images."""
    model = build_model(config)
    way = _way(model, config)
    optimizer = make_optimizer(config, model)
    images, labels = _random_batch(config)

    def step() -> None:
        loss = F.cross_entropy(way.forward(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Case(step, partial(_settled, way, config.batch_size, step), _IN_A_ROW)


def _limit_step(config: TrainConfig) -> Case:
    """Return the convolutions and the linear layer, forward and backward, and nothing else."""
    model = build_model(config.replace(norm="none"))
    inputs: list[Tensor] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
        for layer in layers
    ]
    model(_random_batch(config)[0])
    for hook in hooks:
        hook.remove()
    for features in inputs[1:]:
        features.requires_grad_()
    ways = [_way(nn.Sequential(layer), config) for layer in layers]
    grads: list[Tensor] = []

    def step() -> None:
        outputs = [way.forward(features) for way, features in zip(ways, inputs, strict=True)]
        if not grads:
            grads.extend(torch.ones_like(output) for output in outputs)
        torch.autograd.backward(outputs, grads)

    return Case(step, partial(_settled, ways[0], config.batch_size, step), _IN_A_ROW)

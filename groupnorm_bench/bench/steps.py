"""Speed and memory of norm layers, and of whole training steps against the machine's own limit."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.fast import allocator, blocks, loops, threads
from groupnorm_bench.fast.bf16 import autocast
from groupnorm_bench.fast.convolution import convolve
from groupnorm_bench.models.cnn import CNN, build_model
from groupnorm_bench.norms import CONV_CHANNELS, NORMS, make_norm
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.optimizers import make_optimizer

CNN_SHAPES = ((64, CONV_CHANNELS[0], 28, 28), (64, CONV_CHANNELS[1], 14, 14))
"""What the CNN's two norm layers see at batch size 64."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WARM_UP = 2

Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the tenth and the ninetieth percentile; of seconds, or of a rate."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Take the three from at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        return cls(statistics.median(values), tenths[0], tenths[-1])


@dataclass(frozen=True, slots=True)
class LayerSpeed:
    """Norm, activation and 2x2 max-pool, forward and backward, by one way."""

    norm: str
    way: str
    """`native`: torch's modules, channels first. Ours, channels last: `fused`; `compiled` loops."""
    precision: str
    shape: Shape
    microseconds: Spread
    """Per image."""
    saved_mb: float
    """What the forward pass keeps for the backward pass, its input included."""


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


def as_document(rows: Iterable[LayerSpeed | TrainSpeed]) -> list[dict[str, Any]]:
    """Return rows as JSON has them."""
    return [asdict(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Case:
    """Something to be timed."""

    run: Callable[[], None]
    batch_size: int
    use_loops: bool
    """Whether it runs by the compiled loops, with the threads that training gives them."""


def interleaved(cases: list[Case], repeats: int) -> list[list[float]]:
    """Return the seconds of each call: every case once a round, so that noise falls on all alike.

    Threads start before the clock does: a training starts them once an epoch.
    """
    seconds: list[list[float]] = [[] for _ in cases]
    for round_ in range(_WARM_UP + repeats):
        for case, times in zip(cases, seconds, strict=True):
            with threads.for_batches(case.use_loops, case.batch_size):
                started = time.perf_counter()
                case.run()
                elapsed = time.perf_counter() - started
            if round_ >= _WARM_UP:
                times.append(elapsed)
    return seconds


def bench_layers(
    shapes: Iterable[Shape] = CNN_SHAPES,
    precisions: Iterable[str] = ("fp32", "bf16"),
    num_groups: int = 8,
    repeats: int = 20,
    norms: Iterable[str] = tuple(NORMS),
) -> tuple[list[LayerSpeed], list[str]]:
    """Time every norm on inputs [batch, channels, height, width], on the CPU.

    Returns:
        the rows, native beside fused where there is one, and a line for each norm left out
        because its package is missing.

    Raises:
        ConfigError: a shape is too small to pool, or `num_groups` does not divide its channels.
    """
    labels: list[tuple[str, str, str, Shape]] = []
    cases: list[Case] = []
    saved: list[float] = []
    notes = [f"{n}: left out, needs the package {NORMS[n].needs}" for n in norms if _lacks(n)]
    for shape in shapes:
        if min(shape) < 1 or min(shape[2:]) < 2:
            raise ConfigError(f"shape={shape} cannot be pooled; height and width are 2 or more")
        for precision in precisions:
            for norm in norms:
                if _lacks(norm):
                    continue
                for way, function in _layer_ways(norm, num_groups, shape, DTYPES[precision]):
                    labels.append((norm, way, precision, shape))
                    saved.append(_saved_mb(function))
                    cases.append(Case(_backward_too(function), shape[0], way == "compiled"))
    rows = [
        LayerSpeed(*label, Spread.of([1e6 * s / label[3][0] for s in times]), megabytes)
        for label, times, megabytes in zip(labels, interleaved(cases, repeats), saved, strict=True)
    ]
    return rows, notes


def _lacks(norm: str) -> bool:
    needs = NORMS[norm].needs
    return needs is not None and importlib.util.find_spec(needs) is None


def _layer_ways(
    norm: str, num_groups: int, shape: Shape, dtype: torch.dtype
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    layer = make_norm(norm, shape[1], num_groups)
    activates = not NORMS[norm].fuses_activation
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    first = features.clone().requires_grad_()
    last = features.contiguous(memory_format=torch.channels_last).requires_grad_()

    def native() -> Tensor:
        normed = layer(first)
        return F.max_pool2d(F.relu(normed) if activates else normed, 2)

    yield "native", native
    if not activates or blocks.norm_relu_pool(last, layer) is None:
        return

    def ours(use_loops: bool) -> Tensor:
        pooled = blocks.norm_relu_pool(last, layer, use_loops)
        assert pooled is not None
        return pooled

    yield "fused", partial(ours, False)
    is_taken = loops.fits(last, torch.float32) and (norm != "none" or dtype == torch.float32)
    if is_taken and loops.prepare() is None:
        yield "compiled", partial(ours, True)


def _backward_too(function: Callable[[], Tensor]) -> Callable[[], None]:
    output = function()
    grad = torch.ones_like(output)

    def both() -> None:
        function().backward(grad)

    return both


def _saved_mb(function: Callable[[], Tensor]) -> float:
    """Return the size of all storages that autograd keeps, each counted once."""
    sizes: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        output = function()  # kept, so that no address is given out twice
        total = sum(sizes.values())
    del output
    return total / 2**20


def bench_train(configs: Iterable[TrainConfig], repeats: int = 20) -> list[TrainSpeed]:
    """Time training steps on the CPU, each beside its limit, on random images.

    By the compiled loops, as a long run trains, unless a config's `compile` is off.

    Raises:
        ConfigError: a norm cannot be built here.
    """
    allocator.keep_freed()
    configs = list(configs)
    steps = [_train_step(config) for config in configs]
    limits = {(c.precision, c.batch_size): _limit_step(c) for c in configs}
    seconds = interleaved([*steps, *limits.values()], repeats)
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


def _random_batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 1, 28, 28, generator=generator)
    return images, torch.randint(0, 10, (size,), generator=generator)


def _train_step(config: TrainConfig) -> Case:
    device = torch.device("cpu")
    model = build_model(config)
    model.use_loops = _uses_loops(config, model)
    optimizer = make_optimizer(config, model)
    images, labels = _random_batch(config.batch_size)

    def step() -> None:
        with autocast(config, device, model.use_loops):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Case(step, config.batch_size, model.use_loops)


def _uses_loops(config: TrainConfig, model: CNN) -> bool:
    return config.compile != "off" and model.fits_loops and loops.prepare() is None


def _limit_step(config: TrainConfig) -> Case:
    """Return the convolutions and the linear layer, forward and backward, and nothing else."""
    model = build_model(config.replace(norm="none"))
    images, _ = _random_batch(config.batch_size)
    second, third = _middle(config.batch_size)
    layers: list[tuple[nn.Module, Tensor]] = [
        (model.conv1, images),
        (model.conv2, second),
        (model.linear, third),
    ]
    grads: list[Tensor] = []
    use_loops = _uses_loops(config, model)

    def step() -> None:
        with autocast(config, torch.device("cpu"), use_loops):
            outputs = [convolve(inputs, layer, use_loops) for layer, inputs in layers]
        if not grads:
            grads.extend(torch.ones_like(output) for output in outputs)
        torch.autograd.backward(outputs, grads)

    return Case(step, config.batch_size, use_loops)


def _middle(batch_size: int) -> tuple[Tensor, Tensor]:
    """Return inputs of the second convolution and of the linear layer."""
    first, second = CONV_CHANNELS
    maps = torch.randn(batch_size, first, 14, 14).contiguous(memory_format=torch.channels_last)
    return maps.requires_grad_(), torch.randn(batch_size, second * 49).requires_grad_()

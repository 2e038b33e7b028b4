"""The passes of `fused` over full tensors, fused into loops by `torch.compile` (optional).

The same formulas as the eager ones, written for channels-last tensors of even height and width,
and so that the compiler reads the input twice and writes its gradient once.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MIN_IMAGES = 1_000_000
"""Images of training from which `auto` compiles. It takes 17 s the first time on a machine, 2.3 s
later; where it saved 40 microseconds an image this many earned it back twice (docs/performance.md).
"""
_COMPILERS = ("g++", "clang++", "c++")


@dataclass(frozen=True, slots=True)
class Passes:
    """The two passes, compiled."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def decide(setting: str, images: int) -> tuple[bool, str]:
    """Return whether to compile the norm block, and a line that says why.

    Args:
        setting: `auto`, `on` or `off`.
        images: images that the whole run trains on, repeats counted.
    """
    if setting == "off":
        return False, "compile off"
    if setting == "auto" and images < MIN_IMAGES:
        return False, "compile off: too short a run to earn it back (--compile on forces it)"
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS) if name):
        return False, "compile off: no C++ compiler here (g++ or clang++)"
    return True, "compile on"


def prepare(
    model: Any, batch_size: int, context: contextlib.AbstractContextManager[Any]
) -> str | None:
    """Compile the passes for a model's two norm layers and set its `passes`.

    One step of a copy is run, so that the compiler's time is not the training's, and a compiler
    that fails is met here.

    Returns:
        None, or what went wrong in one line; the model then stays as it was.
    """
    trial = copy.deepcopy(model).train()
    trial.passes = compile_passes()
    try:
        with context:
            logits = trial(torch.zeros(batch_size, 1, 28, 28))
        logits.float().sum().backward()
    except Exception as error:  # the compiler is another program: it fails in its own ways
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]
    model.passes = trial.passes
    return None


def compile_passes() -> Passes:
    """Return the compiled passes; the compiler runs when they are first called with a shape."""
    import torch._dynamo
    import torch._inductor.config

    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(cache) / "groupnorm-bench/compiled"))
    torch._inductor.config.compile_threads = 1  # a sweep's worker has no children
    torch._dynamo.config.recompile_limit = 256  # one for each shape and number of groups
    forward = torch.compile(forward_pass, dynamic=False, fullgraph=True)
    backward = torch.compile(backward_pass, dynamic=False, fullgraph=True)
    return Passes(forward, backward)


def fits(features: Tensor) -> bool:
    """Return whether the passes take `features`: channels-last, even height and width."""
    return (
        features.shape[2] % 2 == 0
        and features.shape[3] % 2 == 0
        and features.is_contiguous(memory_format=torch.channels_last)
        and features.dtype != torch.float64
    )


def blocks(values: Tensor, num_groups: int | None) -> Tensor:
    """Average [N, C] over what shares a mean and a variance, and spread it out again.

    Groups of channels within an image, [N, C]; for None, batch norm, the images: [1, C].
    """
    if num_groups is None:
        return values.mean(0, keepdim=True)
    if num_groups == values.shape[1]:
        return values
    groups = values.unflatten(1, (num_groups, -1))
    return groups.mean(2, keepdim=True).expand_as(groups).flatten(1)


def forward_pass(
    features: Tensor, weight: Tensor, bias: Tensor, num_groups: int | None, eps: float
) -> tuple[Tensor, ...]:
    """Return pooled, mean, var, rstd, centred, places; see `fused._NormReluPool`.

    Tensors of pixels are [N, H, W, C] here. `places` holds 0 to 3 as floats: with int8 the
    compiler's loops were four times slower.
    """
    pixels = features.permute(0, 2, 3, 1).float()
    means = pixels.mean((1, 2))  # [N, C]
    variances = (pixels - means[:, None, None]).square().mean((1, 2))
    mean = blocks(means, num_groups)
    var = blocks(variances + (means - mean).square(), num_groups)
    rstd = (var + eps).rsqrt()
    num_images, height, width, channels = pixels.shape
    windows = pixels.view(num_images, height // 2, 2, width // 2, 2, channels)
    sign = weight.sign()
    peaks = windows[:, :, 0, :, 0]
    best = peaks * sign
    places = torch.zeros_like(peaks)
    for place in (1, 2, 3):
        value = windows[:, :, place // 2, :, place % 2]
        is_better = value * sign > best
        best = torch.where(is_better, value * sign, best)
        peaks = torch.where(is_better, value, peaks)
        places = torch.where(is_better, float(place), places)
    centred = peaks - mean[:, None, None]
    pooled = (centred * (weight * rstd)[:, None, None] + bias).relu().to(features.dtype)
    return pooled, mean, var, rstd, centred, places


def backward_pass(
    grad: Tensor,
    features: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    centred: Tensor,
    places: Tensor,
    pooled: Tensor,
    num_groups: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of features [N, H, W, C], weight and bias."""
    pixels = features.permute(0, 2, 3, 1)
    num_images, height, width, channels = pixels.shape
    grad = torch.where(pooled > 0, grad.permute(0, 2, 3, 1).float(), 0.0)
    grad_sums = grad.sum((1, 2))  # [N, C]
    product_sums = (grad * centred).sum((1, 2)) * rstd
    slope = blocks(weight * product_sums, num_groups) * rstd * rstd / -(height * width)
    level = blocks(weight * grad_sums, num_groups) * rstd / -(height * width) - slope * mean
    routed = grad * (weight * rstd)[:, None, None]
    windows = pixels.float().view(num_images, height // 2, 2, width // 2, 2, channels)
    slope, level = slope[:, None, None], level[:, None, None]
    corners = [
        windows[:, :, place // 2, :, place % 2] * slope
        + level
        + torch.where(places == float(place), routed, 0.0)
        for place in range(4)
    ]
    rows = [torch.stack(corners[:2], 3), torch.stack(corners[2:], 3)]
    features_grad = torch.stack(rows, 2).view(num_images, height, width, channels)
    return features_grad.to(features.dtype), product_sums.sum(0), grad_sums.sum(0)

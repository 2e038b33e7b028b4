"""The optimizer and the learning rate's schedule of a config, as torch has them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from groupnorm_bench.settings.config import TrainConfig

SGD_MOMENTUM = 0.9


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer; scales, shifts and biases do not decay unless asked for."""
    weights, rest = decayed_parameters(model)
    groups = [{"params": weights, "weight_decay": config.weight_decay}]
    if config.weight_decay_all or config.weight_decay == 0:
        weights.extend(rest)  # a group of its own would take 0.1 ms a step
    else:
        groups.append({"params": rest, "weight_decay": 0.0})
    device = next(model.parameters()).device
    is_fused = device.type in ("cpu", "cuda")  # one kernel for all parameters
    if config.optimizer == "sgd":
        return _eager(torch.optim.SGD)(groups, lr=config.lr, momentum=SGD_MOMENTUM, fused=is_fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return _eager(kind)(groups, lr=config.lr, fused=is_fused)


@functools.cache
def _eager(kind: type[torch.optim.Optimizer]) -> Any:
    """Return torch's optimizer without the guards that only matter inside `torch.compile`.

    Each guard imports torch's compiler when it is first called, also where nothing is compiled:
    2.5 s and 150 MB a process, more than `import torch` itself (docs/performance.md). Nor does a
    step call hooks, which nobody sets here, and torch's profiler, or look up what stays the same.
    """
    guarded = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in guarded}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    methods["step"].hooked = True  # else torch wraps it
    methods["_init_group"] = _with_memory(kind._init_group)  # type: ignore[attr-defined]
    return type(kind.__name__, (kind,), methods)


def _with_memory(init_group: Callable[..., bool]) -> Callable[..., bool]:
    """Return torch's method that fills lists for a step, which looks for gradients alone.

    The others, parameters and their state, are the same as long as the group and all state are.
    """

    def from_memory(self: Any, group: Any, params: Any, grads: Any, *states: Any) -> bool:
        memory = self.__dict__.setdefault("_memory", {})
        known = memory.get(id(group))
        if known is not None and known[0] is group and known[1] is self.state:
            found = [each.grad for each in known[2]]
            if all(each is not None for each in found):
                grads += found
                for given, kept in zip((params, *states), known[2:-1], strict=True):
                    given += kept
                return known[-1]
        result = init_group(self, group, params, grads, *states)
        for buffers in states:
            _fill_missing(buffers, grads)
        lists = [list(each) for each in (params, *states)]
        has_all = len(params) == len(group["params"])  # what has no gradient yet may have one later
        if has_all and not any(each is None for kept in lists for each in kept):  # as SGD has first
            memory[id(group)] = (group, self.state, *lists, result)
        return result

    return from_memory


def _fill_missing(buffers: list[Any], grads: list[torch.Tensor]) -> None:
    """Begin with zeros the momentum of parameters whose first gradient comes after others' first.

    torch's SGD in one kernel takes momentum of all or of none; 0.9 * 0 + g is the g it begins with.
    """
    missing = [i for i, each in enumerate(buffers) if each is None]
    if len(missing) < len(buffers):
        for i in missing:
            buffers[i] = torch.zeros_like(grads[i])


def decayed_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into weights, which decay, and norm scales, shifts and biases, which don't.

    Anything with fewer than two dimensions is a scale, a shift or a bias (a norm's parameters
    shaped [1, C, 1, 1] have one dimension that is not 1).
    """
    weights: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in model.parameters():
        dimensions = sum(length > 1 for length in parameter.shape)
        (weights if dimensions >= 2 else rest).append(parameter)
    return weights, rest


def make_schedule(
    config: TrainConfig, optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return torch's scheduler, stepped once a training step; None for a constant rate."""
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total_steps)
    if config.schedule == "one-cycle":
        # Momentum stays: with Adam its cycling would change the arm's optimizer, not its rate.
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=config.lr, total_steps=max(total_steps, 4), cycle_momentum=False
        )
    return None

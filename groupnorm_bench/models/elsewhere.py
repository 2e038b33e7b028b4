"""Networks made elsewhere: torchvision's, timm's, and those of the user's own functions.

They come with norms of their own, which `swap_norms` exchanges, or call `norm_layer` themselves.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from groupnorm_bench.errors import ConfigError, GnbenchError, one_line
from groupnorm_bench.models.blocks import NormLayer
from groupnorm_bench.own import own_function

_WITHOUT_SIDE_OUTPUT = {"googlenet", "inception_v3"}
"""Networks of torchvision that put out a second row of logits in training unless told not to."""


def build_torchvision(name: str, in_channels: int, num_classes: int) -> nn.Module:
    """Build a classifier of torchvision with random weights.

    For images of fewer channels than it was made for, its first convolution keeps the weights of
    its first channels, as they were drawn.

    Raises:
        ConfigError: torchvision has no classifier of that name, or it cannot be built.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(f"torchvision:{name}", name, known, "torchvision.models.list_models()")
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in _WITHOUT_SIDE_OUTPUT:
        options |= {"aux_logits": False, "init_weights": True}
    model = _called(f"torchvision:{name}", lambda: models.get_model(name, **options))
    _fit_first_convolution(f"torchvision:{name}", model, in_channels)
    return model


def build_timm(name: str, in_channels: int, num_classes: int) -> nn.Module:
    """Build a classifier of timm with random weights; timm fits its first convolution.

    Raises:
        ConfigError: timm is not here, has no model of that name, or cannot build it.
    """
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(
            f"model='timm:{name}' needs the package timm; pip install 'groupnorm-bench[norms]'"
        )
    import timm

    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", name, timm.list_models(), "timm.list_models()")
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    return _called(f"timm:{name}", lambda: timm.create_model(name, pretrained=False, **options))


def build_own(name: str, norm_layer: NormLayer, in_channels: int, num_classes: int) -> nn.Module:
    """Call a user's function with (norm_layer, in_channels, num_classes), or without the first.

    Raises:
        ConfigError: it cannot be imported or called, or returns no module.
    """
    usage = (
        "; it must be importable from here and callable with (norm_layer, in_channels, "
        "num_classes) or (in_channels, num_classes)"
    )
    function = _called(name, lambda: own_function(name), usage)
    given: tuple[Any, ...] = (in_channels, num_classes)
    if _wants_norm_layer(function):
        given = (norm_layer, *given)
    model = _called(name, lambda: function(*given), usage)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model={name!r} returned {type(model).__name__}, not a torch.nn.Module{usage}"
        )
    _refuse_untrainable(name, model)
    return model


def _refuse_untrainable(name: str, model: nn.Module) -> None:
    weights = dict(model.named_parameters())
    lazy = next((key for key, weight in weights.items() if is_lazy(weight)), None)
    if lazy is not None:
        raise ConfigError(
            f"model={name!r} leaves the shape of {lazy!r} to its first batch; give that layer its "
            "number of channels, so that one seed draws the same weights in every arm"
        )
    if not any(weight.requires_grad for weight in weights.values()):
        raise ConfigError(f"model={name!r} has no weight that trains; leave requires_grad on")


def _wants_norm_layer(function: Callable[..., Any]) -> bool:
    """Return whether a function's first parameter is the factory of norms."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C: nothing tells
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    return len(required) >= 3 or (bool(positional) and positional[0].name == "norm_layer")


def _called(name: str, call: Callable[[], Any], usage: str = "") -> Any:
    try:
        # stdout is for results: what a function prints while it builds goes beside them
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            return call()
    except GnbenchError:
        raise
    except (Exception, SystemExit) as error:  # code of others may raise anything
        raise ConfigError(f"model={name!r} cannot be built: {one_line(error)}{usage}") from error


def _unknown(model: str, name: str, known: Sequence[str], where: str) -> ConfigError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    prefix = model.partition(":")[0]
    hint = f"did you mean '{prefix}:{close[0]}'?" if close else f"{where} has their names"
    return ConfigError(f"model={model!r} is unknown; {hint}")


def _fit_first_convolution(name: str, model: nn.Module, in_channels: int) -> None:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels == in_channels:
        return
    if first.groups != 1 or first.in_channels < in_channels:
        raise ConfigError(
            f"model={name!r} takes images of {first.in_channels} channels, and these have "
            f"{in_channels}; give a function of your own, package.module:make_model"
        )
    first.in_channels = in_channels
    first.weight = nn.Parameter(first.weight.detach()[:, :in_channels].clone())

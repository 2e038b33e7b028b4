"""Exchange the norm layers of a network that was built with others.

What goes wrong in swap loops made at home, and is guarded here: a fused layer's activation is lost
with it, subclasses are missed, scales that start at 0 in residual branches become 1, a layer used
in two places becomes two, and an optimizer goes on with parameters that nothing uses.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase

from groupnorm_bench.errors import ConfigError, GnbenchError, one_line

_BRING_ACTIVATION = ("timm.layers.evo_norm", "timm.layers.filter_response_norm")


@dataclass(frozen=True, kw_only=True, slots=True)
class NormSite:
    """A place of a network where a norm layer stands, and what became of it."""

    name: str
    """As `named_modules` spells it; of a layer used in several places, the first."""
    num_channels: int
    was: str
    """Class of the layer that stood there."""
    became: str
    """Class of the layer that stands there now; `was` where the layer was kept."""
    carried: tuple[str, ...]
    """What the new layer took over: `scale`, `shift`, `running statistics`."""
    kept: bool
    """The layer that stood there is what the arm asks for, and was left alone."""


def swap_norms(model: nn.Module, make_norm: Callable[[int], nn.Module]) -> list[NormSite]:
    """Exchange every BatchNorm (1d, 2d, 3d, synchronised) and GroupNorm of a model, in place.

    Subclasses are exchanged too. One that applies more than the norm, as timm's `BatchNormAct2d`
    does, keeps what follows (`drop`, `act`) around the new layer; where that cannot be told, it is
    refused. Scale and shift are carried over as the very same parameters, so that their values,
    ties and `requires_grad` hold and an optimizer made before still steps what is used; every other
    weight stays as it is. From batch norm to a kind of batch norm, running statistics, eps and
    momentum are carried over as well; any other layer keeps the eps `make_norm` gives it. A layer
    used in several places stays one layer. Mode, dtype and device are the old layer's. Where
    `make_norm` gives a plain `BatchNorm2d` and a batch norm stands there, nothing is changed at
    all; likewise a GroupNorm of as many groups. No random number is drawn from torch's generator.

    Either every site is exchanged, or the model is left as it was.

    Args:
        model: any module; LayerNorm and InstanceNorm in it are left alone.
        make_norm: called with a site's number of channels, as torchvision's `norm_layer` is. One
            that brings its activation (FRN, EvoNorm) fits only where the activation to take away
            is part of the layer.

    Returns:
        one record per layer, in the model's order.

    Raises:
        ConfigError: there is no norm to exchange, `make_norm` fails, or a site cannot be exchanged;
            the message names it.
    """
    places = _places(model)
    if not places:
        raise ConfigError(
            f"{type(model).__name__} has no BatchNorm or GroupNorm to exchange{_other_norms(model)}"
        )
    like = next(_tensors(model), torch.empty(0))
    with torch.random.fork_rng(devices=[]):
        exchanges = [
            _Exchange(old, names[0], make_norm, next(_tensors(old), like))
            for old, names in places.items()
        ]
    for names, exchange in zip(places.values(), exchanges, strict=True):
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, exchange.new)
    return [exchange.site for exchange in exchanges]


def norm_channels(model: nn.Module) -> dict[str, int]:
    """Return the layers that `swap_norms` would exchange: name and number of channels."""
    return {names[0]: channels_of(layer) for layer, names in _places(model).items()}


def norm_at(model: nn.Module, name: str) -> nn.Module:
    """Return the norm at a site: itself, where `swap_norms` joined it with what follows it."""
    layer = model.get_submodule(name)
    return layer.norm if type(layer) is nn.Sequential and hasattr(layer, "norm") else layer  # type: ignore[return-value]


def is_norm(module: nn.Module) -> bool:
    """Return whether `swap_norms` would exchange a module."""
    return isinstance(module, _BatchNorm | nn.GroupNorm)


def channels_of(norm: nn.Module) -> int:
    """Return the number of channels of a layer that `is_norm`."""
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels
    assert isinstance(norm, _BatchNorm)
    return norm.num_features


def _places(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Return every norm layer with the names of its places; a shared layer has several."""
    places: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if is_norm(module):
            places.setdefault(module, []).append(name)
    if model in places:
        raise ConfigError(
            f"{type(model).__name__} is itself a norm layer; give the network that holds it"
        )
    return places


def _other_norms(model: nn.Module) -> str:
    names = {type(module).__name__ for module in model.modules()}
    found = sorted(name for name in names if re.search(r"Norm(\dd|\d*)$", name))
    return f"; {', '.join(found)} in it is left alone" if found else ""


class _Exchange:
    """One norm layer and the one that takes its place."""

    def __init__(
        self, old: nn.Module, name: str, make_norm: Callable[[int], nn.Module], like: Tensor
    ) -> None:
        self.old, self.where = old, f"norm layer {name!r} ({type(old).__name__})"
        self._check_old()
        self.num_channels = channels_of(old)
        layer = self._make(make_norm)
        kept, carried = _is_same(old, layer), tuple[str, ...]()
        if kept:
            self.new = old
        else:
            after = self._after(drop_activation=_brings_activation(layer, make_norm))
            layer.to(like)
            carried = _carry(old, layer, self.num_channels)
            self.new = nn.Sequential(OrderedDict(norm=layer, **after)) if after else layer
            self.new.train(old.training)
        self.site = NormSite(
            name=name,
            num_channels=self.num_channels,
            was=type(old).__name__,
            became=type(old if kept else layer).__name__,
            carried=carried,
            kept=kept,
        )

    def _check_old(self) -> None:
        if isinstance(self.old, _LazyNormBase):
            raise ConfigError(f"{self.where} is lazy; call the model on a batch first")
        if any(getattr(self.old, hooks) for hooks in _HOOKS):
            raise ConfigError(f"{self.where} has hooks, which would be lost; add them afterwards")

    def _make(self, make_norm: Callable[[int], nn.Module]) -> nn.Module:
        try:
            layer = make_norm(self.num_channels)
        except GnbenchError as error:
            raise ConfigError(f"{self.where}: {error}") from error
        except Exception as error:  # a user's code may raise anything; each is theirs to mend
            raise ConfigError(
                f"{self.where}: make_norm({self.num_channels}) failed: {one_line(error)}"
            ) from error
        if not isinstance(layer, nn.Module):
            raise ConfigError(
                f"{self.where}: make_norm({self.num_channels}) returned {type(layer).__name__}, "
                "not a torch.nn.Module"
            )
        return layer

    def _after(self, *, drop_activation: bool) -> dict[str, nn.Module]:
        """Return what the old layer applies after its norm, less the activation if so asked."""
        after = _applied_after(self.old)
        if after is None:
            raise ConfigError(
                f"{self.where} computes more than a norm, and what cannot be told; "
                "have the model built with norm_layer instead"
            )
        if drop_activation and after.pop("act", None) is None:
            raise ConfigError(
                f"{self.where} has no activation in it, and the arm's norm brings one: which to "
                "take away cannot be told; have the model built with norm_layer, or use a norm "
                "without activation"
            )
        return after


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _is_same(old: nn.Module, new: nn.Module) -> bool:
    if type(new) is nn.BatchNorm2d:
        return isinstance(old, _BatchNorm)
    if type(new) is nn.GroupNorm:
        return isinstance(old, nn.GroupNorm) and old.num_groups == new.num_groups
    return False


def _brings_activation(layer: nn.Module, make_norm: Callable[[int], nn.Module]) -> bool:
    brings = getattr(make_norm, "fuses_activation", False)
    return brings or type(layer).__module__ in _BRING_ACTIVATION


def _carry(old: nn.Module, new: nn.Module, num_channels: int) -> tuple[str, ...]:
    """Give `new` the parameters of `old`, and its statistics; return which it could take."""
    carried = []
    homes = [m for m in new.modules() if _has_shape(m, "weight", num_channels)]
    for name, word in (("weight", "scale"), ("bias", "shift")):
        parameter = getattr(old, name)
        if parameter is not None and len(homes) == 1 and _has_shape(homes[0], name, num_channels):
            setattr(homes[0], name, parameter)
            carried.append(word)
    if isinstance(old, _BatchNorm) and isinstance(new, _BatchNorm):
        new.eps, new.momentum = old.eps, old.momentum
        if old.running_mean is not None and new.running_mean is not None:
            new.load_state_dict(old.state_dict(), strict=False)
            carried.append("running statistics")
    return tuple(carried)


def _has_shape(module: nn.Module, name: str, num_channels: int) -> bool:
    parameter = module._parameters.get(name)
    return parameter is not None and parameter.shape == (num_channels,)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())


def _applied_after(layer: nn.Module) -> dict[str, nn.Module] | None:
    """Return the modules that a norm layer applies to what it normed, by name and in order.

    Torch's own layers apply none. For any other the guess, its children in order, is held against
    what the layer computes in evaluation on random features; None if it is not that.
    """
    if type(layer).forward.__module__.startswith("torch.nn.modules."):
        return {}
    try:
        if not _only_applies_children(layer):
            return None
    except Exception:  # an unknown layer's code may raise anything; each means: unknown
        return None
    return {n: m for n, m in layer.named_children() if not isinstance(m, nn.Identity)}


def _only_applies_children(layer: nn.Module) -> bool:
    probe = copy.deepcopy(layer).to_empty(device="cpu").float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in _tensors(probe):
            tensor.uniform_(0.5, 1.5, generator=generator)
        size = [4] * _dimensions(probe)
        features = torch.randn(4, channels_of(probe), *size, generator=generator, device="cpu")
        expected = _normed(probe, features)
        for child in probe.children():
            expected = child(expected)
        return torch.allclose(probe(features), expected, rtol=1e-4, atol=1e-4)


def _dimensions(norm: nn.Module) -> int:
    if isinstance(norm, nn.BatchNorm1d):
        return 1
    return 3 if isinstance(norm, nn.BatchNorm3d) else 2


def _normed(norm: nn.Module, features: Tensor) -> Tensor:
    """Return what torch's own layer would give in evaluation in the place of `norm`."""
    if isinstance(norm, nn.GroupNorm):
        return F.group_norm(features, norm.num_groups, norm.weight, norm.bias, norm.eps)
    assert isinstance(norm, _BatchNorm)
    mean, var = norm.running_mean, norm.running_var
    use_batch = mean is None
    return F.batch_norm(features, mean, var, norm.weight, norm.bias, use_batch, 0.0, norm.eps)

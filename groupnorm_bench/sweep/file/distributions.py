"""W&B's distributions: what a parameter of a sweep file says, its values, and its quantiles.

Quantile functions are those of W&B's own `sweeps` package (`params.py`, `HyperParameter.ppf`),
which a slow test holds them against.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from groupnorm_bench.errors import SweepError, nearest

KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # distribution: (keys it needs, keys it may have)
    "constant": (("value",), ()),
    "categorical": (("values",), ()),
    "categorical_w_probabilities": (("values", "probabilities"), ()),
    "int_uniform": (("min", "max"), ()),
    "uniform": (("min", "max"), ()),
    "q_uniform": (("min", "max"), ("q",)),
    "log_uniform_values": (("min", "max"), ()),
    "inv_log_uniform_values": (("min", "max"), ()),
    "q_log_uniform_values": (("min", "max"), ("q",)),
    "normal": ((), ("mu", "sigma")),
    "q_normal": ((), ("mu", "sigma", "q")),
    "log_normal": ((), ("mu", "sigma")),
    "q_log_normal": ((), ("mu", "sigma", "q")),
}
_UNSUPPORTED = {
    "log_uniform": "W&B gave it up too; use log_uniform_values, whose min and max are values",
    "q_log_uniform": "W&B gave it up too; use q_log_uniform_values, whose min and max are values",
    "inv_log_uniform": "W&B gave it up too; use log_uniform_values",
    "beta": "no setting of ours is spread like that; use uniform",
    "q_beta": "no setting of ours is spread like that; use q_uniform",
}
_NUMBERS = ("min", "max", "q", "mu", "sigma")
_LOG = ("log_uniform_values", "inv_log_uniform_values", "q_log_uniform_values")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """Where a parameter's values come from."""

    kind: str
    """A key of `KEYS`."""
    values: tuple[Any, ...] = ()
    """Of the categorical kinds and `constant`, as the file has them."""
    probabilities: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    q: float = 1.0
    """Step of the q_ kinds: quantiles are rounded to its multiples."""
    mu: float = 0.0
    sigma: float = 1.0

    @property
    def is_finite(self) -> bool:
        """Whether it stands for a list of values, each as likely as the next."""
        return self.kind in ("constant", "categorical", "int_uniform")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and greatest value of a range, None for a list or an unbounded kind."""
        if "min" not in KEYS[self.kind][0]:
            return None
        low, high = self.low, self.high
        return (self._rounded(low), self._rounded(high)) if self.kind[:2] == "q_" else (low, high)

    def grid_values(self) -> Sequence[Any] | None:
        """Return what a grid walks, or None for a kind that W&B's grid refuses.

        As in W&B, `q_uniform` goes from min in steps of q and stops short of max.
        """
        if self.kind in ("constant", "categorical"):
            return self.values
        if self.kind == "int_uniform":
            return range(int(self.low), int(self.high) + 1)
        if self.kind == "q_uniform":
            count = math.ceil((self.high - self.low) / self.q - 1e-9)
            if all(isinstance(x, int) for x in (self.low, self.q)):
                return range(int(self.low), int(self.low + count * self.q), int(self.q))
            return [float(f"{self.low + k * self.q:.12g}") for k in range(count)]
        return None

    def quantile(self, u: float) -> Any:
        """Return the value below which a share `u` (0 to 1, both excluded) of draws lies."""
        if self.values:
            return self.values[self._index(u)]
        if self.kind == "int_uniform":
            return min(int(self.low + u * (self.high - self.low + 1)), int(self.high))
        if self.kind in _LOG:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
            value = min(max(value, self.low), self.high)  # exp and log do not quite undo each other
        elif "normal" in self.kind:
            value = NormalDist(self.mu, self.sigma).inv_cdf(u) if self.sigma else self.mu
            value = math.exp(value) if "log" in self.kind else value
        else:
            value = self.low + u * (self.high - self.low)
        return self._rounded(value) if self.kind[:2] == "q_" else value

    def share_below(self, value: Any) -> float | None:
        """Return a `u` whose `quantile` is `value`, or None where the kind never gives it."""
        if self.values:
            return self._share_of_choice(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        bounds = self.bounds
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            return None
        if self.kind == "int_uniform":
            return (value - self.low + 0.5) / (self.high - self.low + 1)
        if self.kind[:2] == "q_" and not math.isclose(self._rounded(value), value):
            return None
        return min(max(self._continuous_share(value), 0.0), 1.0)

    def _continuous_share(self, value: float) -> float:
        if self.kind in _LOG:
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        if "normal" in self.kind:
            if "log" in self.kind and value <= 0:
                return 0.0
            value = math.log(value) if "log" in self.kind else value
            return NormalDist(self.mu, self.sigma).cdf(value) if self.sigma else 0.5
        return (value - self.low) / (self.high - self.low)

    def _share_of_choice(self, value: Any) -> float | None:
        if value not in self.values:
            return None
        weights = self.probabilities or [1 / len(self.values)] * len(self.values)
        index = self.values.index(value)
        return sum(weights[:index]) + weights[index] / 2

    def _index(self, u: float) -> int:
        if not self.probabilities:
            return min(int(u * len(self.values)), len(self.values) - 1)
        total = 0.0
        for index, weight in enumerate(self.probabilities):
            total += weight
            if u < total:
                return index
        return max(i for i, weight in enumerate(self.probabilities) if weight > 0)

    def _rounded(self, value: float) -> float:
        steps = round(value / self.q)
        return steps * self.q if isinstance(self.q, int) else float(f"{steps * self.q:.12g}")


def read_distribution(
    name: str, given: Mapping[str, Any], where: Callable[..., str]
) -> Distribution:
    """Read one entry of `parameters`, as W&B's schema does.

    Args:
        name: the parameter.
        given: its mapping in the file.
        where: `where("min")` is the `file:line` of its key `min`, `where()` its own.

    Raises:
        SweepError: a key or a distribution is unknown or unsupported, or a value does not fit.
    """
    given = with_numbers(given)
    kind = _kind(name, given, where)
    needed, optional = KEYS[kind]
    allowed = (*needed, *optional, "distribution")
    for key in given:
        if key not in allowed:
            every = {key for needed, optional in KEYS.values() for key in (*needed, *optional)}
            hint = (
                f"; {kind} reads {', '.join(allowed)}"
                if key in every
                else nearest(key, [*allowed, "parameters"])
            )
            raise SweepError(f"{where(key)} {name}: unknown key {key!r}{hint}")
    for key in needed:
        if key not in given:
            raise SweepError(f"{where()} {name}: {kind} needs {key!r}; add it")
    if "values" in given or "value" in given:
        return _categorical(name, kind, given, where)
    return _numeric(name, kind, given, where)


def with_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of `parameters` with its numbers as numbers, where they were text."""
    read = {key: as_number(value) if key in _NUMBERS else value for key, value in given.items()}
    if isinstance(read.get("probabilities"), list):
        read["probabilities"] = [as_number(share) for share in read["probabilities"]]
    return read


def _kind(name: str, given: Mapping[str, Any], where: Callable[..., str]) -> str:
    if "distribution" in given:
        kind = str(given["distribution"])
        if kind in _UNSUPPORTED:
            raise SweepError(
                f"{where('distribution')} {name}: distribution={kind!r} is not supported: "
                f"{_UNSUPPORTED[kind]}"
            )
        if kind not in KEYS:
            raise SweepError(
                f"{where('distribution')} {name}: distribution={kind!r} is unknown"
                f"{nearest(str(kind), KEYS)}"
            )
        return str(kind)
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "min" in given or "max" in given:
        ends = (given.get("min"), given.get("max"))
        return "int_uniform" if all(type(end) is int for end in ends) else "uniform"
    if given:
        key = next(iter(given))
        keys = ("value", "values", "min", "max", "distribution", "parameters")
        raise SweepError(f"{where(key)} {name}: unknown key {key!r}{nearest(key, keys)}")
    raise SweepError(f"{where()} {name}: is empty; write `values: [...]` under it")


def _categorical(
    name: str, kind: str, given: Mapping[str, Any], where: Callable[..., str]
) -> Distribution:
    if kind == "constant":
        return Distribution(kind=kind, values=(given["value"],))
    values = given["values"]
    if not isinstance(values, list) or not values:
        raise SweepError(f"{where('values')} {name}: values={values!r} is not a list of values")
    if kind == "categorical":
        return Distribution(kind=kind, values=tuple(values))
    shares = given["probabilities"]
    if not isinstance(shares, list) or not all(_is_number(p) and p >= 0 for p in shares):
        raise SweepError(
            f"{where('probabilities')} {name}: probabilities={shares!r} is not a list of numbers "
            "from 0 on"
        )
    if len(shares) != len(values):
        raise SweepError(
            f"{where('probabilities')} {name}: {len(shares)} probabilities for {len(values)} "
            "values; give one each"
        )
    if not math.isclose(sum(shares), 1.0, rel_tol=1e-5):
        raise SweepError(
            f"{where('probabilities')} {name}: probabilities sum to {sum(shares):g}; make it 1"
        )
    return Distribution(kind=kind, values=tuple(values), probabilities=tuple(shares))


def _numeric(
    name: str, kind: str, given: Mapping[str, Any], where: Callable[..., str]
) -> Distribution:
    for key in _NUMBERS:
        if key in given and not _is_number(given[key]):
            raise SweepError(
                f"{where(key)} {name}: {key}={given[key]!r} is not a number; write one"
            )
    fields = {
        "low": given.get("min", 0.0),
        "high": given.get("max", 0.0),
        "q": given.get("q", 1.0),
        "mu": given.get("mu", 0.0),
        "sigma": given.get("sigma", 1.0),
    }
    if kind == "int_uniform" and not all(type(given[key]) is int for key in ("min", "max")):
        raise SweepError(
            f"{where()} {name}: int_uniform needs whole numbers, not min={given['min']} and "
            f"max={given['max']}; use uniform"
        )
    if "min" in given and given["min"] >= given["max"]:
        raise SweepError(
            f"{where('min')} {name}: min={given['min']} is not below max={given['max']}; swap them"
        )
    if kind in _LOG and given["min"] <= 0:
        raise SweepError(
            f"{where('min')} {name}: min={given['min']} has no logarithm; set it above 0"
        )
    if fields["q"] <= 0:
        raise SweepError(f"{where('q')} {name}: q={fields['q']} is not a step; set it above 0")
    if fields["sigma"] < 0:
        raise SweepError(
            f"{where('sigma')} {name}: sigma={fields['sigma']} is not a spread; set it to 0 or more"
        )
    return Distribution(kind=kind, **fields)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def as_number(value: Any) -> Any:
    """Return text that is a number as that number, anything else as it is.

    YAML 1.1, which W&B reads too, takes `1e-5` for text: it wants a point and a sign, `1.0e-5`.

    >>> as_number("1e-5"), as_number("64"), as_number("fast")
    (1e-05, 64, 'fast')
    """
    if not isinstance(value, str) or len(value) > 40 or not _NUMBER.fullmatch(value):
        return value
    return int(value) if value.lstrip("+-").isdigit() else float(value)

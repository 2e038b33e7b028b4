"""How many seeds a decision takes, by simulation of the very rule that decides.

Paths of differences are drawn as normal, and looked at after every pair up to 64 and after every
twentieth part more from there on: whole blocks of pairs are drawn by their mean and their spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.anytime import log_e_of, moments
from groupnorm_bench.compare.question import FIRST_LOOK
from groupnorm_bench.compare.stats import Floats, holm_adjusted

CAP = 1_000
"""More seeds than this are told as `over 1,000`."""
QUANTILES = (0.1, 0.5, 0.9)
_PATHS, _FURTHER_PATHS = 400, 200
_SEED = 20261125


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerRule:
    """When a contrast counts as decided."""

    alpha: float = 0.05
    margin: float | None = None
    """With one, equality decides too."""
    floor: float = 0.0
    first_look: int = FIRST_LOOK
    planned: bool = False
    """Student's t at each number of seeds, as if it alone had been planned."""


@dataclass(frozen=True, slots=True)
class SeedsNeeded:
    """Seeds to a decision: 80 % of the paths need between `low` and `high`.

    A number above `CAP` says that so many were not enough.
    """

    low: int
    middle: int
    high: int

    @property
    def counts(self) -> tuple[int, int, int]:
        """The three, as `QUANTILES` has them."""
        return self.low, self.middle, self.high


def further_seeds(differences: npt.ArrayLike, rule: PowerRule) -> SeedsNeeded | None:
    """Return how many seeds more a contrast will likely need, after those it has.

    True means and spreads are drawn from what the pairs so far leave possible: the difference seen
    is itself uncertain, hence a range.

    Returns:
        None under two pairs, or without any spread.
    """
    x = np.asarray(differences, dtype=float)
    if len(x) < 2:
        return None
    n, mean, variance = (float(numbers[..., -1]) for numbers in moments(x, rule.floor))
    if variance == 0:
        return None
    rng = np.random.default_rng(_SEED)
    sd = np.sqrt(variance * (n - 1) / rng.chisquare(n - 1, _FURTHER_PATHS))
    true = mean + sd * rng.normal(size=_FURTHER_PATHS) / math.sqrt(n)
    looks = looks_until(CAP, len(x))
    p, p_equal = _paths(rng, looks, true, sd, rule, x)
    reached = (p < rule.alpha) | (p_equal < rule.alpha)
    return _quantiles(reached, looks, len(x))


def seeds_to_decide(
    difference: float, sd: float, rule: PowerRule, *, contrasts: int = 1
) -> dict[str, SeedsNeeded]:
    """Return how many seeds it takes were the true difference this, from nothing.

    Args:
        difference, sd: of one pair, in the printed unit.
        rule: what decides.
        contrasts: of the family, each with this difference; Holm's correction over them.

    Returns:
        `one` and `all`: until one contrast named beforehand, and until each, is decided.
    """
    rng = np.random.default_rng(_SEED)
    looks = looks_until(CAP, 0)
    shape = (_PATHS, contrasts)
    p, p_equal = _paths(rng, looks, np.full(shape, difference), np.full(shape, sd), rule)
    # [paths, contrasts, looks]
    decided = np.minimum(holm_adjusted(p, axis=1), holm_adjusted(p_equal, axis=1)) < rule.alpha
    return {
        "one": _quantiles(decided[:, 0], looks, 0),
        "all": _quantiles(decided.min(axis=1), looks, 0),
    }


def looks_until(cap: int, start: int) -> npt.NDArray[np.int64]:
    """Return after how many pairs to look: each one up to 64 more, then 5 % apart."""
    looks = [start + 1]
    while looks[-1] < start + cap:
        done = looks[-1] - start
        looks.append(looks[-1] + max(1, round(0.05 * done) if done >= 64 else 1))
    return np.array(looks)


def _paths(
    rng: np.random.Generator,
    looks: npt.NDArray[np.int64],
    true: Floats,
    sd: Floats,
    rule: PowerRule,
    seen: npt.ArrayLike = (),
) -> tuple[Floats, Floats]:
    """Return the running p against no difference and against the margin, [..., looks]."""
    before = np.asarray(seen, dtype=float)
    block = np.diff(looks, prepend=len(before)).astype(float)
    shape = (*true.shape, len(looks))
    means = true[..., None] + sd[..., None] * rng.normal(size=shape) / np.sqrt(block)
    within = np.where(block > 1, rng.chisquare(np.maximum(block - 1, 1), size=shape), 0.0)
    sums = (block * means).cumsum(axis=-1)
    squares = (sd[..., None] ** 2 * within + block * means**2).cumsum(axis=-1)
    sums, squares = sums + before.sum(), squares + (before**2).sum()
    n = looks.astype(float)
    mean = sums / n
    variance = np.maximum((squares - n * mean**2) / np.maximum(n - 1, 1), rule.floor**2)
    open_looks = n >= (2 if rule.planned else rule.first_look)
    if rule.planned:
        from scipy.special import stdtr

        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(open_looks, np.sqrt(variance / n), np.inf)
        degrees = np.maximum(n - 1, 1)
        p = np.where(open_looks, 2 * stdtr(degrees, -np.abs(mean) / error), 1.0)
        if rule.margin is None:
            return p, np.ones_like(p)
        outside = 2 * stdtr(degrees, (np.abs(mean) - rule.margin) / error)
        return p, np.where(n >= FIRST_LOOK, np.minimum(outside, 1.0), 1.0)

    def running(null: float, counts: npt.NDArray[np.bool_] | bool = True) -> Floats:
        log_e = np.where(open_looks & counts, log_e_of(n, mean - null, variance), 0.0)
        return np.exp(-np.maximum.accumulate(np.maximum(log_e, 0.0), axis=-1))

    p = running(0.0)
    if rule.margin is None:
        return p, np.ones_like(p)
    inside = running(-rule.margin, mean > -rule.margin), running(rule.margin, mean < rule.margin)
    return p, np.maximum(*inside)


def _quantiles(
    reached: npt.NDArray[np.bool_], looks: npt.NDArray[np.int64], have: int
) -> SeedsNeeded:
    """Return after how many seeds the shares of paths, [paths, looks], are decided."""
    shares = reached.mean(axis=0)
    ends = [
        int(looks[(shares >= q).argmax()]) - have if (shares >= q).any() else CAP + 1
        for q in QUANTILES
    ]
    return SeedsNeeded(*(min(end, CAP + 1) for end in ends))

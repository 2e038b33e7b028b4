"""Evidence that may be looked at after every pair: an e-process, its p and its interval.

The t-mixture e-process (Lai 1976; Gönen et al. 2005; Wang and Ramdas 2025, "Anytime-valid t-tests
and confidence sequences for Gaussian means with unknown variance"): the likelihood of Student's t
under a normal prior on the standardised difference, over that under no difference. Were there
none, it would ever reach 1 / alpha with a probability of at most alpha, however long and by
whatever plan one looks: exactly so for normal differences, and by simulation about so for the
others that `docs/statistics.md` lists.

Arrays are differences, shape [..., pairs], in the order in which the pairs came; results have a
number per look, shape [..., pairs]: what the first 1, 2, ... pairs tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.question import FIRST_LOOK
from groupnorm_bench.compare.stats import Floats

PRIOR_VARIANCE = 2.0
"""Of the standardised difference: chosen once, by the table in docs/statistics.md."""


def log_e_values(
    differences: npt.ArrayLike, *, floor: float = 0.0, null: float = 0.0, g: float = PRIOR_VARIANCE
) -> Floats:
    """Return the logarithm of the e-value against a mean of `null`, after each pair.

    Args:
        differences: shape [..., pairs].
        floor: the least standard deviation to reckon with: where results are whole images, a
            spread of none is chance. It only ever lowers the e-value.
        null: the mean that is tested.
        g: variance of the prior on (mean - null) / sd.
    """
    n, mean, variance = moments(differences, floor)
    return log_e_of(n, mean - null, variance, g)


def moments(differences: npt.ArrayLike, floor: float) -> tuple[Floats, Floats, Floats]:
    """Return how many pairs, their mean and their variance (n - 1), floored, after each pair.

    Shifted by the first pair, so that nothing is lost where the spread is tiny beside the mean.
    """
    x = np.asarray(differences, dtype=float)
    start = x[..., :1]
    n = np.arange(1.0, x.shape[-1] + 1)
    sums, squares = (x - start).cumsum(axis=-1), ((x - start) ** 2).cumsum(axis=-1)
    variance = (squares - sums**2 / n) / np.maximum(n - 1, 1)
    return n, sums / n + start, np.maximum(variance, floor**2)


def log_e_of(n: Floats, shift: Floats, variance: Floats, g: float = PRIOR_VARIANCE) -> Floats:
    """Return log E from pairs, mean less the null, and variance; 0 for a single pair."""
    with np.errstate(divide="ignore", invalid="ignore"):
        u = n * shift**2 / variance / np.maximum(n - 1, 1)  # t squared over its degrees of freedom
        u = np.where(shift == 0, 0.0, u)
        # log (1 + u) / (1 + u / (1 + n g)), which for u without end is log (1 + n g)
        gain = np.where(np.isinf(u), np.log1p(n * g), np.log1p(u) - np.log1p(u / (1 + n * g)))
    return np.where(n > 1, (n * gain - np.log1p(n * g)) / 2, 0.0)


def intervals(
    differences: npt.ArrayLike, alpha: float, *, floor: float = 0.0, g: float = PRIOR_VARIANCE
) -> tuple[Floats, Floats]:
    """Return the means that the e-process does not refute, look by look: low and high.

    Unbounded (infinite) where so few pairs cannot refute any mean. The true mean lies in all of
    the looks' intervals at once with a probability of at least 1 - alpha.
    """
    return _intervals_of(*moments(differences, floor), alpha, g)


def _intervals_of(
    n: Floats, mean: Floats, variance: Floats, alpha: float, g: float = PRIOR_VARIANCE
) -> tuple[Floats, Floats]:
    """Return `intervals` from the moments of the pairs."""
    # E(mu) < 1 / alpha where (1 + u) / (1 + u / (1 + n g)) < q, u = n (mean - mu)^2 / (v s^2)
    log_q = np.minimum((np.log1p(n * g) - 2 * math.log(alpha)) / n, 600.0)
    q = np.exp(log_q)
    bounded = (n > 1) & (q < 1 + n * g)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (q - 1) / (1 - q / (1 + n * g))
        half = np.sqrt(u * np.maximum(n - 1, 1) * variance / n)
    half = np.where(bounded, half, np.inf)
    return mean - half, mean + half


@dataclass(frozen=True, slots=True)
class AnytimeNumbers:
    """What the pairs so far say at whatever time one looks."""

    e_value: float
    """At the last look: the evidence against no difference, as odds of a bet."""
    p: float
    """One over the largest e-value so far, from the first look on."""
    low: float | None
    """Of the interval: the intersection over the looks so far; None while unbounded."""
    high: float | None
    p_equal: float | None
    """Against a difference of the margin or more, either way; None without a margin."""


def anytime(
    differences: npt.ArrayLike,
    alpha: float,
    *,
    floor: float = 0.0,
    margin: float | None = None,
    first_look: int = FIRST_LOOK,
) -> AnytimeNumbers:
    """Return the numbers of one contrast, of one pair or more.

    The interval is empty (low above high) where the looks contradict each other.
    """
    x = np.asarray(differences, dtype=float)
    skipped = min(first_look, len(x)) - 1  # before the first look, the last one speaks alone
    n, mean, variance = moments(x, floor)
    log_e = log_e_of(n, mean, variance)
    low, high = _intervals_of(n, mean, variance, alpha)
    lowest, highest = float(low[skipped:].max()), float(high[skipped:].min())
    return AnytimeNumbers(
        e_value=float(np.exp(log_e[-1])),
        p=float(running_p(log_e, first_look)[-1]),
        low=lowest if math.isfinite(lowest) else None,
        high=highest if math.isfinite(highest) else None,
        p_equal=None
        if margin is None
        else float(equality_p(x, margin, floor=floor, first_look=first_look)[-1]),
    )


def running_p(log_e: Floats, first_look: int = FIRST_LOOK) -> Floats:
    """Return 1 over the largest e-value so far, after each pair; 1 before the first look."""
    seen = np.where(np.arange(1, log_e.shape[-1] + 1) >= first_look, log_e, 0.0)
    return np.exp(-np.maximum(np.maximum.accumulate(seen, axis=-1), 0.0))


def equality_p(
    differences: npt.ArrayLike,
    margin: float,
    *,
    floor: float = 0.0,
    first_look: int = FIRST_LOOK,
) -> Floats:
    """Return the anytime p against a difference outside the margin, after each pair.

    It is under alpha exactly where the anytime interval for alpha lies inside the margin.
    """
    n, mean, variance = moments(differences, floor)
    above = np.where(mean > -margin, log_e_of(n, mean + margin, variance), 0.0)
    below = np.where(mean < margin, log_e_of(n, mean - margin, variance), 0.0)
    return np.maximum(running_p(above, first_look), running_p(below, first_look))


def fewest_pairs(alpha: float, first_look: int = FIRST_LOOK, g: float = PRIOR_VARIANCE) -> int:
    """Return with how many pairs, at the least, a p of `alpha` can be reached."""
    n = max(first_look, 2)
    while (n - 1) / 2 * math.log1p(n * g) < -math.log(alpha):
        n += 1
    return n


def posterior(
    differences: npt.ArrayLike, margin: float | None, floor: float = 0.0
) -> tuple[float, float | None, float]:
    """Return how probable it is that the mean lies below, inside and above the margin.

    From the posterior of the mean under the usual flat prior: Student's t around the mean seen.
    Without a margin nothing is equal, and the middle one is None. Needs two pairs.
    """
    from scipy.special import stdtr  # as scipy.stats.t has it, which takes a second to import

    n, mean, variance = (numbers[..., -1] for numbers in moments(differences, floor))
    region, error = margin or 0.0, math.sqrt(variance / n)
    if error == 0:
        below, above = float(mean < -region), float(mean > region)
        below, above = (0.5, 0.5) if region == mean == 0 else (below, above)
    else:
        below = float(stdtr(n - 1, (-region - mean) / error))
        above = float(stdtr(n - 1, (mean - region) / error))
    return below, None if margin is None else 1 - below - above, above

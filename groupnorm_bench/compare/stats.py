"""The statistics of one contrast. scipy where it has the method; see `docs/statistics.md`.

Arrays of differences are arm minus baseline, one number per pair, shape [pairs]. Everything
random is drawn from a fixed seed: the same runs give the same verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BOOTSTRAP_PAIRS = 10
"""From this many pairs on, the interval is a bootstrap; below it, Student's t."""
EXACT_PAIRS = 16
"""Up to this many pairs, the sign-flip test tries all 2^n flips."""
FLIPS = 20_000
RESAMPLES = 9_999
IMAGE_RESAMPLES = 2_000
POWER = 0.8
MOST_SEEDS = 100_000
"""A contrast that would need more seeds than this has no number of seeds."""
_SEED = 20180613


def student_interval(differences: Floats, alpha: float) -> tuple[float, float]:
    """Return Student's t interval of the mean difference; needs two pairs or more."""
    n = len(differences)
    half = student_quantile(alpha, n - 1) * float(differences.std(ddof=1)) / math.sqrt(n)
    mean = float(differences.mean())
    return mean - half, mean + half


@lru_cache
def student_quantile(alpha: float, degrees: int) -> float:
    """Return Student's t beyond which alpha / 2 lies; kept, for scipy takes 1 ms to find it."""
    from scipy.stats import t

    return float(t.ppf(1 - alpha / 2, degrees))


def bootstrap_interval(differences: Floats, alpha: float) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval over pairs (Efron 1987)."""
    from scipy.stats import bootstrap

    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    interval = bootstrap(
        (differences,),
        np.mean,
        confidence_level=1 - alpha,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def new_digits_interval(hit_differences: npt.NDArray[Any], alpha: float) -> tuple[float, float]:
    """Return the two-level bootstrap interval, in points, over pairs and over test images.

    Both are drawn anew (Owen 2007's pigeonhole bootstrap, which errs on the wide side). Under ten
    pairs its standard error is used with Student's t, since percentiles of so few are too narrow.

    Args:
        hit_differences: 1 where only the arm was right, -1 where only the baseline was, else 0;
            shape [pairs, test images], two pairs or more.
        alpha: 1 minus the confidence.
    """
    n, num_images = hit_differences.shape
    live = hit_differences[:, hit_differences.any(axis=0)].astype(np.float32)
    rng = np.random.default_rng(_SEED)
    pairs = (rng.multinomial(n, np.full(n, 1 / n), size=IMAGE_RESAMPLES) / n).astype(np.float32)
    draws = rng.integers(0, 2**16, (IMAGE_RESAMPLES, live.shape[1]), dtype=np.uint16)
    images = _poisson_table()[draws]  # how often each image is drawn
    means = 100 * np.einsum("bi,bi->b", pairs @ live, images).astype(np.float64) / num_images
    if n >= BOOTSTRAP_PAIRS:
        low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
        return float(low), float(high)
    mean = 100 * float(hit_differences.mean())
    error = float(means.std()) * math.sqrt(n / (n - 1))
    half = student_quantile(alpha, n - 1) * error
    return mean - half, mean + half


@lru_cache(maxsize=1)
def _poisson_table() -> npt.NDArray[np.float32]:
    """Return 65,536 quantiles of a Poisson of mean 1: looking up is 20 times as fast as drawing."""
    from scipy.stats import poisson

    return poisson.ppf((np.arange(2**16) + 0.5) / 2**16, 1.0).astype(np.float32)


def sign_flip_p(differences: Floats) -> float:
    """Return the two-sided p of the sign-flip test that the mean difference is zero.

    All 2^n flips up to 16 pairs, else 20,000 random ones. scipy's `permutation_test` gives the
    same and takes half a second where this takes a millisecond: the tests hold one to the other.
    """
    seen = abs(differences.sum())
    tolerance = 1e-9 * np.abs(differences).sum()  # equal sums in another order differ by rounding
    if len(differences) > EXACT_PAIRS:
        rng = np.random.default_rng(_SEED)
        signs = 1 - 2 * rng.integers(0, 2, (FLIPS, len(differences)), dtype=np.int8)
        extreme = int((np.abs(signs @ differences) >= seen - tolerance).sum())
        return (extreme + 1) / (FLIPS + 1)  # the flip that was seen is one of them
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= seen - tolerance))


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that `sign_flip_p` can give with n pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_PAIRS else 1 / (FLIPS + 1)


@dataclass(frozen=True, slots=True)
class Welch:
    """Welch's test of two independent samples: arm minus baseline."""

    low: float
    high: float
    p: float


def welch(arm: Floats, baseline: Floats, alpha: float) -> Welch:
    """Return Welch's interval and p; needs two runs or more of each."""
    from scipy.stats import ttest_ind

    difference = float(arm.mean() - baseline.mean())
    if np.ptp(arm) == 0 and np.ptp(baseline) == 0:
        return Welch(difference, difference, 1.0 if difference == 0 else 0.0)
    test = ttest_ind(arm, baseline, equal_var=False)
    interval = test.confidence_interval(1 - alpha)
    return Welch(float(interval.low), float(interval.high), float(test.pvalue))


def mcnemar_p(only_arm: npt.ArrayLike, only_baseline: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the exact McNemar p from the counts of images that one of two runs got right.

    Twice the smaller tail of a binomial with even odds; element by element.
    """
    from scipy.special import bdtr

    a, b = np.asarray(only_arm), np.asarray(only_baseline)
    return np.minimum(1.0, 2 * bdtr(np.minimum(a, b), a + b, 0.5))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values (1979), in the order given; None stays and counts not."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def small_sample_correction(degrees: int) -> float:
    """Return the factor that makes a standardised difference unbiased (Hedges 1981)."""
    return math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees - 1) / 2)) / math.sqrt(
        degrees / 2
    )


def paired_effect_size(differences: Floats) -> float | None:
    """Return mean over sd of the differences, corrected; None under 3 pairs or without spread."""
    n = len(differences)
    if n < 3 or np.ptp(differences) == 0:
        return None
    return float(differences.mean() / differences.std(ddof=1)) * small_sample_correction(n - 1)


def unpaired_effect_size(arm: Floats, baseline: Floats) -> float | None:
    """Return Hedges' g: the difference over the pooled sd, corrected."""
    degrees = len(arm) + len(baseline) - 2
    if min(len(arm), len(baseline)) < 2:
        return None
    squares = ((arm - arm.mean()) ** 2).sum() + ((baseline - baseline.mean()) ** 2).sum()
    if squares == 0:
        return None
    difference = float(arm.mean() - baseline.mean())
    return difference / math.sqrt(squares / degrees) * small_sample_correction(degrees)


def share_above(differences: npt.NDArray[Any]) -> float:
    """Return the share of differences above zero, ties counted half."""
    return float(np.mean(np.sign(differences) + 1) / 2)


def correlation(arm: Floats, baseline: Floats) -> float | None:
    """Return Pearson's correlation over pairs; None under 3 pairs or without spread."""
    if len(arm) < 3 or np.ptp(arm) == 0 or np.ptp(baseline) == 0:
        return None
    return float(np.corrcoef(arm, baseline)[0, 1])


def seeds_for_difference(
    sd: float, difference: float, alpha: float, tests: int = 1, power: float = POWER
) -> int | None:
    """Return how many pairs the sign-flip test needs to show a true difference.

    The power is that of the t-test (noncentral t) at the level that the sign-flip test attains
    with so many pairs and `tests` Holm hurdles before it.

    Returns:
        pairs in all, or None where there would be over 100,000.
    """
    if difference == 0:
        return None
    fewest = fewest_pairs(alpha / tests)
    return _fewest(fewest, lambda n: _t_power(n, sd, difference, alpha / tests) >= power)


def fewest_pairs(alpha: float) -> int:
    """Return the least number of pairs whose sign-flip test can give a p below alpha."""
    return next(n for n in range(2, EXACT_PAIRS + 2) if _attained_level(n, alpha) > 0)


@lru_cache(maxsize=4096)
def _attained_level(n: int, alpha: float) -> float:
    """Return the largest p below alpha that an exact sign-flip test of n pairs can give."""
    if n > EXACT_PAIRS:
        return alpha
    steps = math.ceil(alpha * 2 ** (n - 1)) - 1
    return max(0, steps) / 2 ** (n - 1)


def _t_power(n: int, sd: float, difference: float, alpha: float) -> float:
    from scipy.stats import nct, norm, t

    level = _attained_level(n, alpha)
    if level == 0:
        return 0.0
    if sd == 0:
        return 1.0
    shift = abs(difference) * math.sqrt(n) / sd
    hurdle = float(t.ppf(1 - level / 2, n - 1))
    if n > 1000 or shift > 30:  # there the noncentral t is a normal, and slow
        return float(norm.sf(hurdle - shift))
    other_side = nct.cdf(-hurdle, n - 1, shift) if shift < 3 else 0.0  # scipy: NaN if tiny
    return float(nct.sf(hurdle, n - 1, shift) + other_side)


def seeds_for_equality(
    sd: float, difference: float, margin: float, alpha: float, power: float = POWER
) -> int | None:
    """Return how many pairs it takes for the interval to lie inside the margin.

    Returns:
        pairs in all, or None where the difference is not inside the margin.
    """
    if abs(difference) >= margin:
        return None
    return _fewest(2, lambda n: _equality_power(n, sd, difference, margin, alpha) >= power)


def _equality_power(n: int, sd: float, difference: float, margin: float, alpha: float) -> float:
    """Return how likely Student's interval lies inside the margin, over means and spreads."""
    from scipy.stats import chi2, norm, t

    if sd == 0:
        return 1.0
    error = sd / math.sqrt(n)
    quantiles = (np.arange(200) + 0.5) / 200
    spreads = np.sqrt(chi2.ppf(quantiles, n - 1) / (n - 1))  # seen sd over true sd
    half = t.ppf(1 - alpha / 2, n - 1) * error * spreads
    inside = norm.cdf((margin - difference - half) / error)
    inside += norm.cdf((margin + difference - half) / error) - 1
    return float(np.maximum(inside, 0).mean())


def _fewest(low: int, holds: Callable[[int], bool]) -> int | None:
    """Return the smallest n from `low` on for which `holds`, by doubling and bisection."""
    high = low
    while not holds(high):
        low, high = high, high * 2
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high

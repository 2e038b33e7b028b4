"""The statistics of one contrast. scipy where it has the method; see `docs/statistics.md`.

Arrays of differences are arm minus baseline, one number per pair, shape [pairs]. Everything
random is drawn from a fixed seed: the same runs give the same verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXACT_PAIRS = 16
"""Up to this many pairs, the sign-flip test tries all 2^n flips."""
FLIPS = 20_000
_MANY_PAIRS = 256
_SEED = 20180613


@dataclass(frozen=True, slots=True)
class MeanTest:
    """A mean difference, tested once, after a number of runs that was fixed before."""

    low: float
    high: float
    p: float
    """Two-sided, against no difference."""
    p_equal: float | None = None
    """Against a difference of the margin or more: under alpha where the interval for alpha lies
    inside the margin (two one-sided tests of alpha / 2)."""


def student_t(
    differences: Floats, alpha: float, *, floor: float = 0.0, margin: float | None = None
) -> MeanTest:
    """Return Student's t on paired differences; needs two pairs or more.

    Args:
        differences: shape [pairs].
        alpha: 1 minus the confidence.
        floor: the least standard deviation to reckon with.
        margin: differences inside it count for nothing.
    """
    n = len(differences)
    error = max(float(differences.std(ddof=1)), floor) / math.sqrt(n)
    return _mean_test(float(differences.mean()), error, n - 1, alpha, margin)


def welch(
    arm: Floats,
    baseline: Floats,
    alpha: float,
    *,
    floor: float = 0.0,
    margin: float | None = None,
) -> MeanTest:
    """Return Welch's t on independent runs: arm minus baseline; needs two runs or more of each.

    `floor` is the least standard deviation of a difference, hence of a run times the root of 2.
    """
    parts = [max(float(x.var(ddof=1)), floor**2 / 2) / len(x) for x in (arm, baseline)]
    total = sum(parts)
    squares = [part**2 / (len(x) - 1) for part, x in zip(parts, (arm, baseline), strict=True)]
    degrees = total**2 / sum(squares) if total else float(min(len(arm), len(baseline)) - 1)
    difference = float(arm.mean() - baseline.mean())
    return _mean_test(difference, math.sqrt(total), degrees, alpha, margin)


def _mean_test(
    mean: float, error: float, degrees: float, alpha: float, margin: float | None
) -> MeanTest:
    def tail(distance: float) -> float:
        """Return the p of a mean this far, to one side, from the null."""
        if error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return _student_tail(distance / error, degrees)

    half = student_quantile(alpha, degrees) * error
    return MeanTest(
        low=mean - half,
        high=mean + half,
        p=2 * tail(abs(mean)),
        p_equal=None if margin is None else min(1.0, 2 * tail(margin - abs(mean))),
    )


def _student_tail(t: float, degrees: float) -> float:
    from scipy.special import stdtr

    return float(stdtr(degrees, -t))


@lru_cache
def student_quantile(alpha: float, degrees: float) -> float:
    """Return Student's t beyond which alpha / 2 lies."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - alpha / 2))


def new_digits_interval(hit_differences: npt.NDArray[Any], alpha: float) -> tuple[float, float]:
    """Return an interval, in points, for other digits than these: over pairs and over test images.

    Student's t with the standard error of Owen's pigeonhole bootstrap (2007), which draws pairs and
    images anew and errs on the wide side; its variance has a closed form, so nothing is drawn.

    Args:
        hit_differences: 1 where only the arm was right, -1 where only the baseline was, else 0;
            shape [pairs, test images], two pairs or more.
        alpha: 1 minus the confidence.
    """
    n, num_images = hit_differences.shape
    x = hit_differences.astype(np.float32)
    of_pairs = x.mean(axis=1, dtype=np.float64)
    of_images = x.mean(axis=0, dtype=np.float64)
    mean = float(of_pairs.mean())
    pairs = float(((of_pairs - mean) ** 2).sum()) / n**2
    images = float(((of_images - mean) ** 2).sum()) / num_images**2
    rest = float((x**2).sum(dtype=np.float64)) - n * num_images * mean**2
    rest -= num_images * n**2 * pairs + n * num_images**2 * images
    variance = pairs + images + max(rest, 0.0) / (n * num_images) ** 2
    half = student_quantile(alpha, n - 1) * math.sqrt(variance * n / (n - 1))
    return 100 * (mean - half), 100 * (mean + half)


def sign_flip_p(differences: Floats) -> float:
    """Return the two-sided p of the sign-flip test that the mean difference is zero.

    All 2^n flips up to 16 pairs, else 20,000 random ones; of over 256 pairs eight at a time.
    scipy's `permutation_test` gives the same and takes half a second where this takes a
    millisecond: the tests hold one to the other.
    """
    seen = abs(differences.sum())
    tolerance = 1e-9 * np.abs(differences).sum()  # equal sums in another order differ by rounding
    if len(differences) > EXACT_PAIRS:
        rng = np.random.default_rng(_SEED)
        if len(differences) > _MANY_PAIRS:
            sums = _flipped_by_eights(differences, rng)
        else:
            signs = 1 - 2 * rng.integers(0, 2, (FLIPS, len(differences)), dtype=np.int8)
            sums = signs @ differences
        extreme = int((np.abs(sums) >= seen - tolerance).sum())
        return (extreme + 1) / (FLIPS + 1)  # the flip that was seen is one of them
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= seen - tolerance))


def _flipped_by_eights(differences: Floats, rng: np.random.Generator) -> Floats:
    """Return the sums of `FLIPS` random flips: a random byte gives eight differences their signs.

    The sums of each eight at all 256 bytes are reckoned once, and then only looked up.
    """
    eights = np.zeros((-(-len(differences) // 8), 8))
    eights.flat[: len(differences)] = differences
    signs = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    sums = np.zeros(FLIPS)
    for table in eights @ signs.T:  # [256] of one eight
        sums += table[rng.integers(0, 256, FLIPS, dtype=np.uint8)]
    return sums


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that `sign_flip_p` can give with n pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_PAIRS else 1 / (FLIPS + 1)


def mcnemar_p(only_arm: npt.ArrayLike, only_baseline: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the exact McNemar p from the counts of images that one of two runs got right.

    Twice the smaller tail of a binomial with even odds; element by element.
    """
    from scipy.special import bdtr

    a, b = np.asarray(only_arm), np.asarray(only_baseline)
    return np.minimum(1.0, 2 * bdtr(np.minimum(a, b), a + b, 0.5))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values (1979), in the order given; None stays and counts not."""
    known = [p for p in p_values if p is not None]
    adjusted = iter(holm_adjusted(np.array(known, dtype=float)).tolist())
    return [None if p is None else next(adjusted) for p in p_values]


def holm_adjusted(p_values: Floats, axis: int = -1) -> Floats:
    """Return Holm's adjusted p-values along an axis, the family."""
    p = np.moveaxis(p_values, axis, -1)
    order = p.argsort(axis=-1, kind="stable")
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    steps = np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, steps, -1)
    return np.moveaxis(adjusted, -1, axis)


def small_sample_correction(degrees: int) -> float:
    """Return the factor that makes a standardised difference unbiased (Hedges 1981)."""
    return math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees - 1) / 2)) / math.sqrt(
        degrees / 2
    )


def _has_spread(values: Floats) -> bool:
    """Return whether values differ by more than the rounding of a difference of two of them."""
    return bool(np.ptp(values) > 1e-9 * np.abs(values).max())


def paired_effect_size(differences: Floats) -> float | None:
    """Return mean over sd of the differences, corrected; None under 3 pairs or without spread."""
    n = len(differences)
    if n < 3 or not _has_spread(differences):
        return None
    return float(differences.mean() / differences.std(ddof=1)) * small_sample_correction(n - 1)


def unpaired_effect_size(arm: Floats, baseline: Floats) -> float | None:
    """Return Hedges' g: the difference over the pooled sd, corrected."""
    degrees = len(arm) + len(baseline) - 2
    if min(len(arm), len(baseline)) < 2:
        return None
    if not (_has_spread(arm) or _has_spread(baseline)):
        return None
    squares = ((arm - arm.mean()) ** 2).sum() + ((baseline - baseline.mean()) ** 2).sum()
    difference = float(arm.mean() - baseline.mean())
    return difference / math.sqrt(squares / degrees) * small_sample_correction(degrees)


def share_above(differences: npt.NDArray[Any]) -> float:
    """Return the share of differences above zero, ties counted half."""
    return float(np.mean(np.sign(differences) + 1) / 2)


def share_interval(share: float, n: int, alpha: float) -> tuple[float, float]:
    """Return Wilson's interval (1927) of a share of n pairs, which is never without width."""
    from scipy.special import ndtri

    z2 = float(ndtri(1 - alpha / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def correlation(arm: Floats, baseline: Floats) -> float | None:
    """Return Pearson's correlation over pairs; None under 3 pairs or without spread."""
    if len(arm) < 3 or not (_has_spread(arm) and _has_spread(baseline)):
        return None
    return float(np.corrcoef(arm, baseline)[0, 1])

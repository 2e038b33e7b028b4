"""Every statistic against a second way to the same number."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from groupnorm_bench.compare import stats

DIFFERENCES = [
    np.array([0.3, -0.1, 0.25, 0.4, 0.1, 0.2]),
    np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0]),  # ties in size
    np.array([0.0, 0.0, 0.5, -0.2, 0.1]),  # zeros
    np.random.default_rng(3).normal(0.2, 1.0, 12),
]


@pytest.mark.parametrize("differences", DIFFERENCES, ids=len)
def test_sign_flip_is_brute_force_over_all_flips(differences):
    seen = abs(differences.mean())
    extreme = [
        abs(np.mean(differences * flips)) >= seen - 1e-12
        for flips in itertools.product([1, -1], repeat=len(differences))
    ]
    assert stats.sign_flip_p(differences) == pytest.approx(np.mean(extreme), abs=1e-12)


@pytest.mark.parametrize("differences", DIFFERENCES, ids=len)
def test_sign_flip_is_scipys_exact_permutation_test(differences):
    expected = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert stats.sign_flip_p(differences) == pytest.approx(expected, abs=1e-12)


def test_beyond_16_pairs_the_sampled_test_is_near_the_exact_one_and_repeats():
    differences = np.random.default_rng(8).normal(0.35, 1.0, 17)
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    exact = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-12)
    sampled = stats.sign_flip_p(differences)
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact / stats.FLIPS))
    assert sampled == stats.sign_flip_p(differences)


def test_smallest_p_of_facts_table():
    table = {3: 0.25, 4: 0.125, 5: 0.0625, 6: 0.031, 7: 0.016, 8: 0.0078, 10: 0.0020}
    for n, p in table.items():
        assert stats.smallest_p(n) == pytest.approx(p, rel=0.03)
        assert stats.sign_flip_p(np.arange(1.0, n + 1)) == stats.smallest_p(n)


def test_the_sampled_test_is_scipys():
    differences = np.random.default_rng(9).normal(0.2, 1.0, 30)
    expected = scipy.stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=50_000,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).pvalue
    assert stats.sign_flip_p(differences) == pytest.approx(expected, abs=0.01)


def test_no_sampled_p_is_under_the_smallest():
    assert stats.sign_flip_p(np.arange(1.0, 21.0)) == pytest.approx(stats.smallest_p(20))


def test_all_equal_differences_show_nothing_but_their_sign():
    assert stats.sign_flip_p(np.zeros(8)) == 1.0
    assert stats.sign_flip_p(np.full(8, 0.2)) == pytest.approx(2 / 2**8)
    assert stats.student_interval(np.full(8, 0.2), 0.05) == pytest.approx((0.2, 0.2))
    assert stats.bootstrap_interval(np.full(12, 0.2), 0.05) == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize("differences", DIFFERENCES, ids=len)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_student_interval_is_scipys(differences, alpha):
    expected = scipy.stats.ttest_1samp(differences, 0).confidence_interval(1 - alpha)
    assert stats.student_interval(differences, alpha) == pytest.approx(tuple(expected))


def test_bootstrap_interval_is_bca_by_hand():
    """Efron 1987: z0 from the share of resamples below the mean, a from the jackknife."""
    differences = np.random.default_rng(5).exponential(1.0, 12)
    n, mean = len(differences), differences.mean()
    draws = np.random.default_rng(11).integers(0, n, (200_000, n))
    means = differences[draws].mean(axis=1)
    norm = scipy.stats.norm
    z0 = norm.ppf((np.mean(means < mean) + np.mean(means <= mean)) / 2)
    jackknife = (differences.sum() - differences) / (n - 1)
    bend = jackknife.mean() - jackknife
    a = (bend**3).sum() / (6 * (bend**2).sum() ** 1.5)
    z = z0 + norm.ppf([0.025, 0.975])
    expected = np.quantile(means, norm.cdf(z0 + z / (1 - a * z)))
    found = stats.bootstrap_interval(differences, 0.05)
    assert found == pytest.approx(tuple(expected), abs=0.03 * differences.std())
    assert found == stats.bootstrap_interval(differences, 0.05)


def _hits(rng, n, num_images, share=0.02):
    return rng.choice([-1, 0, 1], p=[share, 1 - 2.5 * share, 1.5 * share], size=(n, num_images))


def test_new_digits_interval_is_brute_force_over_pairs_and_images():
    rng = np.random.default_rng(2)
    differences = _hits(rng, 12, 300)
    means = []
    for _ in range(4000):
        pairs, images = rng.integers(0, 12, 12), rng.integers(0, 300, 300)
        means.append(100 * differences[np.ix_(pairs, images)].mean())
    expected = np.quantile(means, [0.025, 0.975])
    found = stats.new_digits_interval(differences, 0.05)
    assert found == pytest.approx(tuple(expected), abs=0.12)


def test_new_digits_interval_is_wider_than_the_one_for_this_test_set():
    rng = np.random.default_rng(4)
    for n in (5, 9, 10, 20):
        arm_effect = rng.choice([-1, 0, 1], p=[0.03, 0.92, 0.05], size=500)  # shared by all seeds
        differences = np.where(rng.random((n, 500)) < 0.7, arm_effect, 0)
        per_pair = 100 * differences.mean(axis=1)
        inner = stats.student_interval(per_pair, 0.05)
        outer = stats.new_digits_interval(differences, 0.05)
        assert outer[1] - outer[0] > inner[1] - inner[0]
        assert sum(outer) / 2 == pytest.approx(per_pair.mean(), abs=0.3)


def test_new_digits_interval_of_two_equal_arms_is_zero():
    assert stats.new_digits_interval(np.zeros((6, 100), dtype=np.int8), 0.05) == (0.0, 0.0)


def test_welch_is_its_formula():
    a, b = np.array([97.1, 97.5, 96.9, 97.3]), np.array([96.0, 97.9, 96.4, 95.8, 97.0, 96.1])
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    degrees = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    difference, error = a.mean() - b.mean(), math.sqrt(va + vb)
    half = scipy.stats.t.ppf(0.975, degrees) * error
    found = stats.welch(a, b, 0.05)
    assert (found.low, found.high) == pytest.approx((difference - half, difference + half))
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(abs(difference) / error, degrees))


def test_welch_without_any_spread():
    one = np.full(3, 97.0)
    assert stats.welch(one, one, 0.05) == stats.Welch(0.0, 0.0, 1.0)
    assert stats.welch(one + 1, one, 0.05).p == 0.0


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (3, 9), (10, 10), (25, 11)])
def test_mcnemar_is_the_binomial_by_hand(b, c):
    n = b + c
    probability = [math.comb(n, k) / 2**n for k in range(n + 1)]
    expected = sum(p for p in probability if p <= probability[b] * (1 + 1e-9))
    assert stats.mcnemar_p(b, c) == pytest.approx(expected)
    if n:
        assert stats.mcnemar_p([b], [c])[0] == pytest.approx(scipy.stats.binomtest(b, n).pvalue)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert stats.holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5), st.floats(0.01, 0.3))
def test_holm_rejects_what_closed_testing_with_bonferroni_rejects(p_values, alpha):
    """Holm is the closure of Bonferroni: reject i if every family with i in it is rejected."""
    adjusted = stats.holm(p_values)
    n = len(p_values)
    for i in range(n):
        families = [
            family
            for size in range(1, n + 1)
            for family in itertools.combinations(range(n), size)
            if i in family
        ]
        closed = max(min(1.0, len(f) * min(p_values[j] for j in f)) for f in families)
        assert adjusted[i] == pytest.approx(closed)


def test_effect_sizes_are_their_formulas():
    a, b = np.array([5.0, 6.0, 7.0, 9.0]), np.array([4.0, 6.0, 5.0, 6.0])
    # J(m) = gamma(m/2) / (sqrt(m/2) gamma((m-1)/2)); the usual 1 - 3/(4m - 1) is near it
    assert stats.small_sample_correction(6) == pytest.approx(1 - 3 / 23, rel=2e-3)
    d = a - b
    expected = d.mean() / d.std(ddof=1) * stats.small_sample_correction(3)
    assert stats.paired_effect_size(d) == pytest.approx(expected)
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    expected = (a.mean() - b.mean()) / pooled * stats.small_sample_correction(6)
    assert stats.unpaired_effect_size(a, b) == pytest.approx(expected)


def test_corrected_effect_size_is_unbiased():
    rng = np.random.default_rng(0)
    sizes = [stats.paired_effect_size(rng.normal(0.8, 1.0, 5)) for _ in range(20_000)]
    assert np.mean(sizes) == pytest.approx(0.8, abs=0.02)


def test_share_above_counts_ties_half_and_is_mann_whitney():
    assert stats.share_above(np.array([0.1, 0.0, -0.2, 0.3])) == pytest.approx(0.625)
    a, b = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 3.0, 0.0])
    u = scipy.stats.mannwhitneyu(a, b).statistic
    assert stats.share_above(np.subtract.outer(a, b)) == pytest.approx(u / 12)


def test_correlation_is_pandas():
    rng = np.random.default_rng(1)
    a = rng.normal(size=7)
    b = a + rng.normal(size=7)
    assert stats.correlation(a, b) == pytest.approx(pd.Series(a).corr(pd.Series(b)))
    assert stats.correlation(a[:2], b[:2]) is None
    assert stats.correlation(np.full(5, 1.0), rng.normal(size=5)) is None


def test_too_few_or_equal_runs_have_no_effect_size():
    assert stats.paired_effect_size(np.array([0.1, 0.2])) is None
    assert stats.paired_effect_size(np.full(5, 0.1)) is None
    assert stats.unpaired_effect_size(np.ones(1), np.ones(4)) is None
    assert stats.unpaired_effect_size(np.ones(3), np.ones(4)) is None


# sd of a pair, difference, pairs by the normal approximation of facts (paired column: sd of a
# pair is that of a run at correlation 0.5); ours adds about two for the t-distribution
SEEDS = [(0.05, 0.05, 8), (0.08, 0.05, 21), (0.10, 0.05, 32), (0.10, 0.1, 8), (0.15, 0.1, 18)]


@pytest.mark.parametrize(("sd", "difference", "normal"), SEEDS)
def test_seeds_for_a_difference_is_the_normal_count_and_about_two_more(sd, difference, normal):
    found = stats.seeds_for_difference(sd, difference, 0.05)
    assert normal <= found <= normal + 3


def test_seeds_never_promise_what_the_exact_test_cannot_show():
    assert stats.seeds_for_difference(0.01, 10.0, 0.05) == 6
    assert stats.seeds_for_difference(0.0, 10.0, 0.05) == 6
    assert stats.seeds_for_difference(0.01, 10.0, 0.05, tests=7) == 9  # facts: needs nine pairs
    assert stats.fewest_pairs(0.05 / 7) == 9
    assert stats.seeds_for_difference(0.1, 0.0, 0.05) is None
    assert stats.seeds_for_difference(10.0, 0.001, 0.05) is None


def test_seeds_are_steady_in_the_size_of_the_difference():
    found = [
        stats.seeds_for_difference(0.235, d, 0.05, tests=15) for d in np.linspace(0.05, 3, 120)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 10


def test_seeds_for_equality_need_a_difference_inside_the_margin():
    assert stats.seeds_for_equality(0.1, 0.2, 0.2, 0.05) is None
    assert stats.seeds_for_equality(0.0, 0.0, 0.1, 0.05) == 2
    near, far = (stats.seeds_for_equality(0.1, d, 0.1, 0.05) for d in (0.0, 0.08))
    assert near < far


@pytest.mark.parametrize(("n", "difference"), [(6, 0.0), (8, 0.03), (15, -0.05)])
def test_equality_power_is_that_of_simulated_intervals(n, difference):
    seen = np.random.default_rng(n).normal(difference, 0.07, (40_000, n))
    half = scipy.stats.t.ppf(0.975, n - 1) * seen.std(axis=1, ddof=1) / math.sqrt(n)
    inside = np.abs(seen.mean(axis=1)) + half <= 0.1
    found = stats._equality_power(n, 0.07, difference, 0.1, 0.05)
    assert found == pytest.approx(inside.mean(), abs=0.01)


@pytest.mark.parametrize(("n", "difference"), [(8, 0.1), (10, 0.12), (20, 0.05)])
def test_power_is_that_of_simulated_t_tests_at_the_attained_level(n, difference):
    seen = np.random.default_rng(n).normal(difference, 0.1, (40_000, n))
    level = stats._attained_level(n, 0.05)
    assert level == pytest.approx(0.05, rel=0.07)
    found = scipy.stats.ttest_1samp(seen, 0, axis=1).pvalue < level
    assert stats._t_power(n, 0.1, difference, 0.05) == pytest.approx(found.mean(), abs=0.01)

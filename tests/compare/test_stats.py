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

from groupnorm_bench.compare import aggregates, stats

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


def test_sign_flips_by_eights_are_those_one_by_one(monkeypatch):
    """Of 300 pairs, which do not fill their last eight: the same p but for the draw's error."""
    differences = np.random.default_rng(5).normal(0.1, 1.0, 300)
    by_eights = stats.sign_flip_p(differences)
    monkeypatch.setattr(stats, "_MANY_PAIRS", 1_000)
    one_by_one = stats.sign_flip_p(differences)
    error = math.sqrt(one_by_one / stats.FLIPS)
    assert 0.01 < one_by_one < 0.5
    assert by_eights == pytest.approx(one_by_one, abs=5 * error)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.integers(1, 40),
)
def test_who_beats_whom_by_ranks_is_over_all_pairs(a, b, at_once):
    """Ties and resamples included, however few are held at once; to the last digit."""
    rng = np.random.default_rng(0)
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)
    drawn_a, drawn_b = (rng.integers(0, len(x), (7, len(x))) for x in (a, b))
    signs = np.sign(a[drawn_a][..., :, None] - b[drawn_b][..., None, :])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregates, "_AT_ONCE", at_once)
        found = aggregates._wins(a, b, drawn_a, drawn_b)
    assert found.tolist() == ((signs + 1).mean(axis=(-2, -1)) / 2).tolist()


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
    exact = stats.student_t(np.full(8, 0.25), 0.05)
    assert (exact.low, exact.high, exact.p) == (0.25, 0.25, 0.0)
    whole_images = stats.student_t(np.full(8, 0.25), 0.05, floor=0.1)
    half = scipy.stats.t.ppf(0.975, 7) * 0.1 / math.sqrt(8)
    assert (whole_images.low, whole_images.high) == pytest.approx((0.25 - half, 0.25 + half))
    assert whole_images.p == pytest.approx(2 * scipy.stats.t.sf(0.25 * math.sqrt(8) / 0.1, 7))


@pytest.mark.parametrize("differences", DIFFERENCES, ids=len)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_student_t_is_scipys(differences, alpha):
    expected = scipy.stats.ttest_1samp(differences, 0)
    found = stats.student_t(differences, alpha, margin=0.5)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(1 - alpha)))
    assert found.p == pytest.approx(expected.pvalue)
    one_sided = [
        scipy.stats.ttest_1samp(differences, -0.5, alternative="greater").pvalue,
        scipy.stats.ttest_1samp(differences, 0.5, alternative="less").pvalue,
    ]
    assert found.p_equal == pytest.approx(min(1.0, 2 * max(one_sided)))


@pytest.mark.parametrize("differences", DIFFERENCES, ids=len)
def test_equality_is_shown_exactly_where_the_interval_lies_inside_the_margin(differences):
    found = stats.student_t(differences, 0.05)
    edge = max(abs(found.low), abs(found.high))
    assert stats.student_t(differences, 0.05, margin=edge * 1.001).p_equal < 0.05
    assert stats.student_t(differences, 0.05, margin=edge * 0.999).p_equal > 0.05


def _hits(rng, n, num_images, share=0.02):
    return rng.choice([-1, 0, 1], p=[share, 1 - 2.5 * share, 1.5 * share], size=(n, num_images))


def test_new_digits_interval_is_brute_force_over_pairs_and_images():
    rng = np.random.default_rng(2)
    differences = _hits(rng, 12, 300)
    means = []
    for _ in range(4000):
        pairs, images = rng.integers(0, 12, 12), rng.integers(0, 300, 300)
        means.append(100 * differences[np.ix_(pairs, images)].mean())
    half = scipy.stats.t.ppf(0.975, 11) * np.std(means) * math.sqrt(12 / 11)
    mean = 100 * differences.mean()
    found = stats.new_digits_interval(differences, 0.05)
    assert found == pytest.approx((mean - half, mean + half), rel=0.04)


def test_pairs_that_agree_on_a_great_difference_know_it_well():
    # 87 of 100 images, the same in all eight pairs: only the images are a sample
    differences = np.tile(np.repeat([1, 0], [870, 130]), (8, 1))
    low, high = stats.new_digits_interval(differences, 0.05)
    error = 100 * math.sqrt(0.87 * 0.13 / 1000 * 8 / 7)
    assert (high - low) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, 7) * error)


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
    one = np.full(2, 97.0)
    assert stats.welch(one, one, 0.05, floor=0.05).p == 1.0
    # two whole-image results a side that tie are no proof: each may be off by half an image
    tied = stats.welch(one + 0.1, one, 0.05, floor=0.05)
    assert tied.p == pytest.approx(2 * scipy.stats.t.sf(0.1 / 0.05 * math.sqrt(2), 2))
    assert tied.low < 0 < tied.high


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


@pytest.mark.parametrize(("wins", "n"), [(6, 6), (0, 4), (7, 10), (30, 40)])
def test_share_interval_is_scipys_wilson_interval(wins, n):
    expected = scipy.stats.binomtest(wins, n).proportion_ci(0.95, method="wilson")
    assert stats.share_interval(wins / n, n, 0.05) == pytest.approx((expected.low, expected.high))


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
    accuracies = np.array([97.1, 96.3, 98.7, 97.7])
    assert stats.paired_effect_size((accuracies + 0.3) - accuracies) is None  # but for rounding
    assert stats.unpaired_effect_size(np.ones(1), np.ones(4)) is None
    assert stats.unpaired_effect_size(np.ones(3), np.ones(4)) is None

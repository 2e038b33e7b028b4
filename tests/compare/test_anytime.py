"""The e-process: against brute-force integration, at its edges, and over time by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from groupnorm_bench.compare import anytime
from groupnorm_bench.compare.anytime import PRIOR_VARIANCE as G


def t_of(x):
    return x.mean() / x.std(ddof=1) * math.sqrt(len(x))


@pytest.mark.parametrize(("n", "shift"), [(2, 0.0), (3, 1.0), (6, 0.7), (15, -0.4)])
def test_the_e_value_is_a_ratio_of_likelihoods_integrated_by_brute_force(n, shift):
    x = np.random.default_rng(n).normal(shift, 1.0, n)

    def likelihood(delta):
        prior = scipy.stats.norm.pdf(delta, 0, math.sqrt(G))
        return scipy.stats.nct.pdf(t_of(x), n - 1, delta * math.sqrt(n)) * prior

    under_a_difference = scipy.integrate.quad(likelihood, -12, 12, limit=300)[0]
    expected = under_a_difference / scipy.stats.t.pdf(t_of(x), n - 1)
    assert np.exp(anytime.log_e_values(x)[-1]) == pytest.approx(expected, rel=1e-6)


def test_the_e_value_is_the_ratio_of_the_data_s_own_densities():
    """Both integrated over every sd (flat in its logarithm), not by way of Student's t."""
    x = np.array([0.3, 0.9, -0.2, 0.6])

    def density(mean, log_sd):
        sd = math.exp(log_sd)
        squares = ((x - mean) ** 2).sum() / sd**2
        return math.exp(-squares / 2 - len(x) * log_sd)

    null = scipy.integrate.quad(lambda s: density(0.0, s), -4, 5)[0]
    other = scipy.integrate.dblquad(
        lambda delta, s: (
            density(delta * math.exp(s), s) * scipy.stats.norm.pdf(delta, 0, math.sqrt(G))
        ),
        *(-4, 5, -9, 9),
    )[0]
    assert np.exp(anytime.log_e_values(x)[-1]) == pytest.approx(other / null, rel=1e-4)


def test_under_the_null_its_mean_is_one():
    x = np.random.default_rng(7).normal(size=(200_000, 8))
    means = np.exp(anytime.log_e_values(x)).mean(axis=0)
    assert means == pytest.approx(np.ones(8), abs=0.05)


def test_each_look_is_that_of_the_pairs_so_far_and_no_unit_matters():
    x = np.random.default_rng(1).normal(0.5, 1.0, 12)
    path = anytime.log_e_values(x)
    assert path == pytest.approx([anytime.log_e_values(x[:n])[-1] for n in range(1, 13)])
    assert anytime.log_e_values(1e-6 * x) == pytest.approx(path)
    assert anytime.log_e_values(x + 1e3, null=1e3) == pytest.approx(path)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.3])
def test_the_interval_is_where_the_e_value_stays_below_its_hurdle(alpha):
    x = np.random.default_rng(3).normal(0.4, 0.7, 14)
    low, high = anytime.intervals(x, alpha)
    for n in range(2, 15):
        for edge in (low[n - 1], high[n - 1]):
            if math.isfinite(edge):
                at_edge = anytime.log_e_values(x[:n], null=edge)[-1]
                assert np.exp(at_edge) == pytest.approx(1 / alpha)
    bound = [(n - 1) / 2 * math.log1p(n * G) > -math.log(alpha) for n in range(1, 15)]
    assert list(np.isfinite(low)) == bound


def test_a_floor_only_ever_lowers_the_evidence_and_widens_the_interval():
    x = np.random.default_rng(5).normal(0.2, 0.05, 9)
    assert (anytime.log_e_values(x, floor=0.2) <= anytime.log_e_values(x) + 1e-12)[1:].all()
    plain, floored = anytime.anytime(x, 0.05), anytime.anytime(x, 0.05, floor=0.2)
    assert floored.low < plain.low < plain.high < floored.high
    assert anytime.anytime(x, 0.05, floor=1e-9) == plain


def test_differences_without_any_spread():
    same = anytime.anytime(np.full(7, 0.5), 0.05, margin=1.0)
    assert same.e_value == pytest.approx((1 + 7 * G) ** 3)
    assert (same.low, same.high) == pytest.approx((0.5, 0.5))
    none = anytime.anytime(np.zeros(7), 0.05)
    assert (none.e_value, none.p) == pytest.approx(((1 + 7 * G) ** -0.5, 1.0))
    assert anytime.anytime(np.zeros(7), 0.05, floor=0.1, margin=0.2).p_equal < 0.05


def test_before_the_first_look_nothing_is_told_and_the_interval_may_have_no_bound():
    early = anytime.anytime([1.0, 1.1], 0.05)
    assert (early.p, early.low, early.high) == (1.0, None, None)
    x = np.array([1.0, 1.1, 0.9, 1.0, 1.05])
    five = anytime.anytime(x, 0.05)
    assert five.e_value > 20
    assert five.p == 1.0
    assert anytime.anytime(x, 0.05, first_look=5).p == pytest.approx(1 / five.e_value)


def test_p_never_rises_and_the_interval_never_widens_once_looked_at():
    x = np.random.default_rng(12).normal(0.8, 1.0, 40)
    looks = [anytime.anytime(x[:n], 0.05) for n in range(6, 41)]
    assert all(b.p <= a.p for a, b in itertools.pairwise(looks))
    assert all(b.low >= a.low and b.high <= a.high for a, b in itertools.pairwise(looks))


def test_equality_is_shown_exactly_where_the_interval_lies_inside_the_margin():
    rng = np.random.default_rng(4)
    for _ in range(50):
        x = rng.normal(0.05, 0.3, 25)
        found = anytime.anytime(x, 0.05)
        edge = max(abs(found.low), abs(found.high))
        assert anytime.anytime(x, 0.05, margin=edge * 1.001).p_equal < 0.05
        assert anytime.anytime(x, 0.05, margin=edge * 0.999).p_equal > 0.05


def test_fewest_pairs_is_where_a_difference_without_spread_gets_there():
    for alpha in (0.05, 0.05 / 6, 0.05 / 40, 1e-6):
        n = anytime.fewest_pairs(alpha)
        assert anytime.anytime(np.full(n, 0.3), 0.05).p < alpha
        assert n == 6 or anytime.anytime(np.full(n - 1, 0.3), 0.05).p > alpha
    assert anytime.fewest_pairs(0.05 / 30) == 6
    assert anytime.fewest_pairs(0.05 / 31) == 7


def test_the_posterior_is_students_t_around_the_mean():
    x = np.array([0.1, 0.4, 0.2, 0.3, 0.0])
    below, equal, above = anytime.posterior(x, 0.1)
    t = scipy.stats.t(4, loc=x.mean(), scale=scipy.stats.sem(x))
    assert below == pytest.approx(t.cdf(-0.1))
    assert above == pytest.approx(t.sf(0.1))
    assert below + equal + above == pytest.approx(1.0)
    assert anytime.posterior(x, None) == pytest.approx((t.cdf(0), None, t.sf(0)))
    assert anytime.posterior(np.zeros(4), None) == (0.5, None, 0.5)
    assert anytime.posterior(np.full(4, 0.2), None) == (0.0, None, 1.0)


# What the rule promises, by simulation: quick here, the whole table by docs/simulate_verdicts.py
LOOKS = 60


def null_worlds(rng, shape):
    """Differences of equal arms, with the floor that goes with them."""
    normal = rng.normal(size=shape)
    shifts = [rng.random(shape) < 0.04 for _ in range(2)]  # either arm's run ends at chance
    return {
        "normal": (normal, 0.0),
        "coarse": (np.round(0.8 * normal), 0.5),  # in images
        "heteroscedastic": (normal * rng.choice([0.3, 1.0, 3.0], size=shape), 0.0),
        "heavy tails": (rng.standard_t(2, size=shape), 0.0),
        "failing seeds": (normal + 500.0 * (shifts[1] * 1.0 - shifts[0]), 0.0),
        "uniform arms": (rng.uniform(size=shape) - rng.uniform(size=shape), 0.0),
    }


@pytest.mark.parametrize("contrasts", [1, 5])
@pytest.mark.parametrize("world", list(null_worlds(np.random.default_rng(0), (1, 1))))
def test_equal_arms_looked_at_after_every_seed_are_told_apart_in_at_most_5_percent(
    world, contrasts
):
    shape = (2_000, contrasts, LOOKS)
    differences, floor = null_worlds(np.random.default_rng(11), shape)[world]
    p = anytime.running_p(anytime.log_e_values(differences, floor=floor))[..., -1]
    assert (p.min(axis=1) < 0.05 / contrasts).mean() <= 0.05  # Holm's first hurdle


def test_a_bimodal_difference_is_the_one_that_it_is_not_made_for():
    rng = np.random.default_rng(2)
    x = rng.choice([-1.0, 1.0], size=(20_000, LOOKS)) + 0.3 * rng.normal(size=(20_000, LOOKS))
    p = anytime.running_p(anytime.log_e_values(x))[:, -1]
    assert 0.045 < (p < 0.05).mean() < 0.06


def test_the_interval_holds_the_true_mean_at_all_looks_at_once():
    rng = np.random.default_rng(6)
    x = rng.normal(0.3, 1.0, size=(4_000, LOOKS))
    low, high = anytime.intervals(x, 0.05)
    held = ((low <= 0.3) & (high >= 0.3))[:, 3:].all(axis=1)
    assert held.mean() >= 0.95


@pytest.mark.parametrize("contrasts", [1, 5])
def test_a_difference_of_the_margin_is_called_equal_in_at_most_5_percent(contrasts):
    rng = np.random.default_rng(8)
    x = rng.normal(0.5, 1.0, size=(2_000, contrasts, LOOKS))
    p = anytime.equality_p(x, 0.5)[..., -1]
    assert (p.min(axis=1) < 0.05 / contrasts).mean() <= 0.05

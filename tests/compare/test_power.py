"""Seeds to a decision, against a plain simulation that looks after every seed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from groupnorm_bench.compare import anytime
from groupnorm_bench.compare.power import (
    CAP,
    PowerRule,
    further_seeds,
    looks_until,
    seeds_to_decide,
)
from groupnorm_bench.compare.stats import holm


def plainly(rng, difference, sd, contrasts, n=120, paths=400):
    """Return after how many seeds all contrasts of a family are decided, path by path."""
    x = rng.normal(difference, sd, (paths, contrasts, n))
    p = anytime.running_p(anytime.log_e_values(x))
    ends = []
    for path in p:  # [contrasts, looks]
        done = [all(q < 0.05 for q in holm(list(path[:, i]))) for i in range(n)]
        ends.append(done.index(True) + 1 if any(done) else n + 1)
    return np.quantile(ends, [0.1, 0.5, 0.9])


@pytest.mark.parametrize(("d", "contrasts"), [(0.8, 1), (2.0, 1), (1.0, 5), (4.0, 5)])
def test_seeds_to_decide_are_those_of_a_plain_simulation(d, contrasts):
    found = seeds_to_decide(d * 0.3, 0.3, PowerRule(), contrasts=contrasts)["all"]
    expected = plainly(np.random.default_rng(1), d * 0.3, 0.3, contrasts)
    assert (found.low, found.middle, found.high) == pytest.approx(expected, rel=0.12, abs=1)


def test_one_contrast_named_beforehand_is_decided_before_all_are():
    found = seeds_to_decide(0.3, 0.3, PowerRule(), contrasts=5)
    assert found["one"].middle < found["all"].middle
    assert found["one"].middle >= seeds_to_decide(0.3, 0.3, PowerRule())["one"].middle


def test_equal_arms_need_a_margin_to_be_decided():
    assert seeds_to_decide(0.0, 0.3, PowerRule())["one"].middle == CAP + 1
    with_margin = seeds_to_decide(0.0, 0.1, PowerRule(margin=0.1))["one"]
    assert 6 < with_margin.low <= with_margin.middle <= with_margin.high < 60


def test_looks_are_every_seed_at_first_and_then_apart():
    looks = looks_until(CAP, 10)
    assert list(looks[:64]) == list(range(11, 75))
    assert (np.diff(looks) <= 0.05 * (looks[1:] - 10) + 1).all()
    assert looks[-1] >= CAP + 10


def test_further_seeds_hold_what_the_pairs_leave_open():
    rng = np.random.default_rng(5)
    plain = further_seeds(rng.normal(0.0, 1.0, 6) + 1.3, PowerRule())
    assert plain.low <= plain.middle <= plain.high
    assert plain.high > 3 * plain.low  # the difference seen is itself uncertain
    many = rng.normal(size=40)
    sure = further_seeds(many - many.mean() + 0.35, PowerRule())
    assert sure.middle < 60
    assert further_seeds([0.1], PowerRule()) is None
    assert further_seeds([0.1, 0.1], PowerRule()) is None
    assert further_seeds([0.1, 0.1], PowerRule(floor=0.05)) is not None


def test_further_seeds_are_decided_by_as_often_as_they_say():
    """From a flat prior on the mean: worlds are drawn from the posterior of the pairs at hand."""
    rng = np.random.default_rng(3)
    seen = np.array([0.1, 0.3, -0.1, 0.2, 0.25, 0.05, 0.15, -0.05])
    needed = further_seeds(seen, PowerRule())
    ended = []
    for _ in range(400):
        sd = np.sqrt(seen.var(ddof=1) * 7 / rng.chisquare(7))
        mean = seen.mean() + sd * rng.normal() / np.sqrt(8)
        path = np.concatenate([seen, rng.normal(mean, sd, needed.middle)])
        ended.append(anytime.anytime(path, 0.05).p < 0.05)
    assert np.mean(ended) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize(("d", "n"), [(1.0, 10), (0.6, 24)])
def test_the_planned_rule_has_the_power_of_the_t_test(d, n):
    found = seeds_to_decide(d, 1.0, PowerRule(planned=True))["one"]
    shift, hurdle = d * np.sqrt(n), scipy.stats.t.ppf(0.975, n - 1)
    power = scipy.stats.nct.sf(hurdle, n - 1, shift)
    assert found.middle <= n <= found.high + 2
    assert 0.5 < power < 0.95

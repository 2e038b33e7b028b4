"""Our own statistics on trial: false verdicts and power, by simulation of whole comparisons."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from groupnorm_bench.compare import stats
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs
from tests.support.run_folders import row_of

TEST_IMAGES = 10_000


class Laboratory:
    """A table of batch and group-g8 at some settings, whose accuracies can be drawn anew."""

    def __init__(self, n: int, settings: int = 1) -> None:
        self.rows = [
            row_of(arm, 0.9, seed=seed, batch_size=2**k, dataset="mnist")
            for k in range(1, settings + 1)
            for arm in ("batch", "group-g8")
            for seed in range(n)
        ]
        self.shape = (settings, 2, n)
        self.table = RunTable(rows=tuple(self.rows))

    def verdicts(self, rng, sd, gain=0.0, margin=None):
        """Return the verdicts on arms that differ by `gain` points, pairs by sd `sd` points."""
        shared = rng.normal(0, 0.3, (self.shape[0], 1, self.shape[2]))  # what a seed does to both
        points = 98.0 + shared + rng.normal(0, sd / np.sqrt(2), self.shape)
        points[:, 1] += gain
        accuracies = np.round(points / 100 * TEST_IMAGES) / TEST_IMAGES  # whole images: ties
        for row, accuracy in zip(self.rows, accuracies.ravel(), strict=True):
            row.result.summary["test/accuracy"] = float(accuracy)
        return [c.verdict for c in compare_runs(self.table, margin=margin).contrasts]


def share_of(lab, wanted, repeats, seed=1, **world):
    """Return the share of repeats with one of the `wanted` verdicts on any contrast."""
    rng = np.random.default_rng(seed)
    return sum(bool({*wanted} & {*lab.verdicts(rng, **world)}) for _ in range(repeats)) / repeats


FALSE = ("better", "worse")
WIDE = 50.0
"""A margin in points that makes the rest equal, for the number of seeds needed takes longest."""


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 10, 12, 20])
def test_an_arm_against_itself_gives_3_to_7_percent_false_verdicts(n):
    found = share_of(Laboratory(n), FALSE, repeats=1_000, sd=0.15, margin=WIDE)
    assert 0.03 <= found <= 0.07


@pytest.mark.slow
def test_over_a_family_of_five_holm_keeps_false_verdicts_at_alpha():
    found = share_of(Laboratory(10, settings=5), FALSE, repeats=500, sd=0.15, margin=WIDE)
    assert 0.01 <= found <= 0.07


def test_five_pairs_never_give_a_false_verdict_for_they_give_none():
    rng = np.random.default_rng(0)
    lab = Laboratory(5)
    seen = Counter(lab.verdicts(rng, sd=0.15, gain=2.0)[0] for _ in range(20))
    assert set(seen) == {"undecided"}


@pytest.mark.parametrize(
    ("sd", "gain"),
    [
        (0.1, 0.12),  # 8 pairs
        pytest.param(0.15, 0.1, marks=pytest.mark.slow),  # 20 pairs
        pytest.param(0.15, 0.15, marks=pytest.mark.slow),  # 10 pairs: a bootstrap interval
    ],
)
def test_a_known_difference_is_found_with_the_power_that_its_seeds_promise(sd, gain):
    n = stats.seeds_for_difference(sd, gain, 0.05)
    found = share_of(Laboratory(n), ["better"], repeats=400, sd=sd, gain=gain, margin=WIDE)
    assert 0.75 <= found <= 0.92


@pytest.mark.slow
def test_one_seed_fewer_than_promised_has_less_power_where_the_test_is_fine_grained():
    n = stats.seeds_for_difference(0.15, 0.1, 0.05)
    found = share_of(Laboratory(n - 6), ["better"], repeats=400, sd=0.15, gain=0.1, margin=WIDE)
    assert found < 0.76


@pytest.mark.parametrize(
    "sd",
    [0.07, pytest.param(0.15, marks=pytest.mark.slow)],  # 7 and 25 pairs or so
)
def test_equal_arms_are_found_equal_with_the_power_that_their_seeds_promise(sd):
    n = stats.seeds_for_equality(sd, 0.0, 0.1, 0.05)
    found = share_of(Laboratory(n), ["equal"], repeats=400, sd=sd, margin=0.1)
    assert 0.75 <= found <= 0.92

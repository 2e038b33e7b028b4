"""The whole rule on trial: false verdicts over families and looks, lost runs, tuned arms.

Simulated as arrays, by the same functions that verdicts are made of; that whole comparisons of
runs give the same is a test of its own. The large table is by `docs/simulate_verdicts.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

from groupnorm_bench.compare import anytime
from groupnorm_bench.compare.choice import choose
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.stats import holm_adjusted
from groupnorm_bench.compare.verdicts import compare_runs
from tests.support.run_folders import row_of

IMAGES = 10_000
FLOOR = 50 / IMAGES  # in points


def null_families(rng, families, contrasts, seeds, sd=0.15):
    """Return differences in points of equal arms with one baseline, in whole images."""
    arms = rng.normal(98.0, sd / np.sqrt(2), (families, contrasts + 1, seeds))
    arms = np.round(arms / 100 * IMAGES) * 100 / IMAGES
    return arms[:, 1:] - arms[:, :1]


def test_of_1000_null_families_of_five_looked_at_from_4_to_40_seeds_at_most_5_percent_are_false():
    differences = null_families(np.random.default_rng(20), 1_000, 5, 40)
    p = anytime.running_p(anytime.log_e_values(differences, floor=FLOOR))
    adjusted = holm_adjusted(p, axis=1)[:, :, 3:]
    assert (adjusted < 0.05).any(axis=(1, 2)).mean() <= 0.05


def test_whole_comparisons_of_runs_decide_as_the_arrays_do():
    rng = np.random.default_rng(4)
    for gain in (0.0, 0.05, 0.3):
        accuracies = np.round(0.98 + 0.001 * rng.normal(size=(4, 14)) / np.sqrt(2), 4)
        accuracies[1:] = np.round(accuracies[1:] + gain / 100, 4)
        arms = ("batch", "none", "layer", "group-g8")
        rows = [
            row_of(arm, float(accuracies[i, seed]), seed=seed, dataset="mnist")
            for i, arm in enumerate(arms)
            for seed in range(14)
        ]
        contrasts = {c.arm: c for c in compare_runs(RunTable(rows=tuple(rows))).contrasts}
        d = 100 * (accuracies[1:] - accuracies[0])
        p = anytime.running_p(anytime.log_e_values(d, floor=FLOOR))[:, -1]
        found = [contrasts[arm].anytime_p_adjusted for arm in arms[1:]]
        assert found == pytest.approx(list(holm_adjusted(p)), rel=1e-6)
        decided = [contrasts[arm].verdict != "undecided" for arm in arms[1:]]
        assert decided == [q < 0.05 for q in found]


def test_arms_that_lose_seeds_at_random_are_called_different_in_at_most_5_percent():
    """A lost run gives no difference; those left are as good as all, were the arms equal."""
    rng = np.random.default_rng(9)
    differences = null_families(rng, 2_000, 1, 60)[:, 0]
    false = 0
    for path in differences:
        kept = path[rng.random(60) > 0.1]
        false += anytime.anytime(kept, 0.05, floor=FLOOR).p < 0.05
    assert false / len(differences) <= 0.05


def tuned(rng, seeds, tuning):
    """Return a null experiment: one arm has four learning rates to choose from, the other one."""
    rows = [
        row_of(arm, float(np.round(0.98 + 0.0015 * rng.normal(), 4)), seed=s, lr=lr)
        for arm, lrs in (("batch", (0.001,)), ("group-g8", (0.001, 0.002, 0.003, 0.004)))
        for lr in lrs
        for s in range(seeds + tuning)
    ]
    for row in rows:  # validation sees what test sees: the worst case
        row.result.summary["val/accuracy"] = row.result.summary["test/accuracy"]
    return RunTable(rows=tuple(rows))


@pytest.mark.slow
def test_arms_tuned_on_seeds_of_their_own_are_called_better_in_at_most_5_percent():
    rng = np.random.default_rng(3)
    apart, reported = 0, 0
    for _ in range(400):
        table = tuned(rng, seeds=12, tuning=4)
        fair = compare_runs(choose(table, ["lr"], seeds=range(12, 16)), rule="planned")
        apart += fair.contrasts[0].verdict != "undecided"
        flattered = compare_runs(choose(table, ["lr"]), rule="planned")
        reported += flattered.contrasts[0].verdict == "better"
    assert apart / 400 <= 0.08  # 5 % and two standard errors
    assert reported / 400 > 0.06  # what choosing on the seeds that are reported costs

"""Importance: variance shares against a textbook anova by hand, and the forest's bookkeeping."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from groupnorm_bench.compare.importance import (
    GROUPS,
    SEED,
    forest_importance,
    variance_shares,
)
from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.errors import CompareError
from tests.support.run_folders import arms, make_runs, row_of

NORMS = ("none", "batch", "layer")
SIZES = (2, 8, 32)


def factorial(effect, seeds=5, noise=0.002, arms=NORMS, sizes=SIZES):
    """Return rows whose accuracy is 0.9 + effect(arm, size) + noise of the seed."""
    rng = np.random.default_rng(0)
    return [
        row_of(arm, 0.9 + effect(arm, size) + rng.normal(0, noise), batch_size=size, seed=seed)
        for arm, size, seed in itertools.product(arms, sizes, range(seeds))
    ]


def shares_by_pandas(rows):
    """Return the two-way anova's shares, from group means only."""
    frame = pd.DataFrame(
        [(row.norm, row.config.batch_size, row.metric("test/accuracy")) for row in rows],
        columns=["norm", "batch_size", "y"],
    )
    y = frame["y"]
    cell = frame.groupby(["norm", "batch_size"])["y"].transform("mean")
    norm = frame.groupby("norm")["y"].transform("mean")
    size = frame.groupby("batch_size")["y"].transform("mean")
    total = ((y - y.mean()) ** 2).sum()
    return {
        "norm": ((norm - y.mean()) ** 2).sum() / total,
        "batch_size": ((size - y.mean()) ** 2).sum() / total,
        "norm x batch_size": ((cell - norm - size + y.mean()) ** 2).sum() / total,
        SEED: ((y - cell) ** 2).sum() / total,
    }


def test_shares_are_the_anova_by_hand():
    rows = factorial(lambda arm, size: 0.01 * NORMS.index(arm) - 0.02 / size * (arm == "batch"))
    found = variance_shares(rows)
    expected = shares_by_pandas(rows)
    assert {s.source: s.share for s in found.shares} == pytest.approx(expected)
    assert sum(s.share for s in found.shares) == pytest.approx(1.0)
    assert found.balanced
    assert found.notes == ()
    assert [s.degrees for s in found.shares if s.source == SEED] == [36]


def test_intervals_hold_their_share_and_the_residual_stands_last():
    found = variance_shares(factorial(lambda arm, size: 0.01 * NORMS.index(arm)))
    assert found.shares[0].source == "norm"
    assert found.shares[-1].source == SEED
    for share in found.shares[:1]:
        assert share.ci_low < share.share < share.ci_high


def test_without_any_effect_each_source_shows_what_chance_gives():
    found = [
        variance_shares(
            [
                row_of(arm, 0.9 + rng.normal(0, 0.002), batch_size=size, seed=seed)
                for arm, size, seed in itertools.product(NORMS, SIZES, range(4))
            ]
        )
        for rng in map(np.random.default_rng, range(40))
    ]
    for i, source in enumerate(("norm", "batch_size", "norm x batch_size")):
        seen = [next(s for s in f.shares if s.source == source) for f in found]
        mean = np.mean([s.share for s in seen])
        assert mean == pytest.approx(np.mean([s.expected_by_chance for s in seen]), rel=0.5), i


def test_groups_are_nested_in_their_norm():
    effects = {"batch": 0.0, "group-g2": 0.01, "group-g4": 0.02, "group-g8": 0.03}
    rows = factorial(lambda arm, size: effects[arm], arms=effects, noise=1e-5)
    found = {s.source: s for s in variance_shares(rows).shares}
    # norm: 0 against 0.02, one and three arms of four; groups: 0.01 around 0.02
    norm, groups = 0.015**2 + 3 * 0.005**2, 2 * 0.01**2
    assert found["norm"].share == pytest.approx(norm / (norm + groups), abs=1e-3)
    assert found[GROUPS].share == pytest.approx(groups / (norm + groups), abs=1e-3)
    assert found[GROUPS].degrees == 2


def test_only_seeds_that_every_cell_has_count():
    rows = factorial(lambda arm, size: 0.01 * NORMS.index(arm), seeds=4)
    extra = row_of("batch", 0.1, batch_size=2, seed=9)
    lost = row_of("batch", None, batch_size=8, seed=9, status="diverged")
    assert variance_shares([*rows, extra, lost]) == variance_shares(rows)


def test_a_thin_design_says_so():
    found = variance_shares(factorial(lambda arm, size: 0.0, seeds=2))
    assert "too thin: 2 seeds in every cell" in found.notes[0]
    assert found.shares[0].ci_low is None
    one = variance_shares(factorial(lambda arm, size: 0.01 * size, seeds=1))
    assert "too thin: 1 seed in every cell" in one.notes[0]
    assert one.shares[-1].share == 0.0


def test_an_incomplete_design_says_so():
    rows = [r for r in factorial(lambda a, s: 0.0) if (r.norm, r.config.batch_size) != ("batch", 2)]
    found = variance_shares(rows)
    assert not found.balanced
    assert "not every combination" in found.notes[0]
    assert sum(s.share for s in found.shares) == pytest.approx(1.0)


def test_all_equal_runs_have_no_shares():
    found = variance_shares(factorial(lambda arm, size: 0.0, noise=0.0))
    assert [share.share for share in found.shares] == [0.0] * len(found.shares)


def test_too_few_cells_are_refused():
    with pytest.raises(
        CompareError, match=r"^1 cell with 2 finished seeds in common; importance takes"
    ):
        variance_shares([row_of("batch", 0.9, seed=0), row_of("batch", 0.9, seed=1)])
    with pytest.raises(CompareError, match=r"^0 cells with 0 finished seeds"):
        variance_shares([])
    with pytest.raises(CompareError, match="no setting varies"):
        forest_importance([row_of("batch", 0.9, seed=0), row_of("batch", 0.9, seed=1)])


def test_forest_ranks_the_setting_that_matters_first():
    rows = factorial(lambda arm, size: 0.05 * (arm == "batch") + 1e-5 * size)
    found = forest_importance(rows)
    assert found.columns[0].column == "norm=batch"
    assert sum(c.importance for c in found.columns) == pytest.approx(1.0)
    is_batch = [row.norm == "batch" for row in rows]
    values = [row.metric("test/accuracy") for row in rows]
    assert found.columns[0].correlation == pytest.approx(np.corrcoef(is_batch, values)[0, 1])
    assert forest_importance(rows) == found
    assert {c.column for c in found.columns} == {*(f"norm={n}" for n in NORMS), "batch_size"}


def test_forest_of_few_runs_says_it_is_thin():
    rows = factorial(lambda arm, size: 0.01 * size, seeds=1)
    assert "too thin: 9 runs for 4 columns" in forest_importance(rows).notes


def test_runs_without_groups_stay_in_both(tmp_path):
    make_runs(tmp_path, arms=arms(groups=(4, 8)), batch_sizes=(2, 8), seeds=3)
    rows = load_runs([tmp_path]).rows
    assert variance_shares(rows).n_cells == 12
    assert "num_groups" in {c.column for c in forest_importance(rows).columns}

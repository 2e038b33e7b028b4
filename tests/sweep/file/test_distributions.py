"""What a parameter of a search draws, against scipy and by hand; W&B's own word is a slow test."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from groupnorm_bench.sweep.file.distributions import Distribution, read_distribution

SHARES = [0.01, 0.25, 0.5, 0.75, 0.99]
SCIPYS = [
    ({"min": 0.5, "max": 9.5}, stats.uniform(0.5, 9)),
    (
        {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
        stats.loguniform(1e-4, 0.1),
    ),
    ({"distribution": "normal", "mu": 3, "sigma": 0.5}, stats.norm(3, 0.5)),
    (
        {"distribution": "log_normal", "mu": -6, "sigma": 0.5},
        stats.lognorm(0.5, scale=0.0024787521766663585),
    ),
]


def read(given: dict[str, Any]) -> Distribution:
    return read_distribution("x", given, lambda *keys: "f:1")


@pytest.mark.parametrize(("given", "known"), SCIPYS)
def test_quantiles_and_shares_are_scipys(given, known):
    ours = read(given)
    for share in SHARES:
        value = ours.quantile(share)
        assert value == pytest.approx(known.ppf(share))
        assert ours.share_below(value) == pytest.approx(share)
    assert ours.share_below("a") is None
    assert ours.share_below(True) is None


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]}, ["a", "b", "b", "c", "c"]),
        ({"values": [1, 2]}, [1, 1, 2, 2, 2]),
        ({"value": 7}, [7] * 5),
        ({"min": 1, "max": 4}, [1, 2, 3, 4, 4]),
        ({"distribution": "q_uniform", "min": 0, "max": 9, "q": 3}, [0, 3, 6, 6, 9]),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1}, [0.0, 0.2, 0.5, 0.8, 1.0]),
        ({"distribution": "q_normal", "mu": 30, "sigma": 0, "q": 4}, [32] * 5),
        ({"distribution": "q_log_normal", "mu": 0, "sigma": 0, "q": 0.25}, [1.0] * 5),
    ],
)
def test_lists_whole_numbers_and_steps_by_hand(given, values):
    ours = read(given)
    assert [ours.quantile(share) for share in SHARES] == values
    for value in values:
        share = ours.share_below(value)
        assert share is not None
        assert ours.quantile(share) == value
    assert ours.share_below(0.05) is None, "it never gives this"


def test_no_share_is_below_what_a_log_normal_never_gives():
    assert read({"distribution": "log_normal"}).share_below(-1.0) == 0
    assert read({"min": 0.5, "max": 2}).share_below(3) is None


@pytest.mark.parametrize(
    ("given", "points"),
    [
        ({"values": [1, 2]}, [1, 2]),
        ({"min": 2, "max": 4}, [2, 3, 4]),
        ({"distribution": "q_uniform", "min": 1, "max": 10, "q": 3}, [1, 4, 7]),
        ({"distribution": "q_uniform", "min": 0, "max": 0.3, "q": 0.1}, [0.0, 0.1, 0.2]),
        ({"distribution": "normal"}, None),
    ],
)
def test_a_grid_takes_what_can_be_counted(given, points):
    found = read(given).grid_values()
    assert (None if found is None else list(found)) == points

"""What a report draws, against a second way."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.compare.series import (
    confusions,
    curve,
    estimate,
    estimate_last,
    estimate_metric,
    most_missed,
)
from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.config import TrainConfig
from tests.support.run_folders import arms, make_run, make_runs


def test_an_estimate_is_the_mean_with_students_interval():
    values = [97.1, 98.4, 97.7, 98.0]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(97.8)
    assert found.sd == pytest.approx(pd.Series(values).std())
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_one_number_has_no_interval():
    found = estimate([97.0])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, 97.0, None, None, None)


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no number"):
        estimate([])


def test_estimates_and_curves_agree_with_pandas(tmp_path: Path):
    make_runs(tmp_path, arms=[{"norm": "batch"}], seeds=5, epochs=4)
    rows = load_runs([tmp_path]).rows
    history = pd.DataFrame([entry for row in rows for entry in row.history])
    by_epoch = history.groupby("epoch")
    for key, factor in (("val/accuracy", 100), ("train/loss", 1), ("norm/eval_gap", 100)):
        line = curve(rows, key)
        assert line is not None
        assert line.epochs == [1, 2, 3, 4]
        assert line.n == [5] * 4
        mean, sd = by_epoch[key].mean() * factor, by_epoch[key].std() * factor
        assert line.mean == pytest.approx(mean.tolist(), abs=1e-9)
        assert line.low == pytest.approx((mean - sd).tolist(), abs=1e-9)
        assert line.high == pytest.approx((mean + sd).tolist(), abs=1e-9)
    accuracy = estimate_metric(rows, "test/accuracy")
    assert accuracy is not None
    assert accuracy.mean == pytest.approx(
        100 * np.mean([row.result.summary["test/accuracy"] for row in rows]), abs=1e-9
    )
    last = estimate_last(rows, "norm/eval_gap")
    assert last is not None
    assert last.mean == pytest.approx(100 * by_epoch["norm/eval_gap"].mean()[4], abs=1e-9)


def test_a_curve_where_one_run_stopped_early_says_how_many_are_left(tmp_path: Path):
    config = TrainConfig(norm="none", dataset="mnist-5k", epochs=4)
    make_run(tmp_path, config)
    make_run(tmp_path, config.replace(seed=1), status="diverged")
    line = curve(load_runs([tmp_path]).rows, "train/loss")
    assert line is not None
    assert line.n == [2, 1, 1, 1]  # the diverged run's last loss is not a number
    assert line.low[1:] == [None] * 3
    assert all(math.isfinite(value) for value in line.mean)


def test_a_key_that_no_run_has_gives_nothing(tmp_path: Path):
    make_runs(tmp_path, arms=[{"norm": "none"}], seeds=2)
    rows = load_runs([tmp_path]).rows
    assert curve(rows, "norm/eval_gap") is None
    assert estimate_last(rows, "norm/eval_gap") is None
    assert estimate_metric(rows, "no/such") is None


def _write_hits(folder: RunFolder, wrong: list[int]) -> None:
    """Give a run its hits, and the accuracy that goes with them."""
    hits = np.ones(1_000, dtype=bool)
    hits[wrong] = False
    result = folder.read()
    assert result is not None
    folder.write(result.replace(summary=result.summary | {"test/accuracy": float(hits.mean())}))
    folder.write_hits(hits)


def test_the_most_missed_images_weigh_every_arm_the_same(tmp_path: Path):
    group = make_runs(tmp_path, arms=[{"norm": "group"}], seeds=4)
    (batch,) = make_runs(tmp_path, arms=[{"norm": "batch"}], seeds=1)
    for folder in group:
        _write_hits(folder, [7])
    _write_hits(group[0], [7, 11])
    _write_hits(batch, [3, 7])
    found = most_missed(load_runs([tmp_path]).rows)
    assert found is not None
    assert found.runs == {"batch": 1, "group-g8": 4}
    assert [(image.index, image.share) for image in found.images] == [
        (7, 1.0),
        (3, 0.5),  # every run of one of two arms
        (11, 0.125),  # a quarter of the runs of the other
    ]
    assert found.images[2].missed == {"batch": 0, "group-g8": 1}


def test_what_was_taken_for_what_is_told_by_image_and_by_class(tmp_path: Path):
    labels = np.arange(1_000) % 4
    right = np.ones(1_000, dtype=bool)
    folders = make_runs(tmp_path, arms=[{"norm": "batch"}, {"norm": "none"}], seeds=2)
    for folder, wrong in zip(folders, ({1: 3, 5: 3}, {1: 2}, {}, {1: 3}), strict=True):
        hits, read_as = right.copy(), labels.copy()
        hits[list(wrong)] = False
        read_as[list(wrong)] = list(wrong.values())
        result = folder.read()
        assert result is not None
        told = {"test/accuracy": float(hits.mean())}
        folder.write(result.replace(summary=result.summary | told))
        folder.write_hits(hits, read_as)
    rows = load_runs([tmp_path]).rows
    found = most_missed(rows)
    assert found is not None
    assert [(image.index, image.read_as) for image in found.images] == [
        (1, {3: 2, 2: 1}),
        (5, {3: 1}),
    ]
    matrices = confusions(rows, labels.tolist(), 4)
    assert matrices.keys() == {"batch", "none"}
    np.testing.assert_allclose(matrices["batch"][1], [0, 1 - 3 / 500, 1 / 500, 2 / 500])
    np.testing.assert_allclose(matrices["none"][1], [0, 1 - 1 / 500, 0, 1 / 500])
    for matrix in matrices.values():
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
    _write_hits(folders[0], [7])  # one that does not tell, as a run of 0.1.0
    rows = load_runs([tmp_path]).rows
    np.testing.assert_allclose(confusions(rows, labels.tolist(), 4)["batch"][1, 2], 1 / 250)
    hits, read_as = right.copy(), labels.copy()
    hits[7], read_as[7] = False, 9
    folders[1].write_hits(hits, read_as)
    rows = load_runs([tmp_path]).rows
    assert confusions(rows, labels.tolist(), 4).keys() == {"none"}, "9 is no class of this data set"


def test_the_most_missed_images_keep_to_one_data_set_and_to_the_limit(tmp_path: Path):
    make_runs(tmp_path, arms=arms(groups=(8,)), seeds=2)
    make_runs(tmp_path, arms=[{"norm": "batch"}], seeds=1, dataset="mnist")
    found = most_missed(load_runs([tmp_path]).rows, limit=5)
    assert found is not None
    assert found.dataset == "mnist-5k"
    assert len(found.images) == 5


def test_runs_without_hits_have_no_most_missed_images(tmp_path: Path):
    make_runs(tmp_path, arms=[{"norm": "none"}], seeds=2, hits=False)
    assert most_missed(load_runs([tmp_path]).rows) is None

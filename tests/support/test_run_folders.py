"""The synthetic runs that other tests stand on are real run folders."""

from pathlib import Path

import numpy as np

from groupnorm_bench.runs import find_runs
from groupnorm_bench.settings.config import TrainConfig
from tests.support.run_folders import TEST_IMAGES, arms, make_run, make_runs


def test_a_grid_is_read_back_by_find_runs(tmp_path: Path):
    folders = make_runs(tmp_path, arms=arms(groups=(1, 8)), batch_sizes=(2, 8), seeds=2)
    runs, problems = find_runs([tmp_path])
    assert problems == []
    assert {run.folder.path for run in runs} == {folder.path for folder in folders}
    assert len(runs) == 6 * 2 * 2
    for run in runs:
        hits = run.folder.read_hits(TEST_IMAGES[run.result.config.dataset])
        assert hits.mean() == run.result.summary["test/accuracy"]


def test_the_same_call_writes_the_same_run(tmp_path: Path):
    config = TrainConfig(norm="batch", dataset="mnist-5k", epochs=2, seed=3)
    texts = [make_run(tmp_path / name, config).result_path.read_text() for name in "ab"]
    assert texts[0] == texts[1]


def test_a_diverged_run_has_no_test_accuracy(tmp_path: Path):
    config = TrainConfig(norm="none", dataset="mnist-5k", epochs=4)
    folder = make_run(tmp_path, config, status="diverged")
    result = folder.read()
    assert result is not None
    assert result.status == "diverged"
    assert "test/accuracy" not in result.summary
    assert result.history[-1]["train/loss"] is None
    assert not folder.hits_path.exists()


def test_seeds_pair_across_arms(tmp_path: Path):
    make_runs(tmp_path, arms=[{"norm": "none"}, {"norm": "layer"}], seeds=12)
    runs, _ = find_runs([tmp_path])
    by_arm = {
        arm: [
            run.result.summary["test/accuracy"]
            for run in sorted(runs, key=lambda run: run.result.seed)
            if run.result.arm == arm
        ]
        for arm in ("none", "layer")
    }
    assert np.corrcoef(by_arm["none"], by_arm["layer"])[0, 1] > 0.4

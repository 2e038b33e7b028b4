"""What workers share, and what a probe measures: real data, real training, moments long."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groupnorm_bench.config import TrainConfig
from groupnorm_bench.data import load_dataset
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.sweep import estimate
from groupnorm_bench.sweep.executors.shared import shared_dataset


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("mnist-5k", Path())


def config(**changes):
    return TrainConfig(norm="none", dataset="mnist-5k", epochs=1, **changes)


def test_shared_data_are_the_data_and_are_mapped_from_the_file(tmp_path, dataset):
    shared = shared_dataset("mnist-5k", Path(), tmp_path)
    for part in ("train", "val", "test"):
        ours, theirs = getattr(shared, part), getattr(dataset, part)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    assert (shared.name, shared.mean, shared.std) == (dataset.name, dataset.mean, dataset.std)
    assert str(tmp_path / "mnist-5k.pt") in Path("/proc/self/maps").read_text()


def test_the_second_worker_maps_what_the_first_wrote(tmp_path, monkeypatch):
    shared_dataset("mnist-5k", Path(), tmp_path)
    shared_dataset.cache_clear()
    monkeypatch.setattr(
        "groupnorm_bench.sweep.executors.shared.load_dataset",
        lambda *arguments: pytest.fail("loaded a second time"),
    )
    assert len(shared_dataset("mnist-5k", Path(), tmp_path).train) == 3500


def test_an_estimate_grows_with_the_steps(dataset):
    runs = [config(batch_size=64), config(batch_size=64).replace(epochs=4)]
    one, four = estimate.estimate_seconds(runs, {"mnist-5k": dataset})
    fixed = estimate.RUN_SECONDS
    assert one > fixed
    assert 2 < (four - fixed) / (one - fixed) < 4.1


def test_each_norm_and_batch_size_is_probed_once_while_the_budget_lasts(dataset, monkeypatch):
    probed = []

    def probe(run, data):
        probed.append((run.norm, run.batch_size))
        return estimate.Pace(step=run.batch_size / 1000, eval_image=0.0)

    monkeypatch.setattr(estimate, "probe", probe)
    runs = [config(batch_size=size, seed=seed) for seed in range(3) for size in (32, 64)]
    assert len(estimate.estimate_seconds(runs, {"mnist-5k": dataset})) == 6
    assert probed == [("none", 32), ("none", 64)]

    probed.clear()
    monkeypatch.setattr(estimate, "BUDGET_SECONDS", 0.0)
    times = estimate.estimate_seconds(runs, {"mnist-5k": dataset})
    assert probed == [("none", 32)]
    assert times[1] == pytest.approx(54 * 0.032 + estimate.RUN_SECONDS)  # 54 steps of 64 images


def test_a_probe_finds_what_could_not_be_trained(dataset):
    with pytest.raises(ConfigError, match="batch_size=4000 is larger than the training set"):
        estimate.probe(config(batch_size=4000), dataset)

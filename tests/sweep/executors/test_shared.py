"""What workers share, and what a probe measures: real data, real training, moments long."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.fast import compiler
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep import estimate
from groupnorm_bench.sweep.executors.local import devices
from groupnorm_bench.sweep.executors.local.shared import shared_dataset


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
    assert (shared.name, shared.spec) == (dataset.name, dataset.spec)
    assert str(tmp_path / "mnist-5k.pt") in Path("/proc/self/maps").read_text()


def test_the_second_worker_maps_what_the_first_wrote(tmp_path, monkeypatch):
    shared_dataset("mnist-5k", Path(), tmp_path)
    shared_dataset.cache_clear()
    monkeypatch.setattr(
        "groupnorm_bench.sweep.executors.local.shared.load_dataset",
        lambda *arguments: pytest.fail("loaded a second time"),
    )
    assert len(shared_dataset("mnist-5k", Path(), tmp_path).train) == 3500


def test_data_are_shared_where_there_are_no_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    shared_dataset.cache_clear()
    monkeypatch.setattr("groupnorm_bench.sweep.executors.local.shared.fcntl.flock", no_locks)
    assert len(shared_dataset("mnist-5k", Path(), tmp_path).train) == 3500
    assert {path.name for path in tmp_path.iterdir()} == {"mnist-5k.lock", "mnist-5k.pt"}


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


def test_a_probe_compiles_only_for_runs_that_will(dataset, monkeypatch):
    prepared = []
    refused = "compile off: not in a test", False
    monkeypatch.setattr(compiler, "prepare", lambda kinds: prepared.append(True) or refused)
    estimate.probe(config(batch_size=64).replace(max_steps=10), dataset)
    assert prepared == []
    estimate.probe(config(batch_size=64).replace(max_steps=100), dataset)
    assert prepared == [True]


def test_a_probe_finds_what_could_not_be_trained(dataset):
    with pytest.raises(ConfigError, match="batch_size=4000 is larger than the training set"):
        estimate.probe(config(batch_size=4000), dataset)


def test_workers_are_one_per_core_without_a_gpu(monkeypatch):
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    pinned, slots = devices.slots_for("auto", "auto", 3)
    assert pinned == ()
    assert 1 <= slots <= len(os.sched_getaffinity(0))  # fewer where a container's share is smaller
    assert devices.slots_for("cpu", "5", 1) == ((), 5)
    assert devices.slots_for("mps", "auto", 2) == ((), 2)


@pytest.mark.parametrize(("visible", "names"), [(None, ("0", "1")), ("3,5", ("3", "5"))])
def test_workers_are_pinned_to_the_gpus_this_process_may_see(monkeypatch, visible, names):
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.slots_for("auto", "auto", 3) == (names, 6)
    assert devices.slots_for("cuda", "1", 3) == (names, 1)
    assert devices.slots_for("cuda:1", "auto", 3) == ((), 3)

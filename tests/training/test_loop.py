"""The loop on real digits: it learns, repeats itself bit for bit, stops and goes on."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch

from groupnorm_bench import NORMS, TrainConfig, train
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.errors import (
    ConfigError,
    DataError,
    DeviceError,
    TrainingDiverged,
    TrainingStopped,
)
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.training.device import resolve_device
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import Training
from groupnorm_bench.trial import run_trial

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def all_digits() -> Dataset:
    return load_dataset("mnist-5k", Path("unused"))


@pytest.fixture(scope="module")
def digits(all_digits) -> Dataset:
    """The bundled digits with little to evaluate."""
    val, test = (
        Split(part.images[:120], part.labels[:120]) for part in (all_digits.val, all_digits.test)
    )
    return dataclasses.replace(all_digits, val=val, test=test)


def small(**settings: object) -> TrainConfig:
    """A run of 2 epochs of 4 steps of 16 images."""
    return TrainConfig.from_mapping(
        {"dataset": "mnist-5k", "train_limit": 66, "batch_size": 16, "device": "cpu"}
        | ({} if "max_steps" in settings else {"epochs": 2})
        | settings
    )


def losses(history: list[dict[str, float]]) -> list[tuple[float, float]]:
    return [(row["train/loss"], row["val/loss"]) for row in history]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.slow
def test_five_epochs_of_the_bundled_digits_reach_95_per_cent(all_digits):
    outcome = train(TrainConfig(dataset="mnist-5k", device="cpu"), all_digits)
    assert outcome.summary["test/accuracy"] >= 0.95
    assert outcome.test_hits is not None
    assert outcome.summary["test/accuracy"] == outcome.test_hits.mean()
    assert (outcome.summary["val/num_images"], outcome.summary["test/num_images"]) == (500, 1000)
    assert len(outcome.history) == 5
    assert outcome.history[-1]["images_seen"] == 5 * (3500 // 64) * 64


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_lowers_the_loss(norm, digits):
    outcome = train(small(norm=norm, epochs=3), digits)
    assert outcome.history[-1]["train/loss"] < 0.9 * outcome.history[0]["train/loss"]


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine"},
        {"optimizer": "sgd", "lr": 0.01, "schedule": "one-cycle"},
        {"precision": "bf16", "schedule": "one-cycle", "max_steps": 1},
    ],
)
def test_every_optimizer_schedule_and_precision_trains(settings, digits):
    outcome = train(small(**settings), digits)
    assert math.isfinite(outcome.summary["test/loss"])


def test_a_row_and_a_summary_have_the_promised_keys(digits):
    outcome = train(small(norm="batch"), digits)
    assert outcome.history[0].keys() == {
        "epoch", "step", "images_seen", "train/loss", "train/accuracy", "val/loss",
        "val/accuracy", "perf/images_per_second", "perf/train_seconds", "norm/eval_gap",
        "norm/norm1/activation_mean", "norm/norm1/activation_std",
        "norm/norm2/activation_mean", "norm/norm2/activation_std",
    }  # fmt: skip
    assert outcome.summary.keys() == {
        "val/accuracy", "val/accuracy_best", "val/best_epoch", "test/accuracy", "test/loss",
        "train_seconds", "images_per_second", "peak_memory_mb", "status",
        "val/num_images", "test/num_images",
    }  # fmt: skip


def test_the_same_config_gives_the_same_losses_and_weights(digits):
    first, second = train(small(), digits), train(small(), digits)
    assert losses(first.history) == losses(second.history)
    torch.testing.assert_close(weights(first.model), weights(second.model), atol=0, rtol=0)
    assert losses(train(small(seed=1), digits).history) != losses(first.history)


def test_the_same_seed_shows_the_same_images_in_the_same_order_under_every_norm(digits):
    seen = {}
    for norm in ("none", "batch"):
        training = Training(small(norm=norm), digits, CPU)
        batches: list[torch.Tensor] = []
        step = training._train_step
        training._train_step = lambda batch, first, *, check, step=step, batches=batches: (
            batches.append(batch),
            step(batch, first, check=check),
        )[1]
        training.run(Hooks())
        seen[norm] = torch.stack(batches)
    assert torch.equal(seen["none"], seen["batch"])
    assert not torch.equal(seen["none"][:4], seen["none"][4:])  # shuffled anew each epoch


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6])
@pytest.mark.parametrize(
    "settings",
    [{}, {"norm": "batch-renorm", "optimizer": "sgd", "schedule": "one-cycle", "lr": 0.05}],
)
def test_a_stopped_run_goes_on_to_bit_equal_losses_and_weights(stop_at, settings, digits):
    config = small(**settings)
    expected = train(config, digits)
    saved: list[dict[str, object]] = []
    steps: list[int] = []
    hooks = Hooks(
        on_step=lambda step, loss, accuracy: steps.append(step),
        should_stop=lambda: steps[-1] == stop_at,
        save=lambda state, history: saved.append(copy.deepcopy(state)),
    )
    with pytest.raises(TrainingStopped, match=f"stopped at step {stop_at} of 8"):
        train(config, digits, hooks=hooks)
    resumed = train(config, digits, checkpoint=saved[-1])
    assert losses(resumed.history) == losses(expected.history)
    torch.testing.assert_close(weights(resumed.model), weights(expected.model), atol=0, rtol=0)


def test_a_checkpoint_of_another_run_is_refused(digits):
    state = Training(small(), digits, CPU).state()
    with pytest.raises(ValueError, match="belongs to group-g8"):
        Training(small(seed=1), digits, CPU).restore(state)
    with pytest.raises(ValueError, match="does not fit"):
        Training(small(), digits, CPU).restore(state | {"step": 99})


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(digits):
    training = Training(small(), digits, CPU)
    training.model.linear.bias.data.fill_(math.nan)
    before = weights(training.model)
    with pytest.raises(TrainingDiverged, match=r"loss=nan at step 1 of 8; try a lower lr"):
        training.run(Hooks())
    torch.testing.assert_close(weights(training.model), before, atol=0, rtol=0, equal_nan=True)


def test_a_pruned_run_ends_after_its_epoch_and_leaves_the_test_set_sealed(digits):
    outcome = train(small(), digits, hooks=Hooks(should_prune=lambda row: row["epoch"] == 1))
    assert outcome.status == "pruned"
    assert len(outcome.history) == 1
    assert outcome.test_hits is None
    assert "test/accuracy" not in outcome.summary


def test_max_steps_ends_in_the_middle_of_an_epoch(digits):
    outcome = train(small(max_steps=6), digits)
    assert [row["step"] for row in outcome.history] == [4, 6]
    assert outcome.history[-1]["images_seen"] == 6 * 16


def test_schedules_start_and_end_where_they_should(digits):
    for name, first, last in (("constant", 1, 1), ("cosine", 1, 0.1), ("one-cycle", 0.04, 0.2)):
        training = Training(small(schedule=name), digits, CPU)
        rates = []
        step = training._train_step
        training._train_step = lambda batch, at, *, check, step=step, t=training, rates=rates: (
            rates.append(t.optimizer.param_groups[0]["lr"]),
            step(batch, at, check=check),
        )[1]
        training.run(Hooks())
        assert rates[0] == pytest.approx(1e-3 * first)
        assert rates[-1] <= 1e-3 * last + 1e-12
        assert max(rates) == pytest.approx(1e-3, rel=0.15)


def test_what_does_not_fit_the_data_or_the_machine_is_refused(digits):
    with pytest.raises(ConfigError, match="batch_size=200 is larger than the training set of 66"):
        train(small(batch_size=200), digits)
    with pytest.raises(DataError, match="train_limit=5000 is more than the 3,500"):
        train(small(train_limit=5000), digits)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"device='cuda' is not here .* --device auto"):
            resolve_device("cuda")


@pytest.mark.gpu
def test_a_gpu_trains_like_the_processor(digits):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    on_gpu = train(small(device="cuda"), digits)
    on_cpu = train(small(), digits)
    assert on_gpu.history[-1]["train/loss"] == pytest.approx(
        on_cpu.history[-1]["train/loss"], rel=0.02
    )


def test_a_stopped_run_that_is_tracked_leaves_no_traceback_on_the_terminal(digits, tmp_path, capfd):
    options = TrackingOptions(mode="offline")
    with pytest.raises(TrainingStopped, match="stopped at step 1 of 8"):
        run_trial(
            small(),
            runs_dir=tmp_path,
            dataset=digits,
            tracking=options,
            hooks=Hooks(should_stop=lambda: True),
        )
    output = capfd.readouterr()
    assert "Traceback" not in output.err + output.out
    assert len(list(tmp_path.glob("*/wandb/offline-run-*"))) == 1


def test_python_has_the_data_folder_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    config = TrainConfig(max_steps=1, batch_size=16, train_limit=64, device="cpu")
    train(config, hooks=Hooks(say=said.append))
    assert "bundled digits" in said[0]
    assert list(tmp_path.iterdir()) == []  # no ./data

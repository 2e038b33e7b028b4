"""The training loop. It knows nothing of W&B, run folders or terminals: callables carry those."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.datasets.load import load_dataset, resolve_dataset
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.datasets.tensors import Dataset
from groupnorm_bench.errors import ConfigError, TrainingDiverged, TrainingStopped
from groupnorm_bench.metrics import METRICS, PERCENT, EpochRow
from groupnorm_bench.notebooks import Bar
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.augment import Augmentation
from groupnorm_bench.training.build import build_network, noise_seed, order_seed
from groupnorm_bench.training.device import peak_memory_mb, resolve_device
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.optimizers import make_optimizer, make_schedule
from groupnorm_bench.training.order import draw_order
from groupnorm_bench.training.scoring import activations, eval_gap, evaluate
from groupnorm_bench.training.way import Way, choose_way
from groupnorm_bench.wording import count

_WAYS = ("torch", "loops-6", "captured")
_CUDA_CHECK_EVERY = 50
"""Steps between looks at the loss on a GPU, where each look waits for the device."""


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What training leaves: one row an epoch, final numbers, and how each test image fared."""

    status: Literal["finished", "pruned"]
    history: list[EpochRow]
    summary: dict[str, Any]
    test_logits: np.ndarray[Any, Any] | None
    """Float32, shape [test images, classes]; None for a pruned run, whose test set stays sealed."""
    test_hits: np.ndarray[Any, Any] | None
    model: nn.Module = field(repr=False)


def train(
    config: TrainConfig,
    dataset: Dataset | None = None,
    *,
    data_dir: Path | None = None,
    hooks: Hooks | None = None,
    checkpoint: dict[str, Any] | None = None,
) -> TrainOutcome:
    """Train one network and score it once on the test set.

    Args:
        config: the run. With the same config, machine and thread count the result is bit-equal,
            also when a run was stopped and continued from a checkpoint.
        dataset: loaded data, before `train_limit`; loaded from `data_dir` if None.
        data_dir: used only if `dataset` is None; the command line's folder of data sets if None.
        hooks: called while training; a bar where a person watches if None.
        checkpoint: what `hooks.save` was last called with, to go on from there.

    Raises:
        ConfigError: the batch is larger than the training set, or the norm does not fit.
        DataError: the data cannot be had.
        DeviceError: the device is not on this machine.
        TrainingDiverged: the loss became NaN or infinite, in training (the weights are then those
            before that step) or on the validation images.
        TrainingStopped: `hooks.should_stop` said so, after `hooks.save`.
    """
    is_watched = hooks is None
    hooks = hooks or Hooks()
    if dataset is None:
        folder = data_dir or default_data_dir()
        name = resolve_dataset(config.dataset, folder, hooks.say)
        dataset = load_dataset(name, folder)
        config = config.replace(dataset=name)
    device = resolve_device(config.device)
    training = Training(config, dataset, device)
    if checkpoint is not None:
        training.restore(checkpoint)
    with Bar(f"{config.arm}, seed {config.seed}: step", shown=is_watched) as bar:
        return training.run(_with_bar(bar, training.total_steps) if is_watched else hooks)


def _with_bar(bar: Bar, total_steps: int) -> Hooks:
    """Return hooks that show a training's steps and its last validation accuracy."""
    validated = ""

    def on_step(step: int, loss: float, accuracy: float) -> None:
        bar.tell(step, total_steps, validated)

    def on_epoch(row: EpochRow) -> None:
        nonlocal validated
        shown = METRICS["val/accuracy"].text(PERCENT * row["val/accuracy"])
        validated = f"epoch {row['epoch']:.0f}: val/accuracy {shown} %"
        bar.tell(int(row["step"]), total_steps, validated)

    return Hooks(on_step=on_step, on_epoch=on_epoch)


class Training:
    """One training: model, optimizer, schedule, order generator, and how far it came."""

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        dataset = dataset.limited(config.train_limit).to(device)
        self.config, self.data, self.device = config, dataset, device
        if config.batch_size > len(dataset.train):
            raise ConfigError(
                f"batch_size={config.batch_size} is larger than the training set of "
                f"{count(len(dataset.train), 'image')}; set it to at most that"
            )
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.total_steps = config.max_steps or config.epochs * self.steps_per_epoch
        self.epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        network = build_network(config)
        self.model, self.norm_layers = network.model.to(device), network.norm_layers
        self._notes = network.notes
        self._draws = not config.model_spec.norm_channels  # it may have dropout; ours have none
        self._choose_way(config)
        self.optimizer = make_optimizer(config, self.model)
        self.schedule = make_schedule(config, self.optimizer, self.total_steps)
        self.order = torch.Generator().manual_seed(order_seed(config.seed))
        self.epoch_order = self.order.get_state()  # as it stood when this epoch was shuffled
        self.augmented = Augmentation("none", 0, self.order)
        self.step = 0
        self.sums = torch.zeros(2, dtype=torch.float64)  # loss and hits of this epoch, so far
        self.epoch_seconds = 0.0
        self.train_seconds = 0.0
        self.history: list[EpochRow] = []

    def _choose_way(self, config: TrainConfig) -> None:
        images = self.total_steps * config.batch_size
        self.way: Way = choose_way(self.model, config, self.device, images)
        batch = self._batch(torch.arange(config.batch_size, device=self.device))
        self._score_step = self.way.capture(self._score, *batch)

    @property
    def notes(self) -> list[str]:
        """What to tell the user of how steps are computed."""
        return [*self._notes, *self.way.notes]

    def run(self, hooks: Hooks) -> TrainOutcome:
        """Train to the end, then score the test set once; raises as `train` does."""
        for epoch in range(len(self.history) + 1, self.epochs + 1):
            with self._noise(), self.way.context(self.config.batch_size):
                self._train_epoch(epoch, hooks)
            row = self._measure_epoch(epoch)
            self.history.append(row)
            self.epoch_order = self.order.get_state()
            self.sums.zero_()
            self.epoch_seconds = 0.0
            hooks.save(self.state(), self.history)
            hooks.on_epoch(row)
            if epoch < self.epochs and hooks.should_prune(row):
                return TrainOutcome(
                    "pruned", self.history, self.summary("pruned"), None, None, self.model
                )
        loss, logits = evaluate(self.way, self.data, self.data.test)
        hits = (logits.argmax(1) == self.data.test.labels.cpu()).numpy()
        summary = self.summary("finished") | {
            "test/accuracy": float(hits.mean()),
            "test/loss": loss,
            "test/num_images": len(hits),
        }
        return TrainOutcome("finished", self.history, summary, logits.numpy(), hits, self.model)

    def _train_epoch(self, epoch: int, hooks: Hooks) -> None:
        size = self.config.batch_size
        self.order.set_state(self.epoch_order)
        labels = self.data.train.labels
        shuffled = draw_order(self.config.order, labels, size, self.order).to(self.device)
        self.augmented = Augmentation(self.config.augment, len(shuffled), self.order)
        first = self.step - (epoch - 1) * self.steps_per_epoch
        last = min(self.steps_per_epoch, self.total_steps - (epoch - 1) * self.steps_per_epoch)
        on_cpu = self.device.type == "cpu"
        look_every = 1 if on_cpu else _CUDA_CHECK_EVERY
        dtype = torch.float64 if self.device.type != "mps" else None
        # Numbers on a CPU: operations on tensors of one number are felt on a batch of two images.
        sums: Any = self.sums.tolist() if on_cpu else self.sums.to(self.device, dtype)
        self.model.train()
        started = time.perf_counter() - self.epoch_seconds
        for i in range(first, last):
            batch = shuffled[i * size : (i + 1) * size]
            loss, hits = self._train_step(
                batch, i * size, check=i % look_every == 0 or i == last - 1
            )
            sums[0] += loss.item() if on_cpu else loss
            sums[1] += hits.item() if on_cpu else hits
            self.step += 1
            if (i + 1) % look_every == 0 or i == last - 1:
                mean_loss, mean_hits = (float(total) / (i + 1) for total in sums)
                hooks.on_step(self.step, mean_loss, mean_hits / size)
                if hooks.should_stop():
                    self.sums[0], self.sums[1] = sums
                    self.epoch_seconds = time.perf_counter() - started
                    hooks.save(self.state(), self.history)
                    raise TrainingStopped(f"stopped at step {self.step} of {self.total_steps}")
        self.sums[0], self.sums[1] = sums
        self.epoch_seconds = time.perf_counter() - started
        self.train_seconds += self.epoch_seconds

    @contextlib.contextmanager
    def _noise(self) -> Iterator[None]:
        """Enter the context in which a network that draws random numbers is trained.

        Each step seeds them anew, so that they are equal in all arms of a seed, and in a run that
        was stopped and continued; outside, torch's generators are left as they were.
        """
        if not self._draws:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(noise_seed(self.config.seed, self.step))
            yield

    def _train_step(self, batch: Tensor, first: int, *, check: bool) -> tuple[Tensor, Tensor]:
        if self._draws:
            torch.manual_seed(noise_seed(self.config.seed, self.step))
        self.optimizer.zero_grad()  # before the forward pass: a CUDA graph reuses their memory
        images, labels = self._batch(batch)
        loss, hits = self._score_step(self.augmented(images, first), labels)
        if check and not math.isfinite(loss.item()):
            raise self._diverged("loss", loss.item(), self.step + 1)
        loss.backward()
        self.optimizer.step()
        if self.schedule is not None and self.step + 1 < self.total_steps:
            self.schedule.step()
        return loss.detach(), hits

    def _batch(self, places: Tensor) -> tuple[Tensor, Tensor]:
        return self.data.train.images[places], self.data.train.labels[places]

    def _score(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of images, as uint8 pixels, and how many of them are read right."""
        logits = self.way.forward(self.data.normalize(images))
        loss = F.cross_entropy(logits.float(), labels)
        return loss, (logits.detach().argmax(1) == labels).sum()

    def _measure_epoch(self, epoch: int) -> EpochRow:
        steps = self.step - (epoch - 1) * self.steps_per_epoch
        images = steps * self.config.batch_size
        loss_sum, hits = self.sums.tolist()
        val_loss, logits = evaluate(self.way, self.data, self.data.val)
        if not math.isfinite(val_loss):  # the last step ruined the weights: no step would notice
            raise self._diverged("val/loss", val_loss, self.step)
        val_hits = (logits.argmax(1) == self.data.val.labels.cpu()).double().mean().item()
        row: EpochRow = {
            "epoch": epoch,
            "step": self.step,
            "images_seen": self.step * self.config.batch_size,
            "train/loss": loss_sum / steps,
            "train/accuracy": hits / images,
            "val/loss": val_loss,
            "val/accuracy": val_hits,
            "perf/images_per_second": images / self.epoch_seconds,
            "perf/train_seconds": self.train_seconds,
        }
        row |= activations(self.way, self.norm_layers, self.data)
        if self.config.norm_spec.has_running_statistics:
            with self._noise():
                row["norm/eval_gap"] = eval_gap(self.way, self.data, self.config.batch_size, logits)
        return row

    def _diverged(self, what: str, value: float, step: int) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what}={value} at step {step} of {self.total_steps}; "
            f"try a lower lr (now {self.config.lr:g}), another norm, or --precision fp32"
        )

    def summary(self, status: str) -> dict[str, Any]:
        """Return the numbers of the epochs so far; there is at least one."""
        best = max(self.history, key=lambda row: row["val/accuracy"])  # the first of equals
        return {
            "val/accuracy": self.history[-1]["val/accuracy"],
            "val/accuracy_best": best["val/accuracy"],
            "val/best_epoch": int(best["epoch"]),
            "val/num_images": len(self.data.val),
            "train_seconds": self.train_seconds,
            "images_per_second": self.history[-1]["images_seen"] / self.train_seconds,
            "peak_memory_mb": peak_memory_mb(self.device),
            "status": status,
        }

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as tensors and plain values."""
        return {
            "cell": self.config.cell,
            "seed": self.config.seed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "epoch_order": self.epoch_order,
            "step": self.step,
            "sums": self.sums.clone(),
            "epoch_seconds": self.epoch_seconds,
            "train_seconds": self.train_seconds,
            "history": self.history,
            "way": self.way.name,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken.

        Raises:
            ValueError: it was taken from another cell or seed, or from steps computed in a way that
                is not to be had now; bits would differ.
        """
        if (state["cell"], state["seed"]) != (self.config.cell, self.config.seed):
            raise ValueError(f"it belongs to {state['cell']} with seed {state['seed']}")
        way = state.get("way", self.way.name)  # older checkpoints do not tell
        if way == "plain" and self.device.type != "cpu":
            way = "torch"  # as 0.1.0 called it
        if way == "torch" and way != self.way.name:
            self._choose_way(self.config.replace(compile="off"))
        if way not in _WAYS:
            raise ValueError(f"its steps were computed as an older gnbench did ({way})")
        if way != self.way.name:
            raise ValueError(f"it was trained with compile on, and here it is {self.notes[-1]}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.epoch_order = state["epoch_order"]
        self.step = state["step"]
        self.sums = state["sums"]
        self.epoch_seconds = state["epoch_seconds"]
        self.train_seconds = state["train_seconds"]
        self.history = list(state["history"])
        done = len(self.history) * self.steps_per_epoch
        if not done <= self.step <= self.total_steps:
            raise ValueError(f"its step {self.step} does not fit its {len(self.history)} epochs")

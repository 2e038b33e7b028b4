"""A run that gnbench trains itself: a network, on a data set, with checkpoints of our own."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import CheckpointError
from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.runs import RunFolder, RunResult, write_atomic
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.run import Tracker
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.trial.attempt import Attempt

if TYPE_CHECKING:
    from groupnorm_bench.datasets.tensors import Dataset
    from groupnorm_bench.training.loop import TrainOutcome


class NetworkAttempt(Attempt):
    """One claimed run folder, its model in training, and its W&B run."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        dataset: Dataset,
        hooks: Hooks,
        previous: RunResult | None,
    ) -> None:
        from groupnorm_bench.training.device import resolve_device
        from groupnorm_bench.training.loop import Training

        device = resolve_device(config.device)
        self.data = dataset
        self.training = Training(config, dataset, device)
        if folder.checkpoint_path.exists():
            self._restore(folder)
        super().__init__(config, folder, hooks, previous, str(device))
        self.result = self.result.replace(history=list(self.history))

    @property
    def history(self) -> list[EpochRow]:
        return self.training.history

    def _restore(self, folder: RunFolder) -> None:
        import torch

        path = folder.checkpoint_path
        try:
            state = torch.load(path, weights_only=True)
            self.training.restore(state)
        except Exception as error:  # torch.load and load_state_dict raise a dozen kinds
            reason = " ".join(str(error).split())[:160]
            if "weights_only" in reason:  # two paragraphs on torch.load's options
                reason = "it is damaged, or holds more than numbers"
            raise CheckpointError(
                f"{path} cannot be continued: {reason}; delete it, or type --force, to start "
                "this run again"
            ) from error

    def begin(self) -> None:
        """Tell what was decided for this machine, and how many steps there are."""
        for line in self.training.notes:
            self.hooks.note(line)
        self.hooks.on_start(self.training.total_steps)

    def _train(self, tracker: Tracker) -> RunResult:
        def on_epoch(row: EpochRow) -> None:
            tracker.log(row)
            self.hooks.on_epoch(row)

        hooks = dataclasses.replace(self.hooks, on_epoch=on_epoch, save=self._save)
        outcome = self.training.run(hooks)
        if outcome.test_hits is not None and outcome.test_logits is not None:
            self.folder.write_hits(outcome.test_hits, outcome.test_logits.argmax(1))
        self._settle(outcome.status, outcome.summary)
        self._report(tracker, outcome)
        return self.result

    def _pruned_summary(self) -> dict[str, Any]:
        return self.training.summary("pruned")

    def _report(self, tracker: Tracker, outcome: TrainOutcome) -> None:
        if outcome.test_logits is not None:
            test = self.data.test
            tracker.log_test(
                test.images.cpu().numpy(),
                test.labels.cpu().numpy(),
                outcome.test_logits,
                self.data.spec.class_names,
            )
        tracker.summarize(outcome.summary)

    def _save(self, state: dict[str, Any], history: list[EpochRow]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.folder.check_claim()
        write_atomic(self.folder.checkpoint_path, buffer.getvalue())
        self.result = self.result.replace(history=list(history))
        self.folder.write(self.result)

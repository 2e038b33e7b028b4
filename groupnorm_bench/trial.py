"""One run end to end: config -> train -> track -> run folder."""

from __future__ import annotations

import dataclasses
import io
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import (
    CheckpointError,
    RunFolderError,
    TrainingDiverged,
    TrainingStopped,
    printable,
)
from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.runs import SETTLED, RunFolder, RunResult, write_atomic
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.run import Tracker, failure_summary, track
from groupnorm_bench.training.hooks import Hooks

if TYPE_CHECKING:
    from groupnorm_bench.datasets.tensors import Dataset
    from groupnorm_bench.training.loop import TrainOutcome


def run_trial(
    config: TrainConfig,
    *,
    runs_dir: Path,
    dataset: Dataset,
    tracking: TrackingOptions | None = None,
    force: bool = False,
    hooks: Hooks | None = None,
) -> RunResult:
    """Train a run and keep it, or return what its folder already holds.

    The folder is claimed while this works, a checkpoint in it is continued, and its
    `result.json` is rewritten after every epoch, with status `interrupted` until the end.

    Args:
        config: the run; its dataset is resolved, not `auto`.
        runs_dir: the folder of run folders.
        dataset: the loaded data set called `config.dataset`.
        tracking: where the run goes on W&B.
        force: train again even if a result is there; the old one is set aside, not deleted.
        hooks: what to call as it goes; `save` is the run folder's and is not read.

    Returns:
        the result, with status `finished`, `pruned` or `diverged`.

    Raises:
        TrainingStopped: `should_stop` said so; the run is `interrupted` and can be continued.
        CheckpointError: the folder's checkpoint is truncated, foreign or of another config.
        RunFolderError: another process works in the folder, or it cannot be written.
        ConfigError, DataError, DeviceError: see `training.train`.
    """
    hooks = hooks or Hooks()
    folder = RunFolder.of(runs_dir, config)
    is_new = not folder.path.exists()
    with folder.claim():
        found = _read_or_set_aside(folder, hooks.say)
        if found is not None and found.status in SETTLED and not force:
            folder.tidy()  # what a kill right after the result left
            return found
        if force:
            folder.set_aside()
            found = None
        try:
            trial = _Trial(config, folder, dataset, hooks, previous=found)
            folder.write(trial.result)
        except BaseException:  # Ctrl-C too
            if is_new:
                folder.remove_empty()
            raise
        for line in trial.training.notes:
            hooks.note(line)
        hooks.on_start(trial.training.total_steps)
        return trial.run(tracking or TrackingOptions())


def _read_or_set_aside(folder: RunFolder, say: Callable[[str], None]) -> RunResult | None:
    """Return the folder's result; one that cannot be read is renamed, and the run starts again."""
    try:
        return folder.read()
    except RunFolderError as error:
        kept = folder.set_aside()
        say(f"{error}; kept as {kept}, training again")
        return None


class _Trial:
    """One claimed run folder, its model in training, and its W&B run."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        dataset: Dataset,
        hooks: Hooks,
        previous: RunResult | None,
    ) -> None:
        from groupnorm_bench.runs import describe_environment
        from groupnorm_bench.training.device import resolve_device
        from groupnorm_bench.training.loop import Training

        device = resolve_device(config.device)
        self.config, self.folder, self.data, self.hooks = config, folder, dataset, hooks
        self.training = Training(config, dataset, device)
        self.previous = previous
        if folder.checkpoint_path.exists():
            self._restore()
        self.result = RunResult(
            config=config,
            status="interrupted",
            history=list(self.training.history),
            environment=describe_environment(str(device)),
            wandb=previous.wandb if previous else {},
        )

    def _restore(self) -> None:
        import torch

        path = self.folder.checkpoint_path
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

    def run(self, options: TrackingOptions) -> RunResult:
        try:
            say, hint = self.hooks.say, self.hooks.note
            with track(
                self.config, self.folder.path, options, say, self.result.wandb, hint
            ) as tracker:
                if tracker.info:
                    self.result = self.result.replace(wandb=tracker.info)
                    self.folder.write(self.result)
                for row in self.result.history:
                    tracker.log(row)
                return self._train_or_tell(tracker)
        except TrainingDiverged as error:
            self._settle("diverged", {"error": printable(str(error))})
            return self.result
        except TrainingStopped:
            raise
        except Exception:  # whatever it is, the folder tells of it
            self._fail(printable(traceback.format_exc()))
            raise

    def _train_or_tell(self, tracker: Tracker) -> RunResult:
        try:
            return self._train(tracker)
        except (TrainingDiverged, TrainingStopped):
            raise
        except Exception as error:  # whatever it is, W&B hears of it
            tracker.summarize(failure_summary(error))
            raise

    def _train(self, tracker: Tracker) -> RunResult:
        def on_epoch(row: EpochRow) -> None:
            tracker.log(row)
            self.hooks.on_epoch(row)

        hooks = dataclasses.replace(self.hooks, on_epoch=on_epoch, save=self._save)
        try:
            outcome = self.training.run(hooks)
        except TrainingDiverged as error:
            tracker.summarize({"status": "diverged", "error": str(error)})
            raise
        except TrainingStopped:
            if self._is_pruned_by_wandb(tracker):
                return self.result
            tracker.summarize({"status": "interrupted"})
            raise
        if outcome.test_hits is not None:
            self.folder.write_hits(outcome.test_hits)
        self._settle(outcome.status, outcome.summary)
        self._report(tracker, outcome)
        return self.result

    def _is_pruned_by_wandb(self, tracker: Tracker) -> bool:
        """Settle a run that the hyperband of a W&B sweep stopped; it has its result."""
        from groupnorm_bench.tracking.agent_run import close_stopped

        if close_stopped(tracker) != "pruned" or not self.training.history:
            return False
        self._settle("pruned", self.training.summary("pruned"))
        tracker.summarize(self.result.summary)
        return True

    def _report(self, tracker: Tracker, outcome: TrainOutcome) -> None:
        if outcome.test_logits is not None:
            test = self.data.test
            tracker.log_test(
                test.images.cpu().numpy(), test.labels.cpu().numpy(), outcome.test_logits
            )
        tracker.summarize(outcome.summary)

    def _save(self, state: dict[str, Any], history: list[EpochRow]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.folder.checkpoint_path, buffer.getvalue())
        self.result = self.result.replace(history=list(history))
        self.folder.write(self.result)

    def _settle(self, status: Any, summary: dict[str, Any]) -> None:
        """Write the final result; the checkpoint goes after it, so that neither is ever missing."""
        result = self.result.replace(
            status=status,
            history=list(self.training.history),
            summary={**summary, "status": status},
        )
        self.folder.write(result)
        self.result = result  # settled only once it is on disk
        for line in self.folder.tidy():
            self.hooks.say(line)

    def _fail(self, text: str) -> None:
        """Record a run that raised; its checkpoint stays, so that it can be tried again.

        One that raised after its result was written stays what it is.
        """
        if self.result.status in SETTLED:
            return
        write_atomic(self.folder.traceback_path, text.encode())
        last = text.strip().splitlines()[-1]
        self.result = self.result.replace(
            status="failed", summary={"status": "failed", "error": last}
        )
        self.folder.write(self.result)

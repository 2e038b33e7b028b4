"""One claimed run folder at work, its W&B run, and the result that both end with."""

from __future__ import annotations

import abc
import traceback
from typing import Any

from groupnorm_bench.errors import TrainingDiverged, TrainingStopped, printable
from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.runs import SETTLED, RunFolder, RunResult, write_atomic
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.run import Tracker, failure_summary, track
from groupnorm_bench.training.hooks import Hooks


class Attempt(abc.ABC):
    """What every way of training a run has: a subclass trains in `_train`."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        hooks: Hooks,
        previous: RunResult | None,
        device: str,
    ) -> None:
        from groupnorm_bench.runs import describe_environment

        self.config, self.folder, self.hooks = config, folder, hooks
        self.result = RunResult(
            config=config,
            status="interrupted",
            environment=describe_environment(device),
            wandb=previous.wandb if previous else {},
        )

    @property
    @abc.abstractmethod
    def history(self) -> list[EpochRow]:
        """The rows so far."""

    @abc.abstractmethod
    def begin(self) -> None:
        """Tell what was decided, and that nothing stands in the training's way."""

    @abc.abstractmethod
    def _train(self, tracker: Tracker) -> RunResult:
        """Train, settle the result and return it."""

    @abc.abstractmethod
    def _pruned_summary(self) -> dict[str, Any]:
        """Return the numbers of a run that hyperband stopped; empty before its first row."""

    def run(self, options: TrackingOptions) -> RunResult:
        """Train, tracked; whatever happens, the folder tells of it."""
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
        except TrainingDiverged as error:
            tracker.summarize({"status": "diverged", "error": str(error)})
            raise
        except TrainingStopped:
            if self._is_pruned_by_wandb(tracker):
                return self.result
            tracker.summarize({"status": "interrupted"})
            raise
        except Exception as error:  # whatever it is, W&B hears of it
            tracker.summarize(failure_summary(error))
            raise

    def _is_pruned_by_wandb(self, tracker: Tracker) -> bool:
        """Settle a run that the hyperband of a W&B sweep stopped; it has its result."""
        from groupnorm_bench.tracking.agent_run import close_stopped

        if close_stopped(tracker) != "pruned" or not self.history:
            return False
        self._settle("pruned", self._pruned_summary())
        tracker.summarize(self.result.summary)
        return True

    def _settle(self, status: Any, summary: dict[str, Any]) -> None:
        """Write the final result; the checkpoint goes after it, so that neither is ever missing."""
        result = self.result.replace(
            status=status,
            history=list(self.history),
            summary={**summary, "status": status},
        )
        self.folder.write(result)
        self.result = result  # settled only once it is on disk
        for line in self.folder.tidy():
            self.hooks.say(line)

    def _fail(self, text: str) -> None:
        """Record a run that raised; its checkpoint stays, so that it can be tried again.

        One that raised after its result was written stays what it is.

        Raises:
            RunFolderError: another process works there now; it tells how the run ends.
        """
        if self.result.status in SETTLED:
            return
        self.folder.check_claim()
        write_atomic(self.folder.traceback_path, text.encode())
        last = text.strip().splitlines()[-1]
        self.result = self.result.replace(
            status="failed",
            history=list(self.history),
            summary={"status": "failed", "error": last},
        )
        self.folder.write(self.result)

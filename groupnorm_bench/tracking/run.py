"""The W&B run of one trial. Training never waits for W&B and never fails because of it.

How the real client behaves, and why each setting below is there: `docs/wandb.md`.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import brief, printable
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.login import resolve_mode
from groupnorm_bench.tracking.options import Mode, Say, TrackingOptions
from groupnorm_bench.tracking.variables import MAX_NAME, RUN_ID, under_agent
from groupnorm_bench.tracking.wire import to_wandb

if TYPE_CHECKING:
    import numpy as np
    import wandb

FINISH_SECONDS = 30
"""How long a finished training waits for its upload; the rest goes up by `gnbench sync`."""
MAX_CONFUSED = 100
"""Classes of a confusion matrix: W&B's charts draw 10,000 rows at most."""
WORST_IMAGES = 25
_MAX_RUN_NAME = 128
"""Characters that W&B takes as the name or the group of a run."""


@dataclass(slots=True)
class Tracker:
    """One W&B run, or none; the first failure of the client turns it into none."""

    say: Say
    run: wandb.Run | None = None
    failed: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    """What `result.json` keeps of it: id, mode, project, entity, url."""

    def log(self, row: dict[str, float]) -> None:
        """Log one epoch's row under its epoch; rows that the server already has are skipped."""
        if self.run is not None and row["epoch"] >= self.run.starting_step:
            run = self.run
            self._guard(lambda: run.log(dict(row), step=int(row["epoch"])))

    def summarize(self, summary: dict[str, Any]) -> None:
        """Set the summary's keys explicitly, whatever was logged last."""
        if self.run is not None:
            run = self.run
            self._guard(lambda: run.summary.update(summary))

    def log_test(
        self,
        images: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        logits: np.ndarray[Any, Any],
        class_names: Sequence[str] = (),
    ) -> None:
        """Log the confusion matrix and the most confidently wrong test images, once.

        Args:
            images: uint8, shape [n, channels, height, width].
            labels: integers, shape [n].
            logits: float32, shape [n, classes].
            class_names: in the order of labels; the labels themselves if there are none.
        """
        if self.run is not None:
            run = self.run

            def log() -> None:
                with _without_pandas():
                    run.log(test_media(images, labels, logits, class_names))

            self._guard(log)

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B's client raises, the training goes on
            self.run, self.failed = None, True
            self.say(f"W&B stopped taking this run ({brief(error)}); gnbench sync completes it")


@contextlib.contextmanager
def _without_pandas() -> Iterator[None]:
    """Keep W&B's client from importing pandas only to see that nothing here is one of its frames.

    What that takes a process: docs/performance.md.
    """
    from wandb import util

    if "pandas" in sys.modules or not getattr(util, "pd_available", False):
        yield
        return
    util.pd_available = False
    try:
        yield
    finally:
        util.pd_available = True


opened: set[str] = set()
"""Ids of the W&B runs that this process has opened."""


def failure_summary(error: BaseException) -> dict[str, str]:
    """Return what W&B is told of a run that raised: its last words and its traceback."""
    lines = traceback.format_exception(error)
    return {"status": "failed", "error": brief(error), "traceback": printable("".join(lines))}


def test_media(
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    logits: np.ndarray[Any, Any],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return the W&B media of a scored test set: a confusion matrix and the worst images.

    Of more than `MAX_CONFUSED` classes the images alone.
    """
    import numpy as np
    import wandb

    shifted = np.exp(logits - logits.max(1, keepdims=True))
    confidence = shifted / shifted.sum(1, keepdims=True)
    predicted = logits.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong, predicted[wrong]], kind="stable")][:WORST_IMAGES]
    names = [printable(name)[:60] for name in class_names] or list(map(str, range(logits.shape[1])))
    media: dict[str, Any] = {
        "test/worst_images": [
            wandb.Image(
                np.moveaxis(images[i], 0, -1),
                caption=f"#{i}: {names[labels[i]]} read as {names[predicted[i]]} "
                f"({confidence[i, predicted[i]]:.0%} sure)",
            )
            for i in worst
        ],
    }
    if len(names) <= MAX_CONFUSED:
        media["test/confusion_matrix"] = wandb.plot.confusion_matrix(
            y_true=labels.tolist(), preds=predicted.tolist(), class_names=names
        )
    return media


@contextlib.contextmanager
def track(
    config: TrainConfig,
    folder: Path,
    options: TrackingOptions,
    say: Say,
    previous: dict[str, Any] | None = None,
    hint: Say | None = None,
) -> Iterator[Tracker]:
    """Open the W&B run of a trial; leaving by an exception marks it failed.

    Args:
        config: the run's settings.
        folder: the run folder; W&B's files go to `wandb/` in it.
        options: mode, project, entity, suite, tags.
        say: called with at most one line when W&B cannot be used as asked.
        previous: `wandb` of the folder's result where the run is being continued.
        hint: called instead of `say` where there is no login, and `auto` was asked for.
    """
    mode = resolve_mode(options.mode, say, hint)
    if mode == "disabled":
        yield Tracker(say)
        return
    run, mode = _start(config, folder, options, mode, say, previous or {})
    if run is None:  # `gnbench sync` may give it what W&B has refused here
        place = {"project": options.project, "entity": options.entity, "url": None}
        lost: dict[str, Any] = {
            "id": secrets.token_hex(4),
            "mode": "offline",
            **place,
            "sweep_id": None,
        }
        yield Tracker(say, info=dict(previous or lost))
        return
    info = {
        "id": run.id,
        "mode": mode,
        "project": run.project,
        "entity": run.entity if mode == "online" else options.entity,
        "url": run.url if mode == "online" else None,
        "sweep_id": run.sweep_id,
    }
    opened.add(run.id)
    tracker = Tracker(say, run, info=info)
    with _closing(run, tracker):
        yield tracker


@contextlib.contextmanager
def _closing(run: wandb.Run, tracker: Tracker) -> Iterator[None]:
    """Finish the run, with exit code 1 if the body raised, or W&B did not take all of it.

    Not by `with run`: on the way out of an exception that prints a traceback, also of Ctrl-C.
    """
    try:
        yield
    except BaseException:  # Ctrl-C too: W&B is told that the run did not end well
        _finish(run, 1, tracker.say)
        raise
    _finish(run, int(tracker.failed), tracker.say)


def _finish(run: wandb.Run, exit_code: int, say: Say) -> None:
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:  # whatever W&B's client raises, the training's outcome stands
        say(f"W&B could not close this run ({brief(error)}); gnbench sync completes it")


def _start(
    config: TrainConfig,
    folder: Path,
    options: TrackingOptions,
    mode: Mode,
    say: Say,
    previous: dict[str, Any],
) -> tuple[wandb.Run | None, Mode]:
    import wandb

    logging.getLogger("wandb").setLevel(logging.CRITICAL)
    run_id = str(previous.get("id") or "") or options.run_id or secrets.token_hex(4)
    if not RUN_ID.fullmatch(run_id):  # a received folder's; it becomes a part of paths
        run_id = secrets.token_hex(4)
    for stale in folder.glob(f"wandb/offline-run-*-{run_id}"):  # its rows are logged again
        shutil.rmtree(stale, ignore_errors=True)

    def init(chosen: Mode, sweep_id: str | None = None) -> wandb.Run:
        return wandb.init(
            mode=chosen,  # type: ignore[arg-type]
            dir=folder,
            id=None if under_agent() else run_id,
            resume="allow" if chosen == "online" else None,
            project=options.project,
            entity=options.entity,
            config=to_wandb(config, options.suite),
            name=(options.name or config.name)[:_MAX_RUN_NAME],
            group=(options.group or _group(config, options))[:_MAX_RUN_NAME],
            job_type=(options.job_type or options.suite)[:MAX_NAME],
            tags=[config.arm[:MAX_NAME], *options.tags],
            settings=_settings(sweep_id),
        )

    if mode == "online" and options.sweep_id is not None and options.sweep_id not in _refused:
        try:
            return init("online", options.sweep_id), "online"
        except wandb.errors.Error as error:
            say(f"W&B takes no run into its sweep ({brief(error)}); see group {options.suite}")
            _refused.add(options.sweep_id)
            run_id = secrets.token_hex(4)  # wandb holds on to the id of a run it could not start
    if mode == "online":
        try:
            return init("online"), "online"
        except wandb.errors.Error as error:
            say(f"W&B: not online ({brief(error)}), keeping the run offline (later: gnbench sync)")
            run_id = secrets.token_hex(4)
    try:
        return init("offline"), "offline"
    except Exception as error:  # its errors have no common base; none may stop a training
        say(f"W&B cannot keep this run ({brief(error)}); its result stays in {folder}")
        return None, "disabled"


def _group(config: TrainConfig, options: TrackingOptions) -> str:
    return options.suite if options.sweep_id in _refused else config.cell


_refused: set[str] = set()
"""Sweeps that did not take a run which W&B's agents had not asked for."""


def _settings(sweep_id: str | None) -> wandb.Settings:
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",  # the terminal is ours
        save_code=False,
        x_save_requirements=False,
        init_timeout=5,
        finish_timeout=FINISH_SECONDS,
        sweep_id=sweep_id,
    )

"""The W&B run of one trial. Training never waits for W&B and never fails because of it.

How the real client behaves, and why each setting below is there: `docs/wandb.md`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.wire import to_wandb

if TYPE_CHECKING:
    import numpy as np
    import wandb

Mode = Literal["auto", "online", "offline", "disabled"]
MODES: tuple[Mode, ...] = ("auto", "online", "offline", "disabled")
DEFAULT_PROJECT = "groupnorm-bench"
START_SECONDS = 10.0
"""All that W&B may delay the start of a training by."""
FINISH_SECONDS = 30
"""How long a finished training waits for its upload; the rest goes up by `gnbench sync`."""
WORST_IMAGES = 25
NO_LOGIN = "no login found"
_ENVIRONMENT_MODES: dict[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """Where a run goes on W&B."""

    mode: Mode = "auto"
    project: str = DEFAULT_PROJECT
    entity: str | None = None
    suite: str = "train"
    """The sweep's name, or `train` for a run of its own; W&B's job type."""
    tags: tuple[str, ...] = ()
    sweep_id: str | None = None
    """A W&B sweep made for runs of our own scheduler. An agent's run learns its own from wandb."""


@dataclass(slots=True)
class Tracker:
    """One W&B run, or none; the first failure of the client turns it into none."""

    say: Say
    run: wandb.Run | None = None
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
    ) -> None:
        """Log the confusion matrix and the most confidently wrong test images, once.

        Args:
            images: uint8, shape [n, channels, height, width].
            labels: integers, shape [n].
            logits: float32, shape [n, classes].
        """
        if self.run is not None:
            run = self.run
            self._guard(lambda: run.log(test_media(images, labels, logits)))

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B's client raises, the training goes on
            self.run = None
            self.say(f"W&B stopped taking this run ({_line(error)}); gnbench sync completes it")


opened: set[str] = set()
"""Ids of the W&B runs that this process has opened."""


def failure_summary(error: BaseException) -> dict[str, str]:
    """Return what W&B is told of a run that raised: its last words and its traceback."""
    lines = traceback.format_exception(error)
    return {"status": "failed", "error": _line(error), "traceback": "".join(lines)}


def test_media(
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    logits: np.ndarray[Any, Any],
) -> dict[str, Any]:
    """Return the W&B media of a scored test set: a confusion matrix and the worst images."""
    import numpy as np
    import wandb

    shifted = np.exp(logits - logits.max(1, keepdims=True))
    confidence = shifted / shifted.sum(1, keepdims=True)
    predicted = logits.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong, predicted[wrong]], kind="stable")][:WORST_IMAGES]
    names = [str(i) for i in range(logits.shape[1])]
    return {
        "test/confusion_matrix": wandb.plot.confusion_matrix(
            y_true=labels.tolist(), preds=predicted.tolist(), class_names=names
        ),
        "test/worst_images": [
            wandb.Image(
                np.moveaxis(images[i], 0, -1),
                caption=f"#{i}: {labels[i]} read as {predicted[i]} "
                f"({confidence[i, predicted[i]]:.0%} sure)",
            )
            for i in worst
        ],
    }


def login_problem(seconds: float = START_SECONDS / 2) -> str | None:
    """Ask W&B whether it takes our key; return None if so, else why not, within `seconds`.

    Without a key nothing is sent and the answer is `NO_LOGIN`. `wandb.init` alone may take 101 s
    to fail, and a login check 11 s, so the check runs in a thread that is left behind when it
    takes too long.
    """
    import wandb

    os.environ.setdefault("WANDB_HTTP_TIMEOUT", "3")  # seconds; read by wandb alone
    os.environ.setdefault("WANDB_SILENT", "true")  # or it tells the terminal who is logged in
    answer: list[str | None] = []

    def ask() -> None:
        try:
            answer.append(None if wandb.login(prompt=False) else NO_LOGIN)
        except Exception as error:  # any failure means: not online now
            answer.append(_line(error))

    thread = threading.Thread(target=ask, daemon=True, name="wandb-login")
    thread.start()
    thread.join(seconds)
    return answer[0] if answer else f"no answer within {seconds:.0f} s"


def resolve_mode(mode: Mode, say: Say) -> Mode:
    """Return the mode that can be had: `auto` is online where a login is found, else offline.

    `auto` obeys WANDB_MODE, as W&B's own client does. A server that cannot be reached makes
    online offline too, with one line.
    """
    asked = os.environ.get("WANDB_MODE", "")
    if mode == "auto" and asked in _ENVIRONMENT_MODES:
        mode = _ENVIRONMENT_MODES[asked]
    if mode in ("offline", "disabled"):
        return mode
    if os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"):
        return "online"  # W&B's agent, which asked for this run, has just talked to W&B
    problem = login_problem()
    if problem is None:
        return "online"
    if problem == NO_LOGIN and mode == "auto":
        say("W&B: no login found, keeping the run offline (wandb login; later: gnbench sync)")
    else:
        say(f"W&B: not online ({problem}), keeping the run offline (later: gnbench sync)")
    return "offline"


@contextlib.contextmanager
def track(
    config: TrainConfig,
    folder: Path,
    options: TrackingOptions,
    say: Say,
    previous: dict[str, Any] | None = None,
) -> Iterator[Tracker]:
    """Open the W&B run of a trial; leaving by an exception marks it failed.

    Args:
        config: the run's settings.
        folder: the run folder; W&B's files go to `wandb/` in it.
        options: mode, project, entity, suite, tags.
        say: called with at most one line when W&B cannot be used as asked.
        previous: `wandb` of the folder's result where the run is being continued.
    """
    mode = resolve_mode(options.mode, say)
    if mode == "disabled":
        yield Tracker(say)
        return
    run, mode = _start(config, folder, options, mode, say, previous or {})
    if run is None:
        yield Tracker(say)
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
    tracker = Tracker(say, run, info)
    with _closing(run, say):
        yield tracker


@contextlib.contextmanager
def _closing(run: wandb.Run, say: Say) -> Iterator[None]:
    """Finish the run, with exit code 1 if the body raised.

    Not by `with run`: on the way out of an exception that prints a traceback, also of Ctrl-C.
    """
    try:
        yield
    except BaseException:
        _finish(run, 1, say)
        raise
    _finish(run, 0, say)


def _finish(run: wandb.Run, exit_code: int, say: Say) -> None:
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:  # whatever W&B's client raises, the training's outcome stands
        say(f"W&B could not close this run ({_line(error)}); gnbench sync completes it")


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
    run_id = previous.get("id") or secrets.token_hex(4)
    for stale in folder.glob(f"wandb/offline-run-*-{run_id}"):  # its rows are logged again
        shutil.rmtree(stale, ignore_errors=True)

    def init(chosen: Mode, sweep_id: str | None = None) -> wandb.Run:
        return wandb.init(
            mode=chosen,  # type: ignore[arg-type]
            dir=folder,
            id=None if os.environ.get("WANDB_RUN_ID") else run_id,
            resume="allow" if chosen == "online" else None,
            project=options.project,
            entity=options.entity,
            config=to_wandb(config, options.suite),
            name=config.name,
            group=options.suite if options.sweep_id in _refused else config.cell,
            job_type=options.suite,
            tags=[config.arm[:64], *options.tags],
            settings=_settings(sweep_id),
        )

    if mode == "online" and options.sweep_id is not None and options.sweep_id not in _refused:
        try:
            return init("online", options.sweep_id), "online"
        except wandb.errors.Error as error:
            say(f"W&B takes no run into its sweep ({_line(error)}); see group {options.suite}")
            _refused.add(options.sweep_id)
            run_id = secrets.token_hex(4)  # wandb holds on to the id of a run it could not start
    if mode == "online":
        try:
            return init("online"), "online"
        except wandb.errors.Error as error:
            say(f"W&B: not online ({_line(error)}), keeping the run offline (later: gnbench sync)")
            run_id = secrets.token_hex(4)
    try:
        return init("offline"), "offline"
    except Exception as error:  # its errors have no common base; none may stop a training
        say(f"W&B cannot keep this run ({_line(error)}); its result stays in {folder}")
        return None, "disabled"


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


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:200]

"""A run that a W&B agent asked for: answered from its folder, stopped, pruned or preempted."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groupnorm_bench.errors import TrackingError
from groupnorm_bench.runs import RunResult
from groupnorm_bench.tracking.bounded import open_api
from groupnorm_bench.tracking.options import Say, TrackingOptions
from groupnorm_bench.tracking.run import failure_summary, opened, track
from groupnorm_bench.tracking.variables import under_agent

if TYPE_CHECKING:
    from groupnorm_bench.tracking.run import Tracker

REUSED = "reused"
StopReason = Literal["stopped", "pruned", "preempted"]


def answer_from_folder(result: RunResult, folder: Path, options: TrackingOptions, say: Say) -> None:
    """Give an agent's run the history and summary of a run trained before, tagged `reused`.

    Args:
        result: a settled run.
        folder: its run folder.
        options: where the run goes.
        say: called with at most one line when W&B cannot be used.
    """
    tagged = dataclasses.replace(options, tags=(*options.tags, REUSED))
    with track(result.config, folder, tagged, say) as tracker:
        for row in result.history:
            tracker.log(row)
        tracker.summarize(result.summary)


def report_failure(error: BaseException) -> None:
    """Make the run that an agent asked for a failed one on W&B, where it failed before tracking.

    Without this, a setting that cannot be built would leave a run that W&B calls crashed, without
    a word of why.
    """
    if not under_agent() or os.environ["WANDB_RUN_ID"] in opened:
        return
    import wandb

    try:
        run = wandb.init(settings=wandb.Settings(silent=True, console="off", init_timeout=5))
        run.summary.update(failure_summary(error))
        run.finish(exit_code=1)
    except (wandb.errors.Error, OSError):  # the error itself matters more, and is told next
        return


def why_stopped(run_id: str) -> StopReason:
    """Ask W&B why this run was told to stop.

    `stopped`: by a person, on its page. `pruned`: by the sweep's `early_terminate`. `preempted`:
    W&B did not ask for it, so the machine is being taken away; also where W&B gives no answer,
    since a run that is handed out again costs less than one that is lost.
    """
    try:
        with open_api() as api:
            sweep = _sweep_with_runs(api)
    except TrackingError:
        return "preempted"
    run = next((run for run in sweep["runs"] if run["name"] == run_id), None)
    if sweep["state"] in ("CANCELED", "CANCELLED"):
        return "stopped"
    if run is None or not (run.get("shouldStop") or run.get("stopped")):
        return "preempted"
    import yaml

    config = yaml.safe_load(sweep["config"]) or {}
    return "pruned" if "early_terminate" in config else "stopped"


def _sweep_with_runs(api: Any) -> dict[str, Any]:
    """Return the sweep as W&B's own agent asks for it: the public API hides `shouldStop`."""
    from wandb.apis.public.sweeps import _sweep_with_runs as ask

    entity = os.environ.get("WANDB_ENTITY")
    project = os.environ.get("WANDB_PROJECT")
    answer: dict[str, Any] = ask(
        api, os.environ["WANDB_SWEEP_ID"], "{}", entity=entity, project=project
    )
    return answer


def close_stopped(tracker: Tracker) -> StopReason | None:
    """Tell W&B how a stopped run of an agent ends; return why it was stopped, None without agent.

    A preempted run is marked so that, having exited with an error, W&B gives it out again.
    """
    if tracker.run is None or not under_agent():
        return None
    reason = why_stopped(tracker.run.id)
    if reason == "preempted":
        tracker.run.mark_preempting()
    return reason

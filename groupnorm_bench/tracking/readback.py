"""W&B's record read back: the runs of a sweep or a project as `RunResult`s."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast, get_args

from groupnorm_bench.errors import ConfigError, TrackingError
from groupnorm_bench.runs import RunResult, Status
from groupnorm_bench.tracking.bounded import open_api
from groupnorm_bench.tracking.login import require_login
from groupnorm_bench.tracking.wire import from_wandb

if TYPE_CHECKING:
    import wandb


def split_path(path: str) -> tuple[str, str, str | None]:
    """Return entity, project and sweep id of `ENTITY/PROJECT[/SWEEP]`.

    Raises:
        TrackingError: it is not of that form.
    """
    parts = path.strip("/").split("/")
    if len(parts) == 4 and parts[2] == "sweeps":
        del parts[2]  # as in the address of a sweep's page
    if len(parts) not in (2, 3) or not all(parts):
        raise TrackingError(
            f"path={path!r} is no W&B path; write ENTITY/PROJECT or ENTITY/PROJECT/SWEEP"
        )
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


def read_wandb(path: str) -> tuple[list[RunResult], list[str]]:
    """Read the runs of a W&B project or sweep, with their full history.

    Args:
        path: `ENTITY/PROJECT` or `ENTITY/PROJECT/SWEEP`.

    Returns:
        the runs, oldest first, and a line for each that gnbench did not make. `wandb` holds
        id, entity, project, url and sweep_id of each.

    Raises:
        TrackingError: W&B refused, could not be reached, or has no such project or sweep.
    """
    entity, project, sweep = split_path(path)
    require_login()
    results: list[RunResult] = []
    problems: list[str] = []
    with open_api() as api:
        if sweep is not None:
            api.sweep(f"{entity}/{project}/{sweep}")  # raises where there is none
        filters = {"sweep": sweep} if sweep else {}
        for run in api.runs(f"{entity}/{project}", filters=filters, lazy=False):
            try:
                results.append(to_result(run))
            except ConfigError as error:
                problems.append(f"{entity}/{project}/{run.id}: {error}; skipped")
    return results, problems


def to_result(run: wandb.apis.public.Run) -> RunResult:
    """Return a W&B run as the result its run folder would hold, less the environment.

    Raises:
        ConfigError: its config is none of ours.
    """
    summary = summary_of(run)
    return RunResult(
        config=from_wandb(run.config),
        status=_status(summary.get("status"), run.state),
        history=rows_of(run),
        summary=summary,
        wandb={
            "id": run.id,
            "mode": "online",
            "entity": run.entity,
            "project": run.project,
            "url": run.url,
            "sweep_id": run.sweep_name,
        },
    )


def _status(told: Any, state: str) -> Status:
    """Return our own status where the run has one, else what W&B's state comes to."""
    if told in get_args(Status):
        return cast(Status, told)
    if state in ("finished", "failed"):
        return cast(Status, state)
    return "interrupted"


def summary_of(run: wandb.apis.public.Run) -> dict[str, Any]:
    """Return the numbers and words of a W&B run's summary."""
    return {key: value for key, value in dict(run.summary).items() if _is_plain(key, value)}


def rows_of(run: wandb.apis.public.Run) -> list[dict[str, float]]:
    """Return one row per epoch; a run that was cut off and synced may hold some of them twice."""
    rows = {row["epoch"]: row for row in map(_plain_row, run.scan_history()) if "epoch" in row}
    return [rows[epoch] for epoch in sorted(rows)]


def _plain_row(row: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if _is_plain(k, v) and not isinstance(v, str)}


def _is_plain(key: str, value: Any) -> bool:
    """Return whether it is a number or a word of ours, not W&B's own or a picture."""
    if key.startswith("_") or isinstance(value, bool):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int | str)

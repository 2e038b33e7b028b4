"""W&B's record read back: the runs of a sweep or a project as `RunResult`s."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from groupnorm_bench.errors import ConfigError, RunFolderError, TrackingError
from groupnorm_bench.runs import WHOLE_NUMBERS, RunResult, Status
from groupnorm_bench.tracking.bounded import open_api
from groupnorm_bench.tracking.login import require_login
from groupnorm_bench.tracking.wire import from_wandb, is_ours

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


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherRun:
    """A W&B run that gnbench did not make."""

    name: str
    path: str
    """`ENTITY/PROJECT/ID`."""
    url: str
    state: str
    values: Mapping[str, Any]
    """Its config and its summary, flat: `model.norm`; what both have is the config's."""


def read_wandb(path: str) -> tuple[list[RunResult], list[str]]:
    """Read the runs of a W&B project or sweep that gnbench made, with their full history.

    Returns:
        the runs, and a line for each that gnbench did not make; see `read_project`.

    Raises:
        TrackingError: see there.
    """
    results, problems, others = read_project(path)
    skipped = [f"{run.path}: gnbench did not make it; skipped" for run in others]
    return results, [*problems, *skipped]


def read_project(path: str) -> tuple[list[RunResult], list[str], list[OtherRun]]:
    """Read the runs of a W&B project or sweep.

    Args:
        path: `ENTITY/PROJECT` or `ENTITY/PROJECT/SWEEP`.

    Returns:
        the runs of gnbench, oldest first, with their full history, `wandb` holding id, entity,
        project, url and sweep_id of each; a line for each of them that cannot be read; and the
        runs that gnbench did not make.

    Raises:
        TrackingError: W&B refused, could not be reached, or has no such project or sweep.
    """
    entity, project, sweep = split_path(path)
    require_login()
    results: list[RunResult] = []
    problems: list[str] = []
    others: list[OtherRun] = []
    with open_api() as api:
        if sweep is not None:
            api.sweep(f"{entity}/{project}/{sweep}")  # raises where there is none
        filters = {"sweep": sweep} if sweep else {}
        for run in api.runs(f"{entity}/{project}", filters=filters, lazy=False):
            at = f"{entity}/{project}/{run.id}"
            if not is_ours(run.config):
                others.append(_other(run, at))
                continue
            try:
                results.append(to_result(run))
            except (ConfigError, RunFolderError) as error:
                problems.append(f"{at}: {error}; skipped")
    return results, problems, others


def _other(run: wandb.apis.public.Run, at: str) -> OtherRun:
    summary = dict(_flat({k: v for k, v in dict(run.summary).items() if not k.startswith("_")}))
    config = dict(_flat({k: v for k, v in run.config.items() if not k.startswith("_")}))
    return OtherRun(
        name=run.name or run.id, path=at, url=run.url, state=run.state, values=summary | config
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and words in a nest of mappings, by dotted names."""
    for key, value in values.items():
        if hasattr(value, "items"):  # a part of a summary is no Mapping to Python
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float):
            yield f"{prefix}{key}", value


def to_result(run: wandb.apis.public.Run) -> RunResult:
    """Return a W&B run as the result its run folder would hold, less the environment.

    It is held to what a `result.json` is held to: whoever may write to the project wrote it.

    Raises:
        ConfigError: its config is none of ours.
        RunFolderError: a number is out of its bounds, or of another kind.
    """
    summary = summary_of(run)
    result = RunResult(
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
    return RunResult.from_json(result.to_json())


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
    """Return one row per epoch; a run that was cut off and synced may hold some of them twice.

    A count that W&B gives as 3.0 is 3.
    """
    rows = {row["epoch"]: row for row in map(_plain_row, run.scan_history()) if "epoch" in row}
    return [rows[epoch] for epoch in sorted(rows)]


def _plain_row(row: dict[str, Any]) -> dict[str, float]:
    numbers = {k: v for k, v in row.items() if _is_plain(k, v) and not isinstance(v, str)}
    counts = {k: int(v) for k, v in numbers.items() if k in WHOLE_NUMBERS and v == int(v)}
    return numbers | counts


def _is_plain(key: str, value: Any) -> bool:
    """Return whether it is a number or a word of ours, not W&B's own or a picture."""
    if key.startswith("_") or isinstance(value, bool):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int | str)

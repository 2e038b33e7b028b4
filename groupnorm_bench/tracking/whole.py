"""Whether W&B has the whole of a run, and what to do where not: tell it again.

W&B's client may fail in the middle of a run, its files may be lost, and a run that W&B calls
finished may lack its last rows and its summary. `result.json` has them all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import GnbenchError, TrackingError
from groupnorm_bench.files import read_bounded, scratch_folder, write_atomic
from groupnorm_bench.runs import SETTLED, FoundRun, RunResult, finite
from groupnorm_bench.tracking.bounded import open_api
from groupnorm_bench.tracking.options import DEFAULT_PROJECT, Say, TrackingOptions
from groupnorm_bench.tracking.readback import rows_of, summary_of
from groupnorm_bench.tracking.run import track
from groupnorm_bench.tracking.variables import RUN_ID

if TYPE_CHECKING:
    import wandb

_ENDED = ("finished", "failed", "killed")


def id_of(result: RunResult) -> str | None:
    """Return the id that a run has on W&B, None where it has none or it is none."""
    run_id = result.wandb.get("id")
    return run_id if isinstance(run_id, str) and RUN_ID.fullmatch(run_id) else None


def is_known_whole(run: FoundRun) -> bool:
    """Return whether W&B was seen to have what the run's folder tells now."""
    try:
        return read_bounded(_seal(run), 64) == _digest(run.result)
    except OSError:  # never sealed: W&B is asked again
        return False


def _seal(run: FoundRun) -> Path:
    return run.folder.path / "wandb" / f"{id_of(run.result)}.whole"


def _digest(result: RunResult) -> bytes:
    told = json.dumps(finite([result.history, result.summary]), sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest().encode()


def unproven(runs: Iterable[FoundRun]) -> list[FoundRun]:
    """Return the settled runs that W&B should have, and was not yet seen to have whole."""
    return [
        run
        for run in runs
        if run.result.status in SETTLED and id_of(run.result) and not is_known_whole(run)
    ]


def complete(
    runs: Iterable[FoundRun], suites: dict[str, str], project: str | None, entity: str | None
) -> tuple[list[str], dict[str, str]]:
    """Compare runs with what W&B has of them; tell W&B what it lacks.

    Args:
        runs: settled, with an id on W&B.
        suites: the sweep that each run folder belongs to, by name.
        project, entity: instead of those that each run was made for.

    Returns:
        names of the runs that were completed, and of those that cannot be, each with the reason.

    Raises:
        TrackingError: W&B cannot be reached.
    """
    completed: list[str] = []
    failed: dict[str, str] = {}
    for path, members in _by_project(runs, project, entity).items():
        there = _read(path, members)
        lacking = [run for run in members if _lack(run.result, there.get(_id(run)))]
        for run in lacking:
            suite = suites.get(run.folder.path.name, "train")
            _tell(run, path, there.get(_id(run)), suite)
        there |= _read(path, lacking)
        for run in members:
            name, lack = run.folder.path.name, _lack(run.result, there.get(_id(run)))
            if lack is not None:
                remedy = "; delete it there, then train --force" if _id(run) in there else ""
                failed[name] = f"W&B's run {_id(run)} {lack}{remedy}"
                continue
            if run in lacking:
                completed.append(name)
            if not run.folder.is_packed:  # of a pack W&B is asked again
                _seal(run).parent.mkdir(exist_ok=True)
                write_atomic(_seal(run), _digest(run.result))
    return completed, failed


def _id(run: FoundRun) -> str:
    return str(run.result.wandb["id"])


def _by_project(
    runs: Iterable[FoundRun], project: str | None, entity: str | None
) -> dict[str, list[FoundRun]]:
    by_project: dict[str, list[FoundRun]] = {}
    runs = list(runs)
    if not runs:
        return {}
    with open_api() as api:
        for run in runs:
            told = run.result.wandb
            owner = entity or told.get("entity") or api.default_entity
            path = f"{owner}/{project or told.get('project') or DEFAULT_PROJECT}"
            by_project.setdefault(path, []).append(run)
    return by_project


def _read(path: str, runs: list[FoundRun]) -> dict[str, wandb.apis.public.Run]:
    """Return W&B's runs by id; none where the project is yet to be made."""
    if not runs:
        return {}
    ids = [_id(run) for run in runs]
    try:
        with open_api() as api:
            found = api.runs(path, filters={"name": {"$in": ids}}, lazy=False)
            return {run.id: run for run in found}
    except TrackingError as error:
        if "Could not find project" in str(error):
            return {}
        raise


def _lack(ours: RunResult, theirs: wandb.apis.public.Run | None) -> str | None:
    """Return what W&B's run lacks of ours, None where it is whole."""
    if theirs is None:
        return "is not there"
    if theirs.state not in _ENDED:
        return f"is {theirs.state}"
    summary = summary_of(theirs)
    for key, value in finite(ours.summary).items():
        if value is not None and not _same(value, summary.get(key)):
            return f"has another {key}"
    rows = {row["epoch"]: row for row in rows_of(theirs)}
    for row in finite(ours.history):
        there = rows.get(row["epoch"], {})
        if any(value is not None and not _same(value, there.get(k)) for k, value in row.items()):
            return f"has another epoch {row['epoch']:.0f}"
    return None


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-9)
    return bool(ours == theirs)


def _tell(run: FoundRun, path: str, theirs: wandb.apis.public.Run | None, suite: str) -> None:
    """Give W&B the rows and the summary of a run's folder, under the run's own id."""
    entity, _, project = path.partition("/")
    if theirs is not None:
        suite = str(theirs.config.get("suite", suite))
    options = TrackingOptions(mode="online", project=project, entity=entity, suite=suite)
    quiet: Say = lambda line: None  # noqa: E731  # what W&B then has is looked at anyway
    result = run.result
    packed = run.folder.is_packed
    home = scratch_folder("gnbench-sync-") if packed else contextlib.nullcontext(run.folder.path)
    try:
        with home as folder, track(result.config, folder, options, quiet, result.wandb) as tracker:
            for row in result.history:
                tracker.log(row)
            tracker.summarize(result.summary)
    except GnbenchError:
        return

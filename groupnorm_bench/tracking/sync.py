"""Uploads what W&B does not have yet, through W&B's own `wandb sync`.

That command exits 0 when it failed, marks a run as synced whose history was refused (403 on the
file stream, seen with 0.31), and retries for a week: so it is bounded, and what counts is that W&B
says that the run has ended. A run whose upload was cut is completed under its own id; its first
rows may then stand on W&B twice, with the same step and values, and `read_wandb` reads them once.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groupnorm_bench.errors import TrackingError
from groupnorm_bench.leash import Leash
from groupnorm_bench.runs import FoundRun
from groupnorm_bench.tracking.agent_pool import SweepGoneError, read_sweep
from groupnorm_bench.tracking.bounded import (
    bounded_environment,
    last_line,
    open_api,
    wandb_command,
)
from groupnorm_bench.tracking.login import require_login
from groupnorm_bench.tracking.options import DEFAULT_PROJECT, Say
from groupnorm_bench.tracking.sweeps import SweepRecord, create_sweep, find_records, make_sweep
from groupnorm_bench.tracking.whole import complete, id_of, is_known_whole, unproven

BATCH = 32
"""Runs handed to one `wandb sync`; it uploads `PARALLEL` of them at a time."""
PARALLEL = 4


@dataclass(frozen=True, slots=True)
class Upload:
    """A run's W&B files that the server does not have, or not all of."""

    run: FoundRun
    wandb_id: str
    directory: Path
    """`offline-run-*`, or `run-*` of a run that went online and was cut off."""

    @property
    def name(self) -> str:
        return self.run.folder.path.name

    @property
    def is_synced(self) -> bool:
        """Whether `wandb sync` has marked it; whether W&B has it is another matter."""
        return self._mark.exists()

    def forget_mark(self) -> None:
        """Have the next `wandb sync` take this run again."""
        self._mark.unlink(missing_ok=True)

    @property
    def _mark(self) -> Path:
        return self.directory / f"run-{self.wandb_id}.wandb.synced"


@dataclass(slots=True)
class SyncOutcome:
    """What a sync did."""

    uploaded: list[str] = field(default_factory=list)
    """Names of runs."""
    failed: dict[str, str] = field(default_factory=dict)
    """Name of each run that was not uploaded, to W&B's reason."""
    sweeps: list[str] = field(default_factory=list)
    """Addresses of the sweeps made or completed."""
    grouped: list[str] = field(default_factory=list)
    """Names of sweeps that W&B shows as a group, having refused the sweep."""


def find_uploads(runs: Sequence[FoundRun], ask: bool = True) -> tuple[list[Upload], list[str]]:
    """Return what must be uploaded, and a line for each run that cannot be now.

    Runs that went online count where W&B does not have their end.

    Args:
        runs: from `find_runs`.
        ask: ask W&B which online runs those are; without, they are left out.

    Raises:
        TrackingError: W&B was asked and cannot be reached.
    """
    offline: list[Upload] = []
    online: list[Upload] = []
    problems: list[str] = []
    for run in runs:
        if run.folder.is_claimed():
            problems.append(f"{run.folder.path.name} is still running; skipped")
            continue
        if is_known_whole(run):
            continue
        for directory, wandb_id in _directories(run):
            upload = Upload(run, wandb_id, directory)
            if not upload.is_synced:
                (offline if directory.name.startswith("offline-") else online).append(upload)
    return offline + (_cut_off(online) if ask else []), problems


def _directories(run: FoundRun) -> Iterator[tuple[Path, str]]:
    for directory in sorted(run.folder.path.glob("wandb/*run-*-*")):
        found = re.fullmatch(r"(?:offline-)?run-\d+_\d+-([A-Za-z0-9_-]+)", directory.name)
        if found and (directory / f"run-{found.group(1)}.wandb").exists():
            yield directory, found.group(1)


def _cut_off(
    uploads: Sequence[Upload], project: str | None = None, entity: str | None = None
) -> list[Upload]:
    """Return those whose end W&B has not seen."""
    if not uploads:
        return []
    ended: set[str] = set()
    with open_api() as api:
        by_project: dict[str, list[str]] = {}
        for upload in uploads:
            told = upload.run.result.wandb
            owner = entity or told.get("entity") or api.default_entity
            path = f"{owner}/{project or told.get('project') or DEFAULT_PROJECT}"
            by_project.setdefault(path, []).append(upload.wandb_id)
        for path, ids in by_project.items():
            for run in api.runs(path, filters={"name": {"$in": ids}}):
                if run.state not in ("running", "pending", "crashed"):
                    ended.add(run.id)
    return [upload for upload in uploads if upload.wandb_id not in ended]


def clashes(runs: Sequence[FoundRun]) -> dict[str, str]:
    """Return the runs that share an id on W&B with another folder, each with the reason.

    W&B would hold one of them, or a mixture.
    """
    owners: dict[str, set[str]] = {}
    for run in runs:
        ids = {wandb_id for _, wandb_id in _directories(run)} | {id_of(run.result) or ""}
        for wandb_id in ids - {""}:
            owners.setdefault(wandb_id, set()).add(run.folder.path.name)
    return {
        name: f"its W&B id {wandb_id} is that of {len(names)} run folders; train all but one of "
        "them again with --force"
        for wandb_id, names in owners.items()
        if len(names) > 1
        for name in names
    }


def sync(
    runs: Sequence[FoundRun],
    uploads: Sequence[Upload],
    *,
    project: str | None = None,
    entity: str | None = None,
    on_uploaded: Callable[[str], None] = lambda name: None,
) -> SyncOutcome:
    """Upload runs, several at a time; each stands on its own, so this can be cut and typed again.

    A run counts as uploaded when W&B has all rows and the summary of its `result.json`; what it
    lacks after W&B's own upload, it is told from there.

    Args:
        runs: all run folders at hand.
        uploads: from `find_uploads`.
        project, entity: instead of those that each run was made for.
        on_uploaded: called with the name of each run as it is sent.

    Raises:
        TrackingError: W&B cannot be reached or refuses the key.
    """
    outcome = SyncOutcome()
    outcome.failed |= clashes(runs)
    uploads = [upload for upload in uploads if upload.name not in outcome.failed]
    proofs = [
        run
        for run in unproven(runs)
        if run.folder.path.name not in outcome.failed and not run.folder.is_claimed()
    ]
    if uploads or proofs:
        require_login()
    where = [f"--{k}={v}" for k, v in (("project", project), ("entity", entity)) if v]
    for start in range(0, len(uploads), BATCH):
        batch = uploads[start : start + BATCH]
        paths = [str(upload.directory) for upload in batch]
        arguments = ["sync", "--yes", "--include-online", "-n", str(PARALLEL), *where, *paths]
        output = _run_sync(arguments, batch, on_uploaded)
        marked = [upload for upload in batch if upload.is_synced]
        lost = _cut_off(marked, project, entity)
        for upload in batch:
            if upload in marked and upload not in lost:
                outcome.uploaded.append(upload.name)
            else:
                upload.forget_mark()
                outcome.failed[upload.name] = _reason(output, upload)
    records, _ = find_records({run.folder.path.parent: None for run in runs})
    suites = {name: record.name for _, record in records for name in record.runs}
    proofs = [run for run in proofs if run.folder.path.name not in outcome.failed]
    completed, lacking = complete(proofs, suites, project, entity)
    for name in completed:
        if name not in outcome.uploaded:
            outcome.uploaded.append(name)
            on_uploaded(name)
    outcome.failed |= lacking
    outcome.uploaded = [name for name in outcome.uploaded if name not in lacking]
    return outcome


def _run_sync(
    arguments: list[str], batch: Sequence[Upload], on_uploaded: Callable[[str], None]
) -> str:
    waiting = list(batch)
    output: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            wandb_command(*arguments),
            env=bounded_environment(Path(scratch)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is ours, to end it by
        )
        assert process.stdout is not None
        with Leash(Path(scratch), [process.pid]):
            try:
                for line in process.stdout:
                    output.append(line)
                    for upload in [upload for upload in waiting if upload.is_synced]:
                        waiting.remove(upload)
                        on_uploaded(upload.name)
                process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
    for upload in waiting:
        if upload.is_synced:
            on_uploaded(upload.name)
    return "".join(output)


def _reason(output: str, upload: Upload) -> str:
    lines = [line for line in output.splitlines() if upload.wandb_id in line]
    errors = [line for line in lines or output.splitlines() if re.search(r"(?i)error|fail", line)]
    return last_line("\n".join(errors or lines) or output)


def unite_sweeps(
    runs: Sequence[FoundRun],
    runs_dirs: Sequence[Path],
    outcome: SyncOutcome,
    *,
    project: str | None = None,
    entity: str | None = None,
    say: Say = lambda line: None,
) -> None:
    """Make each local sweep, as far as it is uploaded, one sweep on W&B: or, refused, one group."""
    found, problems = find_records(runs_dirs)
    for line in problems:
        say(line)
    by_name = {run.folder.path.name: run for run in runs}
    for runs_dir, record in found:
        members = [by_name[name] for name in record.runs if name in by_name]
        ids = {r.folder.path.name: wandb_id for r in members for wandb_id in _uploaded_ids(r)}
        fresh = {name: i for name, i in ids.items() if name not in record.wandb.get("runs", {})}
        if not fresh or record.wandb.get("executor") == "wandb":
            continue
        place = {
            "entity": entity or _first(members, "entity"),
            "project": project or _first(members, "project") or DEFAULT_PROJECT,
        }
        known = record.replace(wandb=place | record.wandb)
        known = unite(known, runs_dir, ids, outcome, say)
        known.write(runs_dir)


def _uploaded_ids(run: FoundRun) -> Iterator[str]:
    for directory, wandb_id in _directories(run):
        online = not directory.name.startswith("offline-")
        if online or (directory / f"run-{wandb_id}.wandb.synced").exists():
            yield wandb_id


def _first(runs: Sequence[FoundRun], key: str) -> str | None:
    return next((value for run in runs if (value := run.result.wandb.get(key))), None)


def unite(
    record: SweepRecord, runs_dir: Path, ids: dict[str, str], outcome: SyncOutcome, say: Say
) -> SweepRecord:
    """Make a record's sweep on W&B, or complete the one it names: or, refused, group its runs.

    Args:
        record: with `entity` and `project` among its `wandb`.
        runs_dir: where it is kept meanwhile, so that a killed call finds the sweep it made.
        ids: on W&B, of its runs by name.
        outcome: told of it.
        say: called with a line where W&B refused.

    Returns:
        the record with where it is on W&B.
    """
    place = dict(record.wandb)
    try:
        if not place.get("group"):
            place |= _make_sweep(record, runs_dir, sorted(ids.values()))
            outcome.sweeps.append(place["url"])
            if set(record.runs) <= set(ids):
                record.replace(wandb=place).end_on_wandb(say)
    except TrackingError as error:
        say(f"W&B did not take {record.name} as a sweep ({error}); its runs stand in one group")
        place["group"] = record.name
    if place.get("group"):
        _group(place, sorted(ids.values()))
        outcome.grouped.append(record.name)
    place.pop("making", None)  # made, or refused for good
    return record.replace(wandb=place | {"runs": ids})


def _make_sweep(record: SweepRecord, runs_dir: Path, ids: list[str]) -> dict[str, Any]:
    """Create the sweep with its runs, or give them to the one there is; check that it has them.

    Raises:
        TrackingError: W&B refused, or took the sweep without its runs.
    """
    known = record.wandb
    where = {"project": known.get("project"), "entity": known.get("entity")}
    place = None
    if known.get("sweep_id"):
        with contextlib.suppress(SweepGoneError):
            read_sweep(record.path_on_wandb)
            config = {**record.config, "name": record.name}
            update = known["sweep_id"]
            place = create_sweep(config, prior_runs=ids, update=update, **where)
    if place is None:
        made = make_sweep(record, runs_dir, prior_runs=ids, **where).wandb
        place = {key: made[key] for key in ("entity", "project", "sweep_id")}
    sweep = read_sweep("/".join(place.values()))
    missing = set(ids) - set(sweep.runs)
    if missing:
        raise TrackingError(f"the sweep lacks {len(missing)} of its runs")
    return place | {"url": sweep.url}


def _group(place: dict[str, Any], ids: list[str]) -> None:
    with open_api() as api:
        entity = place.get("entity") or api.default_entity
        for run in api.runs(
            f"{entity}/{place['project']}", filters={"name": {"$in": ids}}, lazy=False
        ):
            if run.group != place["group"]:
                run.group = place["group"]
                run.update()

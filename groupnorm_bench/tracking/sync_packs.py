"""The runs of a pack, uploaded from their results.

A pack is sealed, so what went up is noted nowhere in it: W&B is asked for each run, each time, and
told what it lacks. Of its sweeps it is asked by name and parameters.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import scratch_folder
from groupnorm_bench.runs import SETTLED, FoundRun, PackedRun, RunFolder, list_folders, packs_in
from groupnorm_bench.tracking.agent_pool import SweepGoneError, read_sweep
from groupnorm_bench.tracking.login import require_login
from groupnorm_bench.tracking.options import DEFAULT_PROJECT, Say
from groupnorm_bench.tracking.sweeps import SweepRecord, find_records, find_twin
from groupnorm_bench.tracking.sync import SyncOutcome, unite
from groupnorm_bench.tracking.whole import complete, id_of

_AT_A_TIME = 32
"""Results in memory at a time."""


@dataclass(slots=True)
class PackUploads:
    """The runs of a pack that W&B should have."""

    path: Path
    ids: dict[str, str] = field(default_factory=dict)
    """On W&B, by name."""
    offline: list[str] = field(default_factory=list)
    """Names of those that did not go online when they were made."""
    clashes: dict[str, str] = field(default_factory=dict)
    """Names of runs that have another one's id, each with the reason."""
    place: dict[str, str] = field(default_factory=dict)
    """The `entity` and `project` that the first of them was made for, where it says."""

    def add(self, name: str, wandb_id: str, told: dict[str, Any]) -> None:
        """Take a run in, by what its result says of W&B."""
        if not self.ids:
            self.place = {key: told[key] for key in ("entity", "project") if told.get(key)}
        self.ids[name] = wandb_id
        if told.get("mode") != "online":
            self.offline.append(name)


def find_packs(places: Iterable[Path]) -> list[Path]:
    """Return the packs among places, and those that lie in folders among them."""
    return list(dict.fromkeys(pack for place in places for pack in packs_in(place)))


def find_pack_uploads(
    packs: Iterable[Path], folders: Sequence[FoundRun]
) -> tuple[list[PackUploads], list[str]]:
    """Return what of packs W&B should have, and a line for each run that cannot be read.

    A run that lies in a folder too, or in an earlier pack, is left to that.

    Raises:
        RunFolderError: a pack is not there, or damaged.
    """
    owners = {i: run.folder.name for run in folders if (i := id_of(run.result))}
    found: list[PackUploads] = []
    problems: list[str] = []
    for path in packs:
        pack = PackUploads(path)
        found.append(pack)
        for run in _read(list_folders(path), problems):
            wandb_id = id_of(run.result)
            if wandb_id is None or run.result.status not in SETTLED:
                continue
            name = run.folder.name
            owner = owners.get(wandb_id)
            if owner is None:
                owners[wandb_id] = name
                pack.add(name, wandb_id, run.result.wandb)
            elif owner != name:
                pack.clashes[name] = (
                    f"its W&B id {wandb_id} is that of {owner}, too; unpack it, and train it again "
                    "with --force"
                )
    return found, problems


def _read(folders: Iterable[RunFolder], problems: list[str]) -> Iterator[FoundRun]:
    for folder in folders:
        try:
            result = folder.read()
        except RunFolderError as error:
            problems.append(f"{error}; skipped")
            continue
        if result is not None:
            yield FoundRun(folder, result)


def sync_packs(
    packs: Sequence[PackUploads],
    outcome: SyncOutcome,
    *,
    project: str | None = None,
    entity: str | None = None,
    on_uploaded: Callable[[str], None] = lambda name: None,
    say: Say = lambda line: None,
) -> None:
    """Tell W&B what it lacks of packed runs, one after the other, and make their sweeps there.

    Args:
        packs: from `find_pack_uploads`.
        outcome: of what was uploaded before; what becomes of these runs is added.
        project, entity: instead of those that each run was made for.
        on_uploaded: called with the name of each run that was sent.
        say: called with a line where W&B refused a sweep.

    Raises:
        TrackingError: W&B cannot be reached or refuses the key.
        RunFolderError: a pack was damaged meanwhile.
    """
    if any(pack.ids for pack in packs):
        require_login()
    for pack in packs:
        outcome.failed |= pack.clashes
        records = [record for _, record in find_records([pack.path])[0]]
        suites = {name: record.name for record in records for name in record.runs}
        names = iter(pack.ids)
        while batch := list(itertools.islice(names, _AT_A_TIME)):
            runs = _read([PackedRun(pack.path / name) for name in batch], [])
            completed, lacking = complete(runs, suites, project, entity)
            outcome.uploaded += completed
            outcome.failed |= lacking
            for name in completed:
                on_uploaded(name)
        for record in records:
            where = {k: v for k, v in (("project", project), ("entity", entity)) if v}
            _unite(record, pack, where, outcome, say)


def _unite(
    record: SweepRecord, pack: PackUploads, where: dict[str, str], outcome: SyncOutcome, say: Say
) -> None:
    """Make a packed sweep on W&B as far as its runs are there, unless W&B has it so."""
    ids = {n: pack.ids[n] for n in record.runs if n in pack.ids and n not in outcome.failed}
    if not ids or record.wandb.get("executor") == "wandb":
        return
    told = record.wandb
    if any(told.get(key, value) != value for key, value in where.items()):
        told = {}  # of another project than is asked for
    known = record.replace(wandb={"project": DEFAULT_PROJECT} | pack.place | told | where)
    known, has = _known_there(known)
    if not set(ids.values()) <= has:
        with scratch_folder("gnbench-sync-") as scratch:
            unite(known, scratch, ids, outcome, say)


def _known_there(record: SweepRecord) -> tuple[SweepRecord, set[str]]:
    """Return the record with where W&B has its sweep, if it has, and the ids of the runs in it."""
    known = record.wandb
    if not known.get("sweep_id"):
        twin = find_twin(record, known.get("project"), known.get("entity"))
        record = record.replace(wandb=known | (twin or {}))
    if record.wandb.get("sweep_id"):
        with contextlib.suppress(SweepGoneError):
            return record, set(read_sweep(record.path_on_wandb).runs)
    return record, set()

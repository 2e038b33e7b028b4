"""What a local sweep leaves beside its runs, so that W&B can show it as one sweep.

`RUNS/<name>.sweep.json` names the sweep's runs, holds its W&B sweep config, and, once W&B knows
it, where it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import yaml

from groupnorm_bench.errors import RunFolderError, TrackingError, one_line
from groupnorm_bench.files import read_bounded, remove_temporaries, write_atomic
from groupnorm_bench.runs import is_pack, packed_sweeps
from groupnorm_bench.tracking.bounded import last_line, open_api, run_wandb
from groupnorm_bench.tracking.options import DEFAULT_PROJECT, Say

_SUFFIX = ".sweep.json"
_MAX_BYTES = 2**26
_MAX_STEM = 120
"""Bytes of a file's name; most disks take 255."""
_PART = re.compile(r"[^/\\\s#?%:;]{1,128}")
"""What entity, project and sweep id may be: they become parts of paths and addresses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord:
    """A sweep that was started in a folder of runs."""

    name: str
    config: dict[str, Any]
    """As `wandb.sweep` takes it."""
    runs: tuple[str, ...]
    """Names of its run folders."""
    wandb: dict[str, Any] = field(default_factory=dict)
    """`entity`, `project`, `sweep_id`, `url`, once W&B has the sweep."""
    question: dict[str, Any] = field(default_factory=dict)
    """What it is to answer, as `compare.question.Question.to_dict` gives it."""
    contrasts: int = 0
    """How many contrasts it asks for: the size of their family, known before the first run."""
    file: str = ""
    """The sweep file, as it was typed."""
    tunes: str = ""
    """The sweep whose settings these runs tune: they are never reported. Empty: none."""

    def path_in(self, runs_dir: Path) -> Path:
        stem = re.sub(r"[^\w.-]+", "-", self.name).strip("-.") or "sweep"
        if len(stem.encode()) > _MAX_STEM:
            digest = hashlib.sha256(self.name.encode(errors="backslashreplace")).hexdigest()[:8]
            stem = f"{stem.encode()[:_MAX_STEM].decode(errors='ignore')}-{digest}"
        return runs_dir / f"{stem}{_SUFFIX}"

    @property
    def path_on_wandb(self) -> str:
        """ENTITY/PROJECT/SWEEP, once W&B has the sweep."""
        return "/".join(str(self.wandb[key]) for key in ("entity", "project", "sweep_id"))

    def end_on_wandb(self, say: Say) -> None:
        """Tell W&B that the sweep is over, or an agent that joins would wait for ever."""
        try:
            run_wandb("sweep", "--stop", self.path_on_wandb)
        except TrackingError as error:
            say(f"{error}; end the sweep {self.path_on_wandb} on its page")

    def write(self, runs_dir: Path) -> None:
        """Replace the record whole; its runs are those of earlier sweeps of this name as well.

        Raises:
            RunFolderError: it cannot be written.
        """
        path = self.path_in(runs_dir)
        runs_dir.mkdir(parents=True, exist_ok=True)
        remove_temporaries(runs_dir, of=path.name)  # of a process killed in writing
        write_atomic(path, self.to_json())

    def to_json(self) -> bytes:
        """Return the text of the record's file, as `from_json` reads it back."""
        document = asdict(self) | {"runs": list(self.runs)}
        return (json.dumps(document, indent=1) + "\n").encode()

    def replace(self, **changes: Any) -> SweepRecord:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record back.

        Raises:
            RunFolderError: the file is half-written, foreign or unreadable.
        """
        try:
            return cls.from_json(read_bounded(path, _MAX_BYTES))
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{path} is not a sweep's record: {one_line(error)}; delete it"
            ) from error

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return the record that a file's text is.

        Raises:
            ValueError: it is none.
        """
        try:
            document = json.loads(text)
            record = cls(
                name=document["name"],
                config=document["config"],
                runs=tuple(map(str, document["runs"])),
                wandb=document["wandb"],
                question=document.get("question") or {},
                contrasts=int(document.get("contrasts") or 0),
                file=str(document.get("file") or ""),
                tunes=str(document.get("tunes") or ""),
            )
            dictionaries = isinstance(record.config, dict) and isinstance(record.question, dict)
            lists = isinstance(record.name, str) and isinstance(document["runs"], list)
            if not (dictionaries and lists and _is_place(record.wandb)):
                raise ValueError("a part of it is of another kind")
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(one_line(error)) from error
        return record


def _is_place(told: object) -> bool:
    """Return whether a record's `wandb` can be trusted in paths and command lines."""
    if not isinstance(told, dict):
        return False
    parts = [told.get(key) for key in ("entity", "project", "sweep_id")]
    return all(part is None or _PART.fullmatch(str(part)) for part in parts)


def known_record(record: SweepRecord, runs_dir: Path, say: Say) -> SweepRecord:
    """Return a record with what an earlier call of the same sweep knew of its runs and of W&B.

    A record that cannot be read is set aside, and said: it holds nothing that is needed.

    Raises:
        RunFolderError: it cannot be set aside either.
    """
    path = record.path_in(runs_dir)
    if not os.path.lexists(path):
        return record
    try:
        known = SweepRecord.read(path)
    except RunFolderError as error:
        kept = path.with_suffix(".bad")
        say(f"{str(error).rpartition(';')[0]}; kept as {kept}, and begun anew")
        try:
            os.replace(path, kept)
        except OSError as problem:
            raise RunFolderError(f"{path} cannot be renamed: {problem.strerror}") from problem
        return record
    if known.config != record.config:
        return record
    runs = tuple(dict.fromkeys([*known.runs, *record.runs]))
    return record.replace(runs=runs, wandb=known.wandb)  # the question may be another now


def make_sweep(
    record: SweepRecord,
    runs_dir: Path,
    *,
    project: str | None,
    entity: str | None,
    prior_runs: Sequence[str] = (),
) -> SweepRecord:
    """Make a record's W&B sweep, once: a call that is killed between W&B and the disk finds it.

    Returns:
        the record, on disk, with `entity`, `project` and `sweep_id`.

    Raises:
        TrackingError: W&B refused it.
        RunFolderError: the record cannot be written.
    """
    place = find_twin(record, project, entity) if record.wandb.get("making") else None
    if place is None:
        record.replace(wandb=record.wandb | {"making": True}).write(runs_dir)
    config = {**record.config, "name": record.name}
    if place is None:
        place = create_sweep(config, project=project, entity=entity, prior_runs=prior_runs)
    elif prior_runs:
        where = {key: place[key] for key in ("project", "entity")}
        update = place["sweep_id"]
        place = create_sweep(config, prior_runs=prior_runs, update=update, **where)
    known = {key: value for key, value in record.wandb.items() if key != "making"}
    made = record.replace(wandb=known | place)
    made.write(runs_dir)
    return made


def find_twin(
    record: SweepRecord, project: str | None, entity: str | None
) -> dict[str, str] | None:
    """Return where W&B has the newest sweep of this name and these parameters, if it has one.

    Raises:
        TrackingError: W&B has no such project, or cannot be reached.
    """
    ours = json.loads(json.dumps(record.config.get("parameters")))
    with open_api() as api:
        owner, home = entity or api.default_entity, project or DEFAULT_PROJECT
        for sweep in api.project(home, owner).sweeps():
            config = sweep.config
            if config.get("name") == record.name and config.get("parameters") == ours:
                return {"entity": str(owner), "project": home, "sweep_id": str(sweep.id)}
    return None


def find_records(
    places: Iterable[Path],
) -> tuple[list[tuple[Path, SweepRecord]], list[str]]:
    """Return the records in folders of runs and in packs, each with where it lies.

    Returns:
        the records, and a line for each that is no record, or a pack that cannot be read.
    """
    records: list[tuple[Path, SweepRecord]] = []
    problems: list[str] = []
    for place in places:
        if is_pack(place):
            try:
                records += [(place, record) for record in _packed_records(place)]
            except RunFolderError as error:
                problems.append(f"{error}; skipped")
            continue
        for path in sorted(place.glob(f"*{_SUFFIX}")):
            try:
                records.append((place, SweepRecord.read(path)))
            except RunFolderError as error:
                problems.append(f"{error}; skipped")
    return records, problems


def _packed_records(pack: Path) -> list[SweepRecord]:
    found = []
    for name, text in packed_sweeps(pack).items():
        try:
            found.append(SweepRecord.from_json(text))
        except ValueError as error:
            raise RunFolderError(f"{pack}/{name} is not a sweep's record: {error}") from error
    return found


def united(records: Iterable[tuple[Path, SweepRecord]]) -> dict[str, SweepRecord]:
    """Return records by the names of their files; parts of one sweep, as of two machines, in one.

    Raises:
        RunFolderError: two sweeps of one name differ in more than the runs they got to.
    """
    found: dict[str, tuple[Path, SweepRecord]] = {}
    for place, record in records:
        name = record.path_in(Path()).name
        if name not in found:
            found[name] = place, record
            continue
        other_place, other = found[name]
        runs = tuple(dict.fromkeys([*other.runs, *record.runs]))
        one = other.replace(runs=runs, wandb=other.wandb or record.wandb)
        if one != record.replace(runs=runs, wandb=one.wandb):
            raise RunFolderError(
                f"{other_place} and {place} hold different sweeps called {record.name}, of which "
                "one question could be kept; pack them apart"
            )
        found[name] = other_place, one
    return {name: record for name, (_, record) in found.items()}


def create_sweep(
    config: dict[str, Any],
    *,
    project: str | None = None,
    entity: str | None = None,
    prior_runs: Sequence[str] = (),
    update: str | None = None,
) -> dict[str, str]:
    """Create a W&B sweep, or change one that is there.

    Args:
        config: as `wandb sweep` takes it.
        project, entity: where; W&B's defaults if None.
        prior_runs: ids of runs that belong to it.
        update: id of the sweep to change.

    Returns:
        its `entity`, `project` and `sweep_id`.

    Raises:
        TrackingError: W&B refused it.
    """
    options = [
        f"--{key}={value}" for key, value in (("project", project), ("entity", entity)) if value
    ]
    options += [f"--prior_run={run}" for run in prior_runs]
    if update is not None:
        options.append(f"--update={update}")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file, sort_keys=False)
        file.flush()
        output = run_wandb("sweep", *options, file.name)
    path = re.search(r"wandb agent ([^/\s]+)/([^/\s]+)/(\S+)", output)
    if path is None:
        raise TrackingError(f"wandb sweep told no id: {last_line(output)}")
    return dict(zip(("entity", "project", "sweep_id"), path.groups(), strict=True))

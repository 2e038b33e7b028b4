"""What a local sweep leaves beside its runs, so that W&B can show it as one sweep.

`RUNS/<name>.sweep.json` names the sweep's runs, holds its W&B sweep config, and, once W&B knows
it, where it is there.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import yaml

from groupnorm_bench.errors import RunFolderError, TrackingError
from groupnorm_bench.files import remove_temporaries, write_atomic
from groupnorm_bench.tracking.bounded import last_line, run_wandb

_SUFFIX = ".sweep.json"


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

    def path_in(self, runs_dir: Path) -> Path:
        stem = re.sub(r"[^\w.-]+", "-", self.name).strip("-.") or "sweep"
        return runs_dir / f"{stem}{_SUFFIX}"

    def write(self, runs_dir: Path) -> None:
        """Replace the record whole; its runs are those of earlier sweeps of this name as well.

        Raises:
            RunFolderError: it cannot be written.
        """
        path = self.path_in(runs_dir)
        document = asdict(self) | {"runs": list(self.runs)}
        runs_dir.mkdir(parents=True, exist_ok=True)
        remove_temporaries(runs_dir, of=path.name)  # of a process killed in writing
        write_atomic(path, (json.dumps(document, indent=1) + "\n").encode())

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
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                name=str(document["name"]),
                config=dict(document["config"]),
                runs=tuple(map(str, document["runs"])),
                wandb=dict(document["wandb"]),
                question=dict(document.get("question") or {}),
                contrasts=int(document.get("contrasts") or 0),
                file=str(document.get("file") or ""),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path} is not a sweep's record: {error}") from error


def find_records(
    runs_dirs: Iterable[Path],
) -> tuple[list[tuple[Path, SweepRecord]], list[str]]:
    """Return the records in folders of runs, each with its folder, and a line for each bad one."""
    records: list[tuple[Path, SweepRecord]] = []
    problems: list[str] = []
    for runs_dir in runs_dirs:
        for path in sorted(runs_dir.glob(f"*{_SUFFIX}")):
            try:
                records.append((runs_dir, SweepRecord.read(path)))
            except RunFolderError as error:
                problems.append(f"{error}; skipped")
    return records, problems


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

"""What a run tells of itself: the content of `result.json`."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson

from groupnorm_bench.errors import ConfigError, RunFolderError
from groupnorm_bench.metrics import METRICS
from groupnorm_bench.settings.config import TrainConfig, run_name
from groupnorm_bench.settings.layers import make_config
from groupnorm_bench.wording import NOT_IN_NAMES

Status = Literal["finished", "diverged", "failed", "pruned", "interrupted"]
SETTLED: frozenset[str] = frozenset({"finished", "diverged", "pruned"})
"""Statuses that are results: such a run is never trained again unless forced."""

TRIAL_CODE = "trial_code"
"""Told by the environment of a run that a function of the user's own did: which code that was."""
STATUSES = frozenset(get_args(Status))
_NUMBERS = frozenset({int, float, type(None)})
"""What a metric can be: null stands for what was not finite."""
WHOLE_NUMBERS = ("epoch", "step", "images_seen")
"""Whole numbers of a history's row."""
_BOUNDS = {name: spec.bounds for name, spec in METRICS.items() if spec.bounds is not None}
_TEXTS = frozenset(
    {
        "version",
        "commit",
        "python",
        "torch",
        "platform",
        "host",
        "device",
        "device_name",
        "started",
        TRIAL_CODE,
    }
)
_IDS = ("id", "sweep_id")
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""W&B's ids become part of paths and patterns."""
_PLACES = ("project", "entity")
_KEYS = ("config", "arm", "cell", "seed", "status", "history", "summary", "environment", "wandb")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """One run as its folder tells it. Accuracies are fractions, times are seconds."""

    config: TrainConfig
    status: Status
    history: list[dict[str, float]] = field(default_factory=list)
    """One row per epoch: design of the metric keys in `docs/design.md`."""
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    """Where it ran: versions, device, threads, host, command."""
    wandb: dict[str, Any] = field(default_factory=dict)
    """The W&B run: id, mode, project, entity, url; empty where tracking is disabled."""

    @property
    def arm(self) -> str:
        return self.config.arm

    @property
    def cell(self) -> str:
        return self.config.cell

    @property
    def seed(self) -> int:
        return self.config.seed

    def replace(self, **changes: Any) -> RunResult:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Return the text of `result.json`; numbers that are not finite become null."""
        document = {
            "config": self.config.to_dict(),
            "arm": self.arm,
            "cell": self.cell,
            "seed": self.seed,
            "status": self.status,
            "history": self.history,
            "summary": self.summary,
            "environment": self.environment,
            "wandb": self.wandb,
        }
        return json.dumps(finite(document), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str | None = None) -> RunResult:
        """Read `result.json` back, and check all that the rest takes on trust.

        Args:
            text: the file's content.
            name: the run that it must be of; any if None.

        Raises:
            RunFolderError: the text is not a run's result, or its parts contradict each other.
        """
        try:
            document = orjson.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunFolderError(f"is not readable: {' '.join(str(error).split())}") from error
        if not isinstance(document, dict) or any(key not in document for key in _KEYS):
            raise RunFolderError("is not a gnbench result")
        parts = {key: document[key] for key in ("history", "summary", "environment", "wandb")}
        try:
            config = make_config([document["config"]])
            told: dict[str, Any] = {"arm": config.arm, "cell": config.cell, "seed": config.seed}
        except ConfigError as error:
            raise RunFolderError(f"has a config of another version: {error}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise RunFolderError(f"is not readable: {' '.join(str(error).split())}") from error
        if not isinstance(status := document["status"], str) or status not in STATUSES:
            raise RunFolderError(f"has the unknown status {status!r}")
        for key, value in told.items():
            if document[key] != value:
                raise RunFolderError(f"says {key} {document[key]!r} but its config is {value}")
        _check(parts)
        if name not in (None, found := run_name(told["cell"], config.seed)):
            raise RunFolderError(f"is of another run, {found}; a folder has its run's name")
        return cls(config=config, status=status, **parts)  # type: ignore[arg-type]


def _check(parts: dict[str, Any]) -> None:
    """Check the parts of a result that no class of ours describes.

    Raises:
        RunFolderError: one is of another type, or out of its bounds.
    """
    history = parts.pop("history")
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise RunFolderError("is not a gnbench result: its history is no list of rows")
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise RunFolderError(f"is not a gnbench result: its {name} is {_shown(part)}")
    for row in history:
        if not _NUMBERS.issuperset(map(type, row.values())):
            key, value = next(item for item in row.items() if type(item[1]) not in _NUMBERS)
            raise RunFolderError(f"has {key}={_shown(value)} in its history, not a number")
        for key in WHOLE_NUMBERS:
            if key in row and not (type(value := row[key]) is int and value >= 0):
                raise RunFolderError(f"has {key}={_shown(value)} in its history, not a count")
        _check_bounds(row)
    for key, value in parts["summary"].items():
        if key in METRICS and type(value) not in _NUMBERS:
            raise RunFolderError(f"has {key}={_shown(value)} in its summary, not a number")
    _check_bounds(parts["summary"])
    for key, value in parts["environment"].items():
        if key in _TEXTS and not isinstance(value, str | None):
            raise RunFolderError(f"has {key}={_shown(value)} in its environment, not a text")
    for key, value in parts["wandb"].items():
        if not isinstance(value, str | None):
            raise RunFolderError(f"has {key}={_shown(value)} under wandb, not a text")
        if key in _IDS and value is not None and not _ID.fullmatch(value):
            raise RunFolderError(
                f"has {key}={_shown(value)} under wandb; an id is of letters, digits, - and _"
            )
        if key in _PLACES and value is not None and NOT_IN_NAMES.search(value):
            raise RunFolderError(
                f"has {key}={_shown(value)} under wandb, which is no name of W&B's"
            )
    parts["history"] = history


def _check_bounds(values: dict[str, Any]) -> None:
    for key, (low, high) in _BOUNDS.items():
        value = values.get(key)
        if value is not None and not low <= value <= high:
            raise RunFolderError(f"has {key}={_shown(value)}, not between {low:g} and {high:g}")


def _shown(value: Any) -> str:
    """Return a foreign value as part of a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity in it replaced by None, as JSON needs."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

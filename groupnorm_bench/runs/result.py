"""What a run tells of itself: the content of `result.json`."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson

from groupnorm_bench.errors import ConfigError, RunFolderError
from groupnorm_bench.settings.config import TrainConfig

Status = Literal["finished", "diverged", "failed", "pruned", "interrupted"]
SETTLED: frozenset[str] = frozenset({"finished", "diverged", "pruned"})
"""Statuses that are results: such a run is never trained again unless forced."""

_STATUSES = frozenset(get_args(Status))
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
    def from_json(cls, text: str) -> RunResult:
        """Read `result.json` back.

        Raises:
            RunFolderError: the text is not a run's result, or its parts contradict each other.
        """
        try:
            document = orjson.loads(text)
            if not isinstance(document, dict) or any(key not in document for key in _KEYS):
                raise RunFolderError("is not a gnbench result")
            config = TrainConfig.from_mapping(document["config"])
            if document["status"] not in _STATUSES:
                raise RunFolderError(f"has the unknown status {document['status']!r}")
            if document["cell"] != config.cell:
                raise RunFolderError(
                    f"says cell {document['cell']!r} but its config is {config.cell}"
                )
            parts = {key: document[key] for key in ("history", "summary", "environment", "wandb")}
            if (
                not isinstance(parts["history"], list)
                or not all(
                    isinstance(part, dict) for name, part in parts.items() if name != "history"
                )
                or not all(isinstance(row, dict) for row in parts["history"])
            ):
                raise RunFolderError("is not a gnbench result")
            return cls(config=config, status=document["status"], **parts)
        except (ValueError, RecursionError, TypeError, AttributeError) as error:
            raise RunFolderError(f"is not readable: {' '.join(str(error).split())}") from error
        except ConfigError as error:
            raise RunFolderError(f"has a config of another version: {error}") from error


def finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity in it replaced by None, as JSON needs."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

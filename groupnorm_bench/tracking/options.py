"""What a person may say about W&B: in which mode, and where runs go. Loads without wandb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from groupnorm_bench.errors import ConfigError, nearest
from groupnorm_bench.wording import NOT_IN_NAMES

Mode = Literal["auto", "online", "offline", "disabled"]
MODES: tuple[Mode, ...] = ("auto", "online", "offline", "disabled")
DEFAULT_PROJECT = "groupnorm-bench"
MAX_PROJECT = 128
"""Characters of a project's name, as W&B's client counts them (`wandb_settings.py`)."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """Where a run goes on W&B.

    Raises:
        ConfigError: the mode is unknown, or W&B would refuse the project's or entity's name.
    """

    mode: Mode = "auto"
    project: str = DEFAULT_PROJECT
    entity: str | None = None
    suite: str = "train"
    """The sweep's name, or `train` for a run of its own; W&B's job type."""
    tags: tuple[str, ...] = ()
    group: str | None = None
    """W&B's group; the run's cell if None, so that its seeds are one line in a grouped chart."""
    job_type: str | None = None
    """W&B's job type; the suite if None."""
    run_id: str | None = None
    """W&B's id of the one run of this command; drawn at random if None."""
    name: str | None = None
    """Its name; its folder's if None."""
    sweep_id: str | None = None
    """A W&B sweep made for runs of our own scheduler. An agent's run learns its own from wandb."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"wandb={self.mode!r} is unknown{nearest(self.mode, MODES)}")
        require_names(self.project, self.entity)


def require_names(project: str | None, entity: str | None) -> None:
    """Refuse a project or an entity that W&B's client or its addresses cannot hold; None is none.

    Raises:
        ConfigError: it is empty, longer than `MAX_PROJECT`, or has one of `/\\#?%:`.
    """
    for what, name in (("project", project), ("entity", entity)):
        if name is None or (0 < len(name) <= MAX_PROJECT and not NOT_IN_NAMES.search(name)):
            continue
        shown = name if len(name) <= MAX_PROJECT else f"{name[:40]}..."
        raise ConfigError(
            f"{what}={shown!r} is no W&B {what}'s name; use letters, digits and dashes, "
            f"{MAX_PROJECT} of them at most"
        )

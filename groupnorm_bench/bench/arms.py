"""One network under several arms: what its norm layers meet, and what a training step takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from groupnorm_bench.bench.steps import train_step
from groupnorm_bench.bench.timing import Spread, interleaved
from groupnorm_bench.models.sites import Survey
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_notes, check_model, images_of


@dataclass(frozen=True, slots=True)
class ArmSurvey:
    """A network under one arm."""

    config: TrainConfig
    survey: Survey
    notes: tuple[str, ...]
    """What was done to make it fit."""
    step: Spread | None
    """Seconds of a training step on the CPU, on random images; None where none was timed."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return images_of(self.config).image_shape

    @property
    def milliseconds(self) -> float | None:
        """The median of `step`."""
        return None if self.step is None else 1_000 * self.step.median


def survey_arms(configs: Iterable[TrainConfig], repeats: int) -> list[ArmSurvey]:
    """Build a network under each arm, and time training steps of all, interleaved.

    Raises:
        ConfigError: it cannot be built under one of them; nothing is timed then.
    """
    configs = list(configs)
    surveys = [check_model(config) for config in configs]
    spreads: list[Spread | None] = [None] * len(configs)
    if repeats:
        seconds = interleaved([train_step(config) for config in configs], repeats)
        spreads = [Spread.of(times) for times in seconds]
    return [
        ArmSurvey(config, found, build_notes(config, [use.site for use in found.uses]), step)
        for config, found, step in zip(configs, surveys, spreads, strict=True)
    ]

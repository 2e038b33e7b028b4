"""The question, written down before the runs: who against whom, in what, and when it is answered.

A sweep file holds it as `question:` (or a file beside it does); it is kept with the sweep's runs,
so that `compare` and `report` answer what was asked, and not what the results suggest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from groupnorm_bench.compare.order import arm_by
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.metrics import GOALS, set_goal

if TYPE_CHECKING:
    from groupnorm_bench.settings.config import TrainConfig

Decide = Literal["each", "mean", "slope"]
FIRST_LOOK = 6
"""Pairs before which nothing is decided: fewer say too little of how differences are spread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tune:
    """Settings that each arm may have its own best value of, found on seeds of their own."""

    settings: Mapping[str, tuple[Any, ...] | Mapping[str, tuple[Any, ...]]]
    """The values to try, by setting: the same for every arm that reads it, or by arm."""
    seeds: tuple[int, ...]
    """Used for nothing else; never reported."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `from_mapping` takes them."""
        values = {
            name: {arm: list(each) for arm, each in values.items()}
            if isinstance(values, Mapping)
            else list(values)
            for name, values in self.settings.items()
        }
        return {"settings": values, "seeds": list(self.seeds)}

    def arm_of(self, config: TrainConfig) -> str:
        """Return what an arm is called: `group`, not `group-g8`, where its groups are tuned."""
        if "num_groups" in self.settings and config.norm_spec.reads_groups:
            return config.replace(num_groups=1, group_size=None).arm.removesuffix("-g1")
        return config.arm

    def settings_of(self, config: TrainConfig) -> dict[str, tuple[Any, ...]]:
        """Return what a config's arm may choose from: the settings that it reads, with values."""
        found = {}
        for name, values in self.settings.items():
            if name in config.inert:
                continue
            if isinstance(values, Mapping):
                values = values.get(self.arm_of(config), ())
            if values:
                found[name] = tuple(values)
        return found

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read what people write.

        Raises:
            CompareError: a key is unknown or missing, or a value makes no sense.
        """
        _known(data, ("settings", "seeds"), "tune")
        settings, seeds = data.get("settings"), data.get("seeds")
        if not isinstance(settings, Mapping) or not settings:
            raise CompareError(f"tune settings={settings!r} names none; as {{lr: [0.001, 0.003]}}")
        for name, values in settings.items():
            each = list(values.values()) if isinstance(values, Mapping) else [values]
            for one in each or [None]:
                if not isinstance(one, list | tuple) or len(one) < 2:
                    raise CompareError(f"tune {name}={one!r} is no choice; list two values or more")
        if not isinstance(seeds, list | tuple) or not all(map(_is_seed, seeds)) or not seeds:
            raise CompareError(
                f"tune seeds={seeds!r} are no seeds; list some that the runs do not use, "
                "as [1000, 1001, 1002]"
            )
        named = {
            str(name): {str(arm): tuple(each) for arm, each in values.items()}
            if isinstance(values, Mapping)
            else tuple(values)
            for name, values in settings.items()
        }
        return cls(settings=named, seeds=tuple(dict.fromkeys(seeds)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a comparison is to answer."""

    baseline: str | None = None
    """An arm; `batch` where there is one, else `none`, else the first."""
    arm: tuple[str, ...] = ()
    """The settings that make an arm, as `optimizer`; the norm with its own if empty."""
    arms: tuple[str, ...] | None = None
    """Those held against the baseline: with the settings, the family. All that are swept if
    None."""
    metric: str = "test/accuracy"
    goal: Literal["maximize", "minimize"] | None = None
    """Of a metric of which gnbench knows nothing; None: what its name tells, or the last question
    of it in this process: two studies that mean opposite things by one name need a process each."""
    margin: float | None = None
    """Differences inside it count for nothing, in the printed unit (points for accuracies);
    without it nothing is called equal."""
    decide: Decide = "each"
    """At each setting; by the mean over settings; or by the slope per doubling of a setting."""
    alpha: float = 0.05
    """False verdicts allowed over the family, however often one looks."""
    first_look: int = FIRST_LOOK
    """Pairs before which nothing is decided."""
    max_seeds: int | None = None
    """Where `--until-decided` ends at the latest: seeds per arm."""
    until_decided: bool = False
    tune: Tune | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.alpha) and 0 < self.alpha < 1):
            raise CompareError(f"alpha={self.alpha} is not between 0 and 1; try 0.05")
        if self.margin is not None and not (_is_number(self.margin) and self.margin >= 0):
            raise CompareError(f"margin={self.margin} is not a number from 0 on; try 0.1 (points)")
        if self.decide not in get_args(Decide):
            raise CompareError(
                f"decide={self.decide!r} is unknown{nearest(self.decide, get_args(Decide))}"
            )
        if type(self.first_look) is not int or self.first_look < 2:
            raise CompareError(f"first_look={self.first_look!r} is not a number of pairs from 2 on")
        if self.max_seeds is not None and (type(self.max_seeds) is not int or self.max_seeds < 1):
            raise CompareError(f"max_seeds={self.max_seeds!r} is not a number of seeds; try 40")
        for arm in (self.baseline, *(self.arms or ())):
            if arm is not None and (not isinstance(arm, str) or not arm):
                raise CompareError(f"arm={arm!r} is not an arm's name; as group-g8")
        if self.arms is not None and self.baseline in self.arms:
            raise CompareError(f"baseline={self.baseline!r} is among the arms; leave it out there")
        if self.arm and self.tune is not None:
            raise CompareError("tune is for arms that norms make; leave out arm, or tune")
        if not isinstance(self.metric, str) or not self.metric:
            raise CompareError(f"metric={self.metric!r} is not a metric's name; try test/accuracy")
        if self.goal is not None:
            if self.goal not in GOALS:
                raise CompareError(f"goal={self.goal!r} is unknown{nearest(str(self.goal), GOALS)}")
            try:
                set_goal(self.metric, self.goal)
            except ValueError as error:
                raise CompareError(str(error)) from error
        if not isinstance(self.until_decided, bool):
            raise CompareError(f"until_decided={self.until_decided!r} is not true or false")

    def arm_of(self, config: TrainConfig) -> str:
        """Return what a config's arm is called: by what of it is not tuned."""
        if self.arm:
            return arm_by(config, self.arm)
        return config.arm if self.tune is None else self.tune.arm_of(config)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked anew; a goal is of its metric alone."""
        if changes.get("metric", self.metric) != self.metric:
            changes = {"goal": None, **changes}
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain values that `from_mapping` takes."""
        told = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        if self.arm:
            told["arm"] = list(self.arm)
        if self.arms is not None:
            told["arms"] = list(self.arms)
        if self.tune is not None:
            told["tune"] = self.tune.to_dict()
        return told

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read a question as people write it, and as `to_dict` gives it.

        Raises:
            CompareError: a key is unknown, or a value makes no sense.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        _known(data, names, "question")
        told = dict(data)
        arms, tune = told.get("arms"), told.get("tune")
        if "arm" in told:
            told["arm"] = _names(told["arm"])
        if arms is not None:
            if not isinstance(arms, list | tuple) or not arms:
                raise CompareError(f"arms={arms!r} is no list of arms; as [group-g8, layer]")
            told["arms"] = tuple(dict.fromkeys(arms))
        if tune is not None:
            if not isinstance(tune, Mapping):
                raise CompareError(f"tune={tune!r} needs settings and seeds")
            told["tune"] = Tune.from_mapping(tune)
        if isinstance(told.get("margin"), int) and not isinstance(told["margin"], bool):
            told["margin"] = float(told["margin"])
        return cls(**told)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What one sweep asked for: verdicts on it are corrected for nothing else."""

    name: str
    runs: frozenset[str]
    """Names of the runs that it was made of: with them their cells."""
    contrasts: int = 0
    """How many it makes, known before the first run."""
    file: str = ""
    """The sweep file, for whoever wants more seeds."""


def _names(given: Any) -> tuple[str, ...]:
    """Return the settings that make an arm; the norm alone is what makes one anyway."""
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        raise CompareError(f"arm={given!r} is no setting; as optimizer, or [norm, lr]")
    named = tuple(dict.fromkeys(name.strip() for name in names))
    return () if named == ("norm",) else named


def _known(data: Mapping[str, Any], names: tuple[str, ...] | list[str], block: str) -> None:
    for key in data:
        if key not in names:
            raise CompareError(f"unknown key {key!r} in {block}{nearest(str(key), names)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_seed(value: object) -> bool:
    return type(value) is int and value >= 0

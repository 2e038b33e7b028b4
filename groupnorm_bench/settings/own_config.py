"""The settings of a run that a training function of the user's own does: of any names.

`--trial package.module:train` makes an `OwnConfig` instead of a `TrainConfig`. The norm with its
groups, the seed and the device are gnbench's and mean what they mean everywhere; every other
setting is the function's, taken as it is given, and there are no defaults for any.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.own import is_own
from groupnorm_bench.settings.config import MAX_ARM, TrainConfig, file_name, is_none, setting_name
from groupnorm_bench.settings.fields import ARM_SETTINGS, NEUTRAL, inert_settings
from groupnorm_bench.wording import printable, setting_value

TRIAL = "trial"
_OURS = (*ARM_SETTINGS, "seed", "device")
_TAKEN = (
    *("arm", "cell", "suite", "variant", "name", "status", "code", "source", "own"),
    *("version", "commit", "torch", "threads"),
)
"""What rows, filters and W&B's config call things of their own."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_MAX_STEM, _MAX_WORD = 120, 200


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnConfig(TrainConfig):
    """Settings of one run of a training function of the user's own.

    Of the fields of `TrainConfig` it has the norm's, `seed` and `device`; the others say nothing.

    Raises:
        ConfigError: a value has the wrong type or is out of range, or a name is taken.
    """

    model: str = NEUTRAL["model"]
    trial: str
    """`package.module:function`."""
    own: tuple[tuple[str, Any], ...] = ()
    """The function's settings, by name: numbers, words, true or false."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        if not isinstance(self.trial, str) or not is_own(self.trial):
            raise ConfigError(f"trial={self.trial!r} is no function; write package.module:function")
        if len(self.trial) > MAX_ARM:
            raise ConfigError(
                f"trial={self.trial!r} has {len(self.trial)} letters; import it under a name of at "
                f"most {MAX_ARM}, in a module of your own"
            )
        values = {name: _plain(name, value) for name, value in self.own if not is_none(value)}
        object.__setattr__(self, "own", tuple(sorted(values.items())))

    @classmethod
    def from_layers(cls, layers: Iterable[Mapping[str, Any]]) -> Self:
        """Build a config from several mappings, of which later ones win.

        Raises:
            ConfigError: see `TrainConfig.from_mapping`; a name that is none of gnbench's is the
                function's.
        """
        ours: list[dict[str, Any]] = []
        trial, own = None, {}
        for layer in layers:
            named: dict[str, Any] = {}
            for key, value in layer.items():
                name = cls.name_of(key)
                if name in named:
                    raise ConfigError(f"{name} is given twice, the second time as {key!r}")
                named[name] = value
            trial = named.pop(TRIAL, trial)
            ours.append({name: named.pop(name) for name in _OURS if name in named})
            own.update(named)
        told = TrainConfig.from_layers([*ours, {"model": NEUTRAL["model"]}])
        return cls(
            trial=trial,  # type: ignore[arg-type]  # None is refused there
            own=tuple(own.items()),
            **{name: getattr(told, name) for name in _OURS},
        )

    @classmethod
    def name_of(cls, key: str) -> str:
        """Return the setting that `key` spells: gnbench's own name, or the function's.

        Raises:
            ConfigError: it cannot be a name.
        """
        if key == TRIAL:
            return key
        try:
            name = setting_name(key)
        except ConfigError:
            name = str(key).replace("-", "_")
        if name in _TAKEN or _NAME.fullmatch(name) is None:
            why = "is a word of gnbench's own" if name in _TAKEN else "is no name"
            raise ConfigError(
                f"setting {printable(str(key), 80)!r} {why}; call it otherwise, in letters, digits "
                "and _"
            )
        return name

    def to_dict(self) -> dict[str, Any]:
        """Return every setting, as `from_layers` reads it back."""
        ours = TrainConfig.to_dict(self)
        return {TRIAL: self.trial} | {n: ours[n] for n in _OURS if n in ours} | dict(self.own)

    def value(self, name: str) -> Any:
        """Return a setting's value; None where it has none."""
        if name in (TRIAL, *_OURS):
            return getattr(self, name)
        return dict(self.own).get(name)

    @property
    def inert(self) -> frozenset[str]:
        return inert_settings(self) & frozenset(ARM_SETTINGS)

    @property
    def cell_settings(self) -> dict[str, Any]:
        inert = self.inert
        arm = {name: getattr(self, name) for name in ARM_SETTINGS if name not in inert}
        return arm | {TRIAL: self.trial} | dict(self.own)

    @property
    def hashed_settings(self) -> dict[str, Any]:
        return self.cell_settings

    def _stem(self, live: Mapping[str, Any]) -> str:
        parts = [f"{name}{setting_value(value)}" for name, value in self.own]
        stem = "-".join(file_name(part) for part in (self.arm, self.trial, *parts))
        return stem[:_MAX_STEM].rstrip("-")


def _plain(name: str, value: Any) -> Any:
    """Return a setting's value in the one way it is kept: text that is a number as that number."""
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not _NUMBER.fullmatch(value):
            if len(value) > _MAX_WORD or not value.isprintable():
                raise ConfigError(
                    f"{name}={printable(value, 60)!r} is no word of at most {_MAX_WORD} letters"
                )
            return value
        value = int(value) if re.fullmatch(r"[+-]?\d{1,15}", value) else float(value)
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    raise ConfigError(
        f"{name}={printable(repr(value), 60)} is not a finite number, a word, true or false"
    )

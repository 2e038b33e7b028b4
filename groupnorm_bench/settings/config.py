"""One experiment's settings: frozen, valid once built, with the identity that everything uses.

Words: an *arm* is a norm with the settings that matter to it (`group-g8`); a *cell* is an arm at
fixed other settings: everything but the seed; a *run* is one cell with one seed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from groupnorm_bench.datasets import AUTO, DATASETS
from groupnorm_bench.datasets.naming import FORMS, is_own_data, short_name
from groupnorm_bench.errors import ConfigError, nearest
from groupnorm_bench.models import MODELS, ModelSpec, model_spec
from groupnorm_bench.norms import GHOST_SIZE, NormSpec, norm_spec
from groupnorm_bench.settings.fields import EXCLUSIVE, SETTINGS, inert_settings
from groupnorm_bench.wording import setting_value

MAX_SEED = 2**32 - 1
MAX_COUNT = 10**9
"""Of epochs, steps or images; beyond it nothing ends, and JSON's readers lose digits."""
MAX_ARM, MAX_MODEL = 100, 64
"""Letters of a norm and a network; with the rest a run's name must fit a folder's 255 bytes."""
AUTO_GROUPS = "auto"
"""As many groups as divide a layer's channels, `MAX_AUTO_GROUPS` at most."""
MAX_AUTO_GROUPS = 32
"""The number that Wu & He 2018 settled on."""

_CHOICES = {name: spec.choices for name, spec in SETTINGS.items() if spec.choices}
_COUNTS = tuple(name for name, spec in SETTINGS.items() if spec.at_least_one)
_ALIASES = {spec.alias: name for name, spec in SETTINGS.items() if spec.alias is not None}


def _setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Settings of one run. Building one checks every value.

    Raises:
        ConfigError: a value has the wrong type, is out of range, or does not fit the others.
    """

    norm: str = _setting("group", "Norm layer: see `gnbench norms`, or package.module:make_norm.")
    num_groups: int | str = _setting(8, "NUMBER of groups per layer (the paper's G), or auto.")
    group_size: int | None = _setting(None, "Channels PER group, instead of --groups.")
    ghost_size: int = _setting(GHOST_SIZE, "Images per sub-batch of ghost-batch.")
    model: str = _setting(
        "cnn",
        f"Network: {', '.join(MODELS)}, torchvision:NAME, timm:NAME, package.module:make_model.",
    )
    batch_size: int = _setting(64, "Images per step.")
    epochs: int = _setting(5, "Passes over the training images.")
    max_steps: int | None = _setting(None, "Optimizer steps, instead of --epochs.")
    lr: float = _setting(1e-3, "Learning rate; the peak one where the schedule moves it.")
    optimizer: str = _setting("adam", "adam, adamw, or sgd (momentum 0.9).")
    weight_decay: float = _setting(0.0, "Weight decay of convolution and linear weights.")
    weight_decay_all: bool = _setting(False, "Decay norm scales, shifts and biases as well.")
    schedule: str = _setting("constant", "Learning rate over time: constant, cosine, one-cycle.")
    dataset: str = _setting(AUTO, f"{', '.join([AUTO, *DATASETS, *FORMS])}: see `gnbench data`.")
    train_limit: int | None = _setting(None, "Train on this many images, stratified by class.")
    order: str = _setting("shuffle", "shuffle, or by-class: each batch from few classes.")
    augment: str = _setting("none", "none, shift (2 pixels), or crop-flip (4, and mirrored).")
    seed: int = _setting(0, "Fixes initial weights and data order, by two generators.")
    device: str = _setting("auto", "auto, cpu, cuda, cuda:N, or mps.")
    precision: str = _setting("fp32", "fp32, or bf16 (autocast; weights stay fp32).")
    compile: str = _setting("auto", "Compile loops (CPU) or steps (GPU): auto, on, off.")

    def __post_init__(self) -> None:
        hints = _field_types()
        for name, kind in hints.items():
            object.__setattr__(self, name, _coerce(name, getattr(self, name), kind))
        self._check_ranges()
        self._check_norm()

    def _check_ranges(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if name == "dataset" and is_own_data(value):
                continue
            if value not in choices:
                raise ConfigError(f"{name}={value!r} is unknown{nearest(value, choices)}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            known = ("auto", "cpu", "cuda", "cuda:0", "mps")
            raise ConfigError(f"device={self.device!r} is unknown{nearest(self.device, known)}")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} is too small; set {name} to 1 or more")
            if value is not None and value > MAX_COUNT:
                raise ConfigError(f"{name}={value} is too large; {MAX_COUNT:,} is the most")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr={self.lr} is not a positive number; try lr=0.001")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(
                f"weight_decay={self.weight_decay} is not a number from 0 on; try 0.0001"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed={self.seed} is out of range; use 0 to {MAX_SEED}")

    def _check_norm(self) -> None:
        spec, model = self.norm_spec, self.model_spec
        if len(self.norm) > MAX_ARM:
            raise ConfigError(
                f"norm={self.norm!r} has {len(self.norm)} letters, which no folder's name can "
                f"hold; import it under a name of at most {MAX_ARM}, in a module of your own"
            )
        if len(self.model) > MAX_MODEL:
            raise ConfigError(
                f"model={self.model!r} has {len(self.model)} letters, which no folder's name can "
                f"hold; import it under a name of at most {MAX_MODEL}, in a module of your own"
            )
        if spec.reads_groups:
            self._check_groups()
        if spec.fuses_activation and model.apart is not None:
            raise ConfigError(
                f"norm={self.norm!r} brings its own activation, and in {self.model} an addition "
                f"stands between norm layer {model.apart!r} and its ReLU; use a norm without "
                "activation, or model=cnn"
            )
        if spec.reads_ghost_size and self.ghost_size < 2:
            raise ConfigError(
                f"ghost_size={self.ghost_size} gives norm={self.norm!r} no batch to take "
                "statistics over; set ghost_size to 2 or more, or norm to 'instance'"
            )
        if spec.uses_batch_statistics and self.batch_size == 1:
            raise ConfigError(
                f"batch_size=1 gives norm={self.norm!r} no batch to take statistics over; "
                "set batch_size to 2 or more, or norm to 'instance'"
            )

    def _check_groups(self) -> None:
        name = "num_groups" if self.group_size is None else "group_size"
        value = getattr(self, name)
        if value == AUTO_GROUPS:
            return
        if not self.model_spec.norm_channels:  # once it is built, its channels are known
            if value < 1:
                raise ConfigError(f"{name}={value} is too small; set {name} to 1 or more")
        elif value not in (valid := valid_num_groups(self.model)):
            raise ConfigError(
                f"{name}={value} does not divide {_channels_in_words(self.model)} channels; "
                f"set {name} to one of {list(valid)}"
            )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Build a config from settings as a file, an option or a W&B agent spells them.

        Args:
            settings: names (`num_groups`, `num-groups`, `groups`) to values; numbers may come as
                text, as YAML's `1e-3` does.

        Raises:
            ConfigError: a name is unknown (the nearest one is offered), a value is not valid, or
                both `num_groups` and `group_size` are given.
        """
        return cls.from_layers([settings])

    @classmethod
    def from_layers(cls, layers: Iterable[Mapping[str, Any]]) -> Self:
        """Build a config from several mappings, of which later ones win.

        Raises:
            ConfigError: see `from_mapping`; two names that exclude each other are refused within
                one mapping, and the later one wins between two.
        """
        merged: dict[str, Any] = {}
        for layer in layers:
            given = named(layer)
            for one, other in EXCLUSIVE:
                has_one, has_other = (not is_none(given.get(name)) for name in (one, other))
                if has_one and has_other:
                    raise ConfigError(
                        f"{one}={given[one]} and {other}={given[other]} exclude each other; "
                        "give one of them"
                    )
                if has_one:
                    merged.pop(other, None)
                if has_other:
                    merged.pop(one, None)
            merged.update(given)
        return cls(**merged)

    def to_dict(self) -> dict[str, Any]:
        """Return every setting, as `from_mapping` reads it back."""
        settings = dataclasses.asdict(self)
        for one, other in EXCLUSIVE:
            if settings[other] is not None:
                del settings[one]
        return settings

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed."""
        return dataclasses.replace(self, **changes)

    def value(self, name: str) -> Any:
        """Return a setting's value, also where nothing reads it."""
        return getattr(self, name)

    @classmethod
    def name_of(cls, key: str) -> str:
        """Return the setting that `key` spells; see `setting_name`."""
        return setting_name(key)

    @property
    def norm_spec(self) -> NormSpec:
        return norm_spec(self.norm)

    @property
    def model_spec(self) -> ModelSpec:
        return model_spec(self.model)

    def num_groups_for(self, num_channels: int) -> int:
        """Return the number of groups of a layer of `num_channels` channels.

        `auto` is the largest number up to 32 that divides them.

        Raises:
            ConfigError: `group_size` does not divide them.
        """
        if self.group_size is None:
            if self.num_groups == AUTO_GROUPS:
                return max(n for n in divisors(num_channels) if n <= MAX_AUTO_GROUPS)
            return int(self.num_groups)
        if num_channels % self.group_size:
            raise ConfigError(
                f"group_size={self.group_size} does not divide num_channels={num_channels}; "
                f"set group_size to one of {divisors(num_channels)}"
            )
        return num_channels // self.group_size

    @property
    def inert(self) -> frozenset[str]:
        """Names of the settings that cannot change this run's result."""
        return inert_settings(self)

    @property
    def cell_settings(self) -> dict[str, Any]:
        """Everything that makes the cell: all live settings but the seed and the device."""
        inert = self.inert
        return {
            name: getattr(self, name)
            for name in _field_types()
            if name not in inert and SETTINGS[name].in_cell
        }

    @property
    def hashed_settings(self) -> dict[str, Any]:
        """What the cell's hash is made of."""
        return without_new_defaults(self.cell_settings)

    @property
    def arm(self) -> str:
        """The norm with the settings that matter to it, as `group-g8` or `batch`.

        `ghost-batch` is ghosts of 16 images, as it was in 0.1.0; `ghost-batch-n2` of 2.
        """
        name = file_name(self.norm)
        if self.norm_spec.reads_ghost_size and self.ghost_size != GHOST_SIZE:
            return f"{name}-n{self.ghost_size}"
        if not self.norm_spec.reads_groups:
            return name
        if self.group_size is not None:
            return f"{name}-s{self.group_size}"
        return f"{name}-g{self.num_groups}"

    @property
    def cell(self) -> str:
        """The cell's name: arm, batch size, settings that differ from the defaults, 8 hex."""
        return f"{self._stem(self.cell_settings)}-{_digest(self.hashed_settings)}"

    @property
    def name(self) -> str:
        """The run's name and its folder's: the cell's with the seed before the hash."""
        return run_name(self.cell, self.seed)

    def _stem(self, live: Mapping[str, Any]) -> str:
        parts = [self.arm, f"b{self.batch_size}"]
        for name, spec in SETTINGS.items():
            if spec.part is not None and name in live and live[name] != getattr(_DEFAULTS, name):
                value = live[name]
                if name == "dataset" and is_own_data(value):
                    value = short_name(value)
                parts.append(spec.part + ("" if value is True else file_name(setting_value(value))))
        return "-".join(parts)


def file_name(text: str) -> str:
    """Return `my_norms.make` for `my_norms:make`: letters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text.replace(":", "."))


def divisors(number: int) -> list[int]:
    """Return the numbers that divide `number`, the least first."""
    return [n for n in range(1, number + 1) if number % n == 0]


def run_name(cell: str, seed: int) -> str:
    """Return the name of a cell's run: the seed goes before the hash."""
    stem, _, digest = cell.rpartition("-")
    return f"{stem}-s{seed}-{digest}"


def without_new_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings less those that 0.1.0 did not have and that stand at their default.

    What is no setting of ours stays.

    So a run that an older version would train the same keeps its name, its cell and its hash.
    """
    return {
        name: value
        for name, value in settings.items()
        if not (name in SETTINGS and SETTINGS[name].is_new and value == getattr(_DEFAULTS, name))
    }


def _digest(hashed: Mapping[str, Any]) -> str:
    text = json.dumps(hashed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _channels_in_words(model: str) -> str:
    """Return `the CNN's 32 and 64`."""
    *others, last = map(str, sorted(set(model_spec(model).norm_channels.values())))
    whose = "the CNN's" if model == "cnn" else f"{model}'s"
    return f"{whose} {', '.join(others)} and {last}" if others else f"{whose} {last}"


@functools.cache
def valid_num_groups(model: str = "cnn") -> tuple[int, ...]:
    """Return every number of groups that divides the channels of all the network's norm layers."""
    channels = set(model_spec(model).norm_channels.values())
    return tuple(g for g in range(1, min(channels) + 1) if all(c % g == 0 for c in channels))


def setting_name(key: str) -> str:
    """Return the field that `key` spells: `num-groups` and `groups` are `num_groups`.

    Raises:
        ConfigError: no setting is spelled like that; the nearest one is offered.
    """
    if key in _field_types():
        return key
    name = str(key).replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in _field_types():
        raise ConfigError(f"unknown setting {key!r}{_hint(name)}")
    return name


def _hint(name: str) -> str:
    """Offer the setting that other people's files call `name`, else the nearest one."""
    own = name.rpartition(".")[2]  # `model.lr` is how nested settings are flattened elsewhere
    squeezed = own.lower().replace("_", "")
    for setting, spec in SETTINGS.items():
        if squeezed in (setting.replace("_", ""), *spec.elsewhere):
            return f"; did you mean {setting!r}?"
    return nearest(own, _field_types())


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their fields' names, whichever way they are spelled.

    Raises:
        ConfigError: a name is unknown, or given twice.
    """
    if settings.keys() <= _field_types().keys():
        return dict(settings)
    given: dict[str, Any] = {}
    for key, value in settings.items():
        name = setting_name(key)
        if name in given:
            raise ConfigError(f"{name} is given twice, the second time as {key!r}; keep one")
        given[name] = value
    return given


_types: dict[str, Any] = {}


def _field_types() -> dict[str, Any]:
    if not _types:
        _types.update(typing.get_type_hints(TrainConfig))
    return _types


def is_none(value: Any) -> bool:
    """Return whether a value is missing, as YAML or as a W&B agent's text spells it."""
    return value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _coerce(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as the type of its field, from YAML, from text, or as it is."""
    if isinstance(kind, types.UnionType):
        kinds = typing.get_args(kind)
        if types.NoneType in kinds and is_none(value):
            return None
        kind = next(k for k in kinds if k is not types.NoneType)
    if value in SETTINGS[name].words:
        return value
    if type(value) is kind:  # what nearly every value is; a sweep builds thousands of configs
        return value
    expected = " or ".join((_EXPECTED[kind], *SETTINGS[name].words))
    wrong = ConfigError(f"{name}={value!r} is not {expected}")
    if kind is bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind is str:
        if isinstance(value, bool) and "on" in SETTINGS[name].choices:  # YAML reads on and off so
            return "on" if value else "off"
        if not isinstance(value, str):
            raise wrong
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    try:
        number = float(value) if kind is float or not isinstance(value, int) else value
    except (ValueError, OverflowError):
        raise wrong from None
    if kind is float:
        return float(number)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value):
        return int(value)
    if not math.isfinite(number) or number != int(number):
        raise wrong
    return int(number)


_DEFAULTS = TrainConfig()

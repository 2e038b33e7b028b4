"""Which setting is read under which, what it may be, how a run is named by it: told here, once.

`SETTINGS` has a line for every field of `TrainConfig` (whose type, default and help stand there).
Identity and hash, the sweep's grid and search, W&B's config both ways, and the messages derive
from it: a new setting is a field and a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groupnorm_bench.datasets import AUTO, DATASETS
from groupnorm_bench.norms import norm_spec

if TYPE_CHECKING:
    from groupnorm_bench.settings.config import TrainConfig

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "one-cycle")
PRECISIONS = ("fp32", "bf16")
COMPILE = ("auto", "on", "off")
ORDERS = ("shuffle", "by-class")
AUGMENTATIONS = ("none", "shift", "crop-flip")


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingSpec:
    """What the rest of the package must know of a setting, besides its type and default."""

    part: str | None = None
    """How a run's name spells a value that is not the default: `lr` in `lr0.01`. None: never."""
    choices: tuple[str, ...] = ()
    """The words it takes; none where it is a number, or checked by its own rule."""
    words: tuple[str, ...] = ()
    """Words that a setting takes which else is a number."""
    at_least_one: bool = False
    """A count: 1 or more."""
    alias: str | None = None
    """A shorter spelling, as in `--groups`."""
    elsewhere: tuple[str, ...] = ()
    """What other people's files call it, lower case, without `_`: told as a hint, not taken."""
    gate: str | None = None
    """The setting whose value decides whether this one is read."""
    is_read_under: Callable[[Any], bool] = bool
    """Called with the gate's value."""
    instead_of: str | None = None
    """The setting that this one replaces when it is set, and yields to when it is None."""
    in_arm: bool = False
    """Makes the arm, with the other settings of that kind."""
    in_cell: bool = True
    """Changes the result; what does not is recorded, and no part of the cell."""
    is_new: bool = False
    """Added after 0.1.0: at its default it stays out of the hash, so that older runs are known."""


def _reads_groups(norm: str) -> bool:
    return norm_spec(norm).reads_groups


def _reads_ghost_size(norm: str) -> bool:
    return norm_spec(norm).reads_ghost_size


SETTINGS: dict[str, SettingSpec] = {  # in the order of a run's name
    "norm": SettingSpec(
        in_arm=True, elsewhere=("normalization", "normalisation", "normlayer", "normtype")
    ),
    "num_groups": SettingSpec(
        alias="groups",
        words=("auto",),
        in_arm=True,
        gate="norm",
        is_read_under=_reads_groups,
        elsewhere=("ngroups", "g"),
    ),
    "group_size": SettingSpec(
        in_arm=True,
        gate="norm",
        is_read_under=_reads_groups,
        instead_of="num_groups",
        elsewhere=("channelspergroup",),
    ),
    "ghost_size": SettingSpec(
        in_arm=True,
        gate="norm",
        is_read_under=_reads_ghost_size,
        is_new=True,
        elsewhere=("ghostbatchsize", "virtualbatchsize", "gpubatchsize"),
    ),
    "batch_size": SettingSpec(
        at_least_one=True, elsewhere=("batch", "bs", "trainbatchsize")
    ),  # in every name, at its default too
    "model": SettingSpec(
        part="", is_new=True, elsewhere=("network", "net", "arch", "architecture", "backbone")
    ),
    "dataset": SettingSpec(part="", choices=(AUTO, *DATASETS), elsewhere=("data", "datasetname")),
    "epochs": SettingSpec(
        part="e", at_least_one=True, elsewhere=("epoch", "numepochs", "nepochs", "maxepochs")
    ),
    "max_steps": SettingSpec(
        part="steps",
        at_least_one=True,
        instead_of="epochs",
        elsewhere=("steps", "numsteps", "iterations", "maxiter", "numtrainingsteps"),
    ),
    "lr": SettingSpec(part="lr", elsewhere=("learningrate", "learnrate", "baselr", "eta")),
    "optimizer": SettingSpec(part="", choices=OPTIMIZERS, elsewhere=("optimiser", "optim", "opt")),
    "weight_decay": SettingSpec(part="wd", elsewhere=("wd", "l2", "decay")),
    "weight_decay_all": SettingSpec(part="wdall", gate="weight_decay"),
    "schedule": SettingSpec(
        part="", choices=SCHEDULES, elsewhere=("scheduler", "lrscheduler", "lrschedule")
    ),
    "train_limit": SettingSpec(
        part="n", at_least_one=True, elsewhere=("ntrain", "numtrain", "trainsize", "limit")
    ),
    "order": SettingSpec(
        part="", choices=ORDERS, is_new=True, elsewhere=("dataorder", "sampler", "shuffle")
    ),
    "augment": SettingSpec(
        part="",
        choices=AUGMENTATIONS,
        is_new=True,
        elsewhere=("augmentation", "transforms", "aug", "dataaugmentation"),
    ),
    "precision": SettingSpec(part="", choices=PRECISIONS, elsewhere=("dtype", "amp")),
    "compile": SettingSpec(part="compile-", choices=COMPILE),
    "seed": SettingSpec(in_cell=False, elsewhere=("randomseed", "rngseed", "randomstate")),
    "device": SettingSpec(in_cell=False),
}

NEUTRAL: dict[str, Any] = {"norm": "none", "batch_size": 64, "model": "any:network"}
"""Values under which no other setting is refused or read: for checking one by itself. The network
is one of which nothing is known until it is built, and it never is."""


def _exclusive() -> tuple[tuple[str, str], ...]:
    pairs = ((spec.instead_of, name) for name, spec in SETTINGS.items())
    return tuple((replaced, name) for replaced, name in pairs if replaced is not None)


def _links() -> tuple[tuple[str, ...], ...]:
    """Join settings that gate or replace each other; the one that decides comes first."""
    links: dict[str, list[str]] = {}
    for name, spec in SETTINGS.items():
        if spec.gate is not None:
            links.setdefault(spec.gate, []).append(name)
        elif spec.instead_of is not None:
            links.setdefault(name, []).append(spec.instead_of)
    return tuple((first, *others) for first, others in links.items())


ARM_SETTINGS = tuple(name for name, spec in SETTINGS.items() if spec.in_arm)
"""What makes the arm; what else the cell holds is the *setting* of a contrast."""
EXCLUSIVE = _exclusive()
"""Pairs that may not be given together: the one with a default, and the one instead of it."""
LINKS = _links()
"""Settings of which the first decides which of the others are read."""
_LINKED = {name for link in LINKS for name in link}
_REPLACED = {replaced for replaced, _ in EXCLUSIVE if SETTINGS[replaced].gate is None}
PLAIN = frozenset(
    name for name, s in SETTINGS.items() if s.in_cell and (name not in _LINKED or name in _REPLACED)
)
"""Settings that, swept without those they are linked to, are live at every value."""


_GATED = tuple((n, s.gate, s.is_read_under) for n, s in SETTINGS.items() if s.gate is not None)


def read_under_gates(config: TrainConfig) -> frozenset[str]:
    """Return those settings with a gate that the config's values of their gates let through."""
    return frozenset(
        name for name, gate, is_read_under in _GATED if is_read_under(getattr(config, gate))
    )


def inert_settings(config: TrainConfig) -> frozenset[str]:
    """Return the settings that cannot change the result of this config's run."""
    read = read_under_gates(config)
    inert = {name for name, _, _ in _GATED if name not in read}
    for replaced, name in EXCLUSIVE:
        inert.add(name if getattr(config, name) is None else replaced)
    return frozenset(inert)

"""The sweep file: W&B's own format, read as W&B reads it, refused by file, line and name.

Nothing is ignored: a key that W&B knows and we do not serve is refused, as is a key nobody knows.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from groupnorm_bench.compare.question import Question
from groupnorm_bench.errors import CompareError, ConfigError, SweepError, nearest
from groupnorm_bench.metrics import METRICS, metric_spec
from groupnorm_bench.settings.config import MAX_COUNT, setting_name
from groupnorm_bench.settings.own_config import TRIAL, OwnConfig
from groupnorm_bench.settings.yamlfile import YamlFile, read_yaml
from groupnorm_bench.sweep.file.axes import Axis, read_axes
from groupnorm_bench.sweep.file.distributions import as_number, with_numbers
from groupnorm_bench.sweep.file.question import read_question
from groupnorm_bench.wording import printable

Method = Literal["grid", "random", "bayes"]
METHODS = ("grid", "random", "bayes")
EPOCH_METRICS = tuple(name for name, spec in METRICS.items() if spec.per_epoch)
"""Metrics that every epoch's row has."""
SUMMARY_METRICS = tuple(
    name
    for name, spec in METRICS.items()
    if spec.in_summary and not spec.per_epoch and not name.startswith("test/")
)
"""Metrics known at the end only; those of the test set are not among them: they choose nothing."""
_KEYS = (
    *("method", "metric", "parameters", "early_terminate", "run_cap", "name", "description"),
    *("project", "entity", "program", "command", "kind", "apiVersion", TRIAL),
)
_UNSUPPORTED = {
    "question": "W&B warns of it; write it into a file beside this one, NAME.question.yaml",
    "controller": "gnbench is the controller here",
    "job": "it is for W&B Launch",
    "image_uri": "it is for W&B Launch",
    "metrics": "a sweep here goes by one; write `metric:`",
    "scheduler": "gnbench schedules the runs itself",
}
_NAMES = ("name", "project", "entity")
"""Shown wherever runs are told of."""
_TEXTS = ("name", "description", "project", "entity", "program", "kind", "apiVersion")


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """What a search goes by."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    """W&B's default, hence ours."""
    target: float | None = None
    """Once a run's metric is this good, no further run starts."""

    def is_reached(self, value: float) -> bool:
        """Return whether `value` is as good as the target."""
        if self.target is None:
            return False
        return value >= self.target if self.goal == "maximize" else value <= self.target


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperband:
    """W&B's `early_terminate`: at each band of epochs the best 1/eta of the runs go on."""

    bands: tuple[int, ...]
    """Epochs, ascending: `min_iter * eta**k` from 0 on, or `max_iter // eta**k` from 1 to s."""
    eta: int = 3

    def band(self, epoch: int) -> int:
        """Return how many bands lie at or before an epoch."""
        return bisect.bisect_right(self.bands, epoch)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSpec:
    """A sweep file whose every key was understood."""

    path: Path
    method: Method
    axes: tuple[Axis, ...]
    """The parameters in the file's order, without `seed`."""
    seeds: tuple[int, ...]
    """From the parameter `seed`: repeats, never a hyperparameter. (0,) where the file has none."""
    metric: Metric | None
    early_terminate: Hyperband | None
    run_cap: int | None
    name: str
    """The file's `name`, else its own without the suffix."""
    description: str | None
    project: str | None
    entity: str | None
    question: Question | None
    """From the file beside it; None where there is none."""
    raw: Mapping[str, Any]
    """The file as YAML reads it, text that is a number as that number: what W&B is sent."""
    trial: str | None = None
    """The training function of the user's own that does its runs; None: gnbench trains."""
    tunes: str = ""
    """The sweep whose settings these runs tune; they are never reported. Empty: none."""
    notes: tuple[str, ...] = ()
    """What of the file does nothing here, a line each."""

    @property
    def settings(self) -> frozenset[str]:
        """Names of the settings that the sweep sets."""
        return frozenset(name for axis in self.axes for name in axis.settings)


def read_spec(path: Path, trial: str | None = None) -> SweepSpec:
    """Read a sweep file.

    Args:
        path: the file.
        trial: the training function that was typed beside it; it wins over the file's.

    Raises:
        SweepError: it is not readable, not YAML, or has a key or a value that W&B would refuse or
            that gnbench does not serve; the message has the file, the line and the remedy.
    """
    try:
        document = read_yaml(path)
    except ConfigError as error:
        raise SweepError(str(error)) from error
    data = document.data
    _check_keys(document)
    method = _method(document)
    trial = _trial(document, trial)
    axes, seeds = read_axes(document, method, trial)
    metric = _metric(document, trial)
    return SweepSpec(
        path=path,
        method=method,
        axes=axes,
        seeds=seeds,
        metric=metric,
        early_terminate=_early_terminate(document, metric, trial),
        run_cap=_run_cap(document),
        name=(data.get("name") or printable(path.stem)).strip(),
        description=data.get("description"),
        project=data.get("project"),
        entity=data.get("entity"),
        raw=_as_sent(data, trial),
        trial=trial,
        notes=_for_agents_alone(document),
        question=_in_its_metric(read_question(path), metric) if trial else read_question(path),
    )


def _in_its_metric(question: Question | None, metric: Metric | None) -> Question | None:
    """Return what the sweep of a trial of the user's own asks: by its own metric, and its goal."""
    if metric is None:
        return question
    question = question or Question()
    if question.metric == Question().metric:
        question = question.replace(metric=metric.name)
    if question.metric != metric.name or question.goal is not None:
        return question
    try:
        return question.replace(goal=metric.goal)
    except CompareError as error:
        raise SweepError(str(error)) from error


def _trial(document: YamlFile, typed: str | None) -> str | None:
    """Return the training function of the user's own that a sweep is of, if it is of one.

    Raises:
        SweepError: the file names two, or something else.
    """
    at = [keys for keys in ((TRIAL,), ("parameters", TRIAL)) if _holds(document.data, keys)]
    if not at:
        return typed
    where = document.where(*at[-1])
    if len(at) > 1:
        raise SweepError(f"{where} trial is there twice; keep one")
    told = document.data[TRIAL] if at[0] == (TRIAL,) else document.data["parameters"][TRIAL]
    if isinstance(told, dict):
        values = told.get("values", [told.get("value")])
        told = values[0] if isinstance(values, list) and len(values) == 1 else None
    if not isinstance(told, str):
        raise SweepError(
            f"{where} trial is one function; write `trial: {{value: package.module:function}}`"
        )
    try:
        return typed or OwnConfig(trial=told).trial
    except ConfigError as error:
        raise SweepError(f"{where} {error}") from error


def _holds(data: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    inner: Any = data
    for key in keys:
        if not isinstance(inner, dict) or key not in inner:
            return False
        inner = inner[key]
    return True


def _as_sent(data: Mapping[str, Any], trial: str | None) -> dict[str, Any]:
    def entry(given: Mapping[str, Any]) -> dict[str, Any]:
        if "parameters" not in given:
            return with_numbers(given)
        inner = {name: entry(value) for name, value in given["parameters"].items()}
        return {**given, "parameters": inner}

    sent = entry({key: value for key, value in data.items() if key != TRIAL})
    if trial is not None:
        sent["parameters"] = {**sent["parameters"], TRIAL: {"value": trial}}
    for key in ("metric", "early_terminate"):
        if key in sent:
            sent[key] = {name: as_number(value) for name, value in sent[key].items()}
    return sent


def _check_keys(document: YamlFile) -> None:
    for key, value in document.data.items():
        if key in _UNSUPPORTED:
            raise SweepError(
                f"{document.where(key)} {key!r} is not supported: {_UNSUPPORTED[key]}; leave it out"
            )
        if key not in _KEYS:
            raise SweepError(f"{document.where(key)} unknown key {key!r}{nearest(key, _KEYS)}")
        if key in _TEXTS and (not isinstance(value, str) or not value):
            raise SweepError(f"{document.where(key)} {key}={value!r} is not text; write a word")
        if key in _NAMES and not str(value or "").strip().isprintable():
            raise SweepError(
                f"{document.where(key)} {key}={value!r} has line breaks or control characters; "
                "write it without them"
            )


_MACRO = re.compile(r"\$\{(env|interpreter|program|args\w*|envvar:\w+)\}")
_OURS = frozenset(
    ("gnbench", "train", "python", "python3", "-m", "groupnorm_bench", "-q", "--quiet")
)


def _for_agents_alone(document: YamlFile) -> tuple[str, ...]:
    """Refuse settings that only W&B's agents would see; tell what else is for them alone.

    The same file would otherwise mean two sweeps.
    """
    notes = []
    program, command = document.data.get("program"), document.data.get("command", [])
    if program not in (None, "gnbench"):
        notes.append(f"program={program!r} is for W&B's agents; gnbench trains the runs itself")
    where = document.where("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise SweepError(f"{where} command={command!r} is not a list of words")
    others = []
    for place, word in enumerate(command):
        for part in word.split() or [word]:
            _check_word(where, part, command[place + 1] if place + 1 < len(command) else "")
        if not _MACRO.fullmatch(word) and word not in (*_OURS, "--config", program):
            others.append(word)
    if others:
        notes.append(
            f"command: {' '.join(others)} is for W&B's agents; here the options of gnbench sweep "
            "count"
        )
    return tuple(notes)


def _check_word(where: str, word: str, following: str) -> None:
    option, has_value, value = word.lstrip("-").partition("=")
    if not word.startswith("-") and not has_value:
        return
    is_file = option == "config" and (value or following) == "${args_json_file}"
    if word.startswith("--") and option in ("config", "set") and not is_file:
        raise SweepError(
            f"{where} command has {word!r}, whose settings only W&B's agents would see; write "
            "them under parameters"
        )
    try:
        name = setting_name(option)
    except ConfigError:
        return  # an option that is no setting, such as --out
    raise SweepError(
        f"{where} command has {word!r}, which only W&B's agents would see; write "
        f"`{name}: {{value: ...}}` under parameters"
    )


def _method(document: YamlFile) -> Method:
    method = document.data.get("method")
    if method is None:
        raise SweepError(f"{document.path} has no `method`; write `method: grid`")
    if method == "custom":
        raise SweepError(
            f"{document.where('method')} method='custom' is not supported: it needs a scheduler "
            "of your own; use grid, random or bayes"
        )
    if method not in METHODS:
        raise SweepError(
            f"{document.where('method')} method={method!r} is unknown"
            f"{nearest(str(method), METHODS)}"
        )
    return cast("Method", method)


def _metric(document: YamlFile, trial: str | None) -> Metric | None:
    if "metric" not in document.data:
        if trial is not None:
            raise SweepError(
                f"{document.path} has a trial and no metric; write `metric: {{name: dice, goal: "
                "maximize}}`, by a name that it returns"
            )
        if document.data.get("method") == "bayes":
            raise SweepError(
                f"{document.path} has method bayes and no metric; write "
                "`metric: {name: val/accuracy, goal: maximize}`"
            )
        return None
    given, where = _mapping(document, "metric", ("name", "goal", "target", "impute"))
    name = given.get("name")
    if not isinstance(name, str):
        raise SweepError(f"{where()} metric has no name; write `name: val/accuracy`")
    if name.startswith("test/"):
        raise SweepError(
            f"{where('name')} metric name={name!r} would choose by the test set, which is read "
            f"once after every choice; use {name.replace('test/', 'val/')!r}"
        )
    known = (*EPOCH_METRICS, *SUMMARY_METRICS)
    if name not in known and trial is None:
        raise SweepError(f"{where('name')} metric name={name!r} is unknown{nearest(name, known)}")
    goal = given.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise SweepError(
            f"{where('goal')} metric goal={goal!r} is unknown"
            f"{nearest(str(goal), ('minimize', 'maximize'))}"
        )
    if "goal" not in given and (metric_spec(name).larger_is_better or name not in known):
        raise SweepError(
            f"{where()} metric {name} has no goal, which to W&B means minimize; write "
            "`goal: maximize`"
        )
    if given.get("impute", "worst") != "worst":
        raise SweepError(
            f"{where('impute')} metric impute={given['impute']!r} is not supported: a run without "
            "a result counts as the worst; leave it out"
        )
    target = given.get("target")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
        raise SweepError(f"{where('target')} metric target={target!r} is not a number")
    return Metric(name=name, goal=goal, target=target)


def _mapping(document: YamlFile, key: str, allowed: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    given = document.data[key]
    if not isinstance(given, dict) or not given:
        raise SweepError(
            f"{document.where(key)} {key}={given!r} is not a mapping; write "
            f"`{allowed[0]}: ...` under it"
        )

    def where(*inner: str) -> str:
        return document.where(key, *inner)

    for inner in given:
        if inner not in allowed:
            raise SweepError(
                f"{where(inner)} {key}: unknown key {inner!r}{nearest(inner, allowed)}"
            )
    return {inner: as_number(value) for inner, value in given.items()}, where


def _early_terminate(
    document: YamlFile, metric: Metric | None, trial: str | None
) -> Hyperband | None:
    if "early_terminate" not in document.data:
        return None
    keys = ("type", "min_iter", "max_iter", "s", "eta", "strict")
    given, where = _mapping(document, "early_terminate", keys)
    if given.get("type") != "hyperband":
        raise SweepError(
            f"{where('type')} early_terminate type={given.get('type')!r} is unknown; use hyperband"
        )
    if metric is None:
        raise SweepError(
            f"{where()} early_terminate needs a metric; write "
            "`metric: {name: val/accuracy, goal: maximize}`"
        )
    if metric.name not in EPOCH_METRICS and trial is None:
        raise SweepError(
            f"{where()} early_terminate goes by epochs, but metric {metric.name} is known only at "
            f"the end; use one of {', '.join(EPOCH_METRICS)}"
        )
    if given.get("strict", True) is not True:
        raise SweepError(
            f"{where('strict')} early_terminate strict={given['strict']!r} is not supported; leave "
            "it out, which is strict"
        )
    for key, least, most in (
        *(("min_iter", 1, MAX_COUNT), ("max_iter", 1, MAX_COUNT)),
        *(("s", 1, 100), ("eta", 2, MAX_COUNT)),
    ):
        if key in given and (type(given[key]) is not int or not least <= given[key] <= most):
            raise SweepError(
                f"{where(key)} early_terminate {key}={given[key]!r} is not a whole number from "
                f"{least} to {most:,}"
            )
    return _bands(given, where)


def _bands(given: Mapping[str, Any], where: Any) -> Hyperband:
    eta = given.get("eta", 3)
    extra = next((key for key in ("max_iter", "s") if key in given), None)
    if "min_iter" in given and extra is not None:
        raise SweepError(
            f"{where('min_iter')} early_terminate takes min_iter, or max_iter and s, but not "
            f"min_iter and {extra}; leave one of them out"
        )
    if "min_iter" in given:
        return Hyperband(bands=_powers(given["min_iter"], eta), eta=eta)
    if "max_iter" not in given or "s" not in given:
        raise SweepError(f"{where()} early_terminate needs min_iter, or max_iter and s")
    bands = {given["max_iter"] // eta**k for k in range(1, given["s"] + 1)} - {0}
    if not bands:
        raise SweepError(
            f"{where('max_iter')} early_terminate max_iter={given['max_iter']} with eta={eta} has "
            "no band; make max_iter eta or more"
        )
    return Hyperband(bands=tuple(sorted(bands)), eta=eta)


def _powers(first: int, eta: int) -> tuple[int, ...]:
    bands = [first]
    while bands[-1] < MAX_COUNT:
        bands.append(bands[-1] * eta)
    return tuple(bands)


def _run_cap(document: YamlFile) -> int | None:
    cap = as_number(document.data.get("run_cap"))
    if "run_cap" in document.data and (type(cap) is not int or cap < 1):
        raise SweepError(
            f"{document.where('run_cap')} run_cap={cap!r} is not a number of runs; use 1 or more"
        )
    return cap

"""A plan as a W&B sweep: its grid gives exactly the plan's runs, each once.

W&B's grid is a product of lists. Settings that hang together (`num_groups` exists for some norms
only) become one list of dictionaries, `variant`; the rest stay plain lists.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from groupnorm_bench.errors import SweepError
from groupnorm_bench.settings.config import TrainConfig, without_new_defaults
from groupnorm_bench.settings.fields import ARM_SETTINGS, EXCLUSIVE, SETTINGS
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.sweep.file.spec import SweepSpec

VARIANT = "variant"
MAX_LISTED = 10_000
"""W&B's own interface is of no use beyond this."""


def compile_plan(spec: SweepSpec, runs: Iterable[TrainConfig]) -> dict[str, Any]:
    """Return the W&B sweep config of a grid's runs.

    Raises:
        SweepError: there are more runs than W&B can show.
    """
    points = [live_settings(run) for run in itertools.islice(runs, MAX_LISTED + 1)]
    if len(points) > MAX_LISTED:
        raise SweepError(
            f"{spec.path} has over {MAX_LISTED:,} runs, too many for a W&B sweep; type "
            "--executor local, then gnbench sync"
        )
    return _head(spec) | {"method": "grid", "parameters": _parameters(points)}


def compile_search(spec: SweepSpec, base: TrainConfig, run_cap: int | None) -> dict[str, Any]:
    """Return the W&B sweep config of a random or bayes search: the file's, with our command.

    Settings that the file does not name are sent as they stand here, so that every machine that
    joins trains the same.
    """
    given = dict(spec.raw)
    kept = ("method", "metric", "early_terminate", "run_cap", "parameters")
    config = _head(spec) | {key: given[key] for key in kept if key in given}
    swept = spec.settings | {replaced for replaced, name in EXCLUSIVE if name in spec.settings}
    constants = {
        name: {"value": value}
        for name, value in _constants(base).items()
        if name not in swept and _is_sent(name, base, swept)
    }
    config["parameters"] = constants | given["parameters"]
    if run_cap is not None:
        config["run_cap"] = run_cap
    return config


def _constants(base: TrainConfig) -> dict[str, Any]:
    """Return what of a search's base could make a cell."""
    told = base.to_dict()
    told = told if isinstance(base, OwnConfig) else without_new_defaults(told)
    return {n: v for n, v in told.items() if n not in SETTINGS or SETTINGS[n].in_cell}


def _is_sent(name: str, base: TrainConfig, swept: Collection[str]) -> bool:
    """Return whether a setting that the file does not name matters to some run of its search."""
    value = base.value(name)
    if value is None:
        return False
    if isinstance(base, OwnConfig) and name not in ARM_SETTINGS:
        return True
    if SETTINGS[name].gate in swept:  # some runs read it, and W&B shows it for all of them
        return value != getattr(TrainConfig(), name)
    return name not in base.inert


def _head(spec: SweepSpec) -> dict[str, Any]:
    head: dict[str, Any] = {
        "name": spec.name,
        "program": "gnbench",
        "command": [
            *("gnbench", "train", "--quiet", "--suite", spec.name),
            *("--config", "${args_json_file}"),
        ],
    }
    if description := describe_question(spec):
        head["description"] = description
    if spec.metric is not None:
        head["metric"] = {"name": spec.metric.name, "goal": spec.metric.goal}
    if spec.early_terminate is not None:
        head["early_terminate"] = spec.raw["early_terminate"]
    return head


def describe_question(spec: SweepSpec) -> str:
    """Return the sweep's description with its question below: W&B has no other place for one."""
    parts = [spec.description] if spec.description else []
    if spec.question is not None:
        parts.append(f"question: {json.dumps(spec.question.to_dict())}")
    return "\n\n".join(parts)


def live_settings(run: TrainConfig) -> dict[str, Any]:
    """Return the settings that make a run, with its seed: all that a machine needs to train it.

    What is not set is left out: W&B has no place for a missing value.
    """
    recorded = {name: getattr(run, name) for name, spec in SETTINGS.items() if not spec.in_cell}
    settings = run.hashed_settings | recorded
    return {name: value for name, value in settings.items() if value is not None}


def _parameters(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Split settings into plain lists and `variant`, whose product is `points` exactly."""
    names = list(dict.fromkeys(name for point in points for name in point))
    lists = {n: _distinct(point[n] for point in points if n in point) for n in names}
    everywhere = [n for n in names if all(n in point for point in points)]
    bound = [n for n in names if n not in everywhere or (n in ARM_SETTINGS and len(lists[n]) > 1)]
    while True:
        plain = [n for n in everywhere if n not in bound]
        variants = _distinct({n: point[n] for n in bound if n in point} for point in points)
        size = len(variants)
        for name in plain:
            size *= len(lists[name])
        if size == len(points):
            break
        bound.append(max(plain, key=lambda n: len(lists[n])))
    parameters: dict[str, Any] = {}
    if variants != [{}]:
        parameters[VARIANT] = {"values": variants}
    for name in plain:
        values = lists[name]
        parameters[name] = {"value": values[0]} if len(values) == 1 else {"values": values}
    return parameters


def _distinct(values: Iterable[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(json.dumps(value, sort_keys=True), value)
    return list(seen.values())

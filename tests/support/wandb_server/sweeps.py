"""What the test server decides about sweeps, after W&B's documented behaviour.

Grid hands out each combination once, told apart by the values that runs *recorded* for the swept
keys. Random draws. Bayes draws as well (a real Gaussian process would not change what the client
does). Hyperband stops a run whose best value at a band is not among the top 1/eta there.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.wandb_server.store import Row, Store

ACTIVE = ("running", "pending")


def recorded(run: Row) -> dict[str, Any]:
    """Return a run's config without W&B's `{"value": ...}` wrapping."""
    config = json.loads(run["config"] or "{}")
    return {key: entry["value"] for key, entry in config.items() if key != "_wandb"}


def values_of(parameter: dict[str, Any]) -> list[Any]:
    """Return the values a grid takes for one parameter.

    Raises:
        ValueError: the parameter is continuous, which W&B's grid refuses too.
    """
    if "values" in parameter:
        return list(parameter["values"])
    if "value" in parameter:
        return [parameter["value"]]
    raise ValueError(f"grid search cannot use the continuous parameter {parameter}")


def _key(point: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        whole = isinstance(value, float) and value.is_integer()
        return int(value) if whole else value  # W&B's grid hashes 1.0 and 1 alike

    return json.dumps(plain(point), sort_keys=True)


def grid_points(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    parameters = config.get("parameters", {})
    for values in itertools.product(*(values_of(p) for p in parameters.values())):
        yield dict(zip(parameters, values, strict=True))


def _draw(parameter: dict[str, Any], rng: random.Random) -> Any:
    if "values" in parameter or "value" in parameter:
        return rng.choice(values_of(parameter))
    low, high = parameter["min"], parameter["max"]
    kind = parameter.get("distribution", "int_uniform" if isinstance(low, int) else "uniform")
    if kind == "int_uniform":
        return rng.randint(low, high)
    if kind == "log_uniform_values":
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    if kind == "uniform":
        return rng.uniform(low, high)
    raise ValueError(f"distribution {kind!r} is not played by this test server")


def next_point(config: dict[str, Any], runs: list[Row]) -> dict[str, Any] | None:
    """Return what the sweep tries next, or None where it has nothing left."""
    if "run_cap" in config and len(runs) >= config["run_cap"]:
        return None
    method = config["method"]
    if method == "grid":
        swept = set(config.get("parameters", {}))
        seen = {_key({k: v for k, v in recorded(run).items() if k in swept}) for run in runs}
        return next((p for p in grid_points(config) if _key(p) not in seen), None)
    if method in ("random", "bayes"):
        rng = random.Random(len(runs))
        return {name: _draw(p, rng) for name, p in config.get("parameters", {}).items()}
    raise ValueError(f"sweep method {method!r} is unknown")


def _bands(early: dict[str, Any]) -> list[int]:
    eta = early.get("eta", 3)
    if "max_iter" in early:
        s = early.get("s", 1)
        return sorted(math.floor(early["max_iter"] / eta**k) for k in range(1, s + 1))
    return [early.get("min_iter", 1) * eta**k for k in range(10)]


def runs_to_stop(config: dict[str, Any], runs: list[tuple[Row, list[float]]]) -> list[Row]:
    """Return the active runs that hyperband stops now.

    Args:
        config: the sweep's.
        runs: each run with the metric's values in the order they were logged.
    """
    early = config.get("early_terminate")
    if not early or early.get("type") != "hyperband":
        return []
    eta = early.get("eta", 3)
    sign = -1 if config["metric"].get("goal", "minimize") == "maximize" else 1
    stopped = []
    for run, values in runs:
        reached = [band for band in _bands(early) if 0 < band <= len(values)]
        if run["state"] not in ACTIVE or not reached:
            continue
        band = reached[-1]
        at_band = sorted(min(sign * v for v in vs[:band]) for _, vs in runs if len(vs) >= band)
        threshold = at_band[max(0, math.ceil(len(at_band) / eta) - 1)]
        if min(sign * v for v in values[:band]) > threshold:
            stopped.append(run)
    return stopped


def parse(sweep: Row) -> dict[str, Any]:
    return yaml.safe_load(sweep["config"])


def stop_by_hyperband(store: Store, sweep: Row) -> None:
    config = parse(sweep)
    if "early_terminate" not in config:
        return
    metric = config["metric"]["name"]
    runs = []
    for run in store.sweep_runs(sweep):
        rows = store.history(run["id"])
        runs.append(
            (run, [row[metric] for row in rows if isinstance(row.get(metric), int | float)])
        )
    for run in runs_to_stop(config, runs):
        store.update("runs", run["id"], stop_requested=1)

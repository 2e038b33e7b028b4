"""Run in an environment of its own, which has W&B's `sweeps` package (it pins an old numpy).

Reads questions as JSON from stdin, writes the package's answers as JSON to stdout.
"""

import json
import sys

from sweeps.config import schema_violations_from_proposed_config
from sweeps.grid_search import grid_search_next_runs
from sweeps.hyperband_stopping import hyperband_stop_runs
from sweeps.params import HyperParameter
from sweeps.run import RunState, SweepRun


def violations(config):
    """Return what W&B's schema has against a sweep file."""
    try:
        return schema_violations_from_proposed_config(config)
    except Exception as error:  # the package raises whatever its checks run into
        return [str(error)]


def quantiles(question):
    parameter = HyperParameter("x", question["parameter"])
    values = [parameter.ppf(share) for share in question["shares"]]
    return [value.item() if hasattr(value, "item") else value for value in values]


def grid_points(config):
    runs = grid_search_next_runs([], config, validate=True, n=10_000)
    return [{k: v["value"] for k, v in run.config.items()} for run in runs if run is not None]


def hyperband_bands(question):
    history = [{"m": 1.0}] * question["epochs"]
    run = SweepRun(name="a", state=RunState.running, history=history)
    config = {
        "method": "grid",
        "metric": {"name": "m", "goal": "maximize"},
        "parameters": {"lr": {"values": [1]}},
        "early_terminate": question["early_terminate"],
    }
    hyperband_stop_runs([run], config)
    return [band for band in run.early_terminate_info["bands"] if band <= question["epochs"]]


ANSWERS = {
    "violations": violations,
    "quantiles": quantiles,
    "grid_points": grid_points,
    "hyperband_bands": hyperband_bands,
}
asked = json.load(sys.stdin)
json.dump([ANSWERS[kind](question) for kind, question in asked], sys.stdout)

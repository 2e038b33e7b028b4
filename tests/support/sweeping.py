"""What the tests of executors share: a plan as a list, and a sweep of stand-in trials over it."""

from __future__ import annotations

from collections import Counter

from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EXECUTORS, EngineOptions
from groupnorm_bench.sweep.scheduler import Scheduler
from groupnorm_bench.tracking.options import TrackingOptions

TRIALS = "tests.support.stand_in_trials"


class ListSource:
    """A plan that prunes the runs named in `prune` after their first epoch."""

    def __init__(self, runs, prune=()):
        self.runs, self.prune = list(runs), set(prune)
        self.results = {}

    def next(self):
        return self.runs.pop(0) if self.runs else None

    def report(self, config, row):
        return config.seed in self.prune

    def done(self, config, result):
        assert config.name not in self.results, "answered twice"
        self.results[config.name] = result


def seeds(count):
    return [TrainConfig(norm="batch", dataset="mnist-5k", seed=seed) for seed in range(count)]


def make_engine(runs_dir, trial="sleeper", engine="local", **options):
    """Return an executor of the table whose runs are stand-ins."""
    trial = trial if ":" in trial else f"{TRIALS}:{trial}"
    tracking = TrackingOptions(mode="disabled")
    options = EngineOptions(
        runs_dir=runs_dir, data_dir=runs_dir, tracking=tracking, trial=trial, **options
    )
    return EXECUTORS[engine].open(None, options, print)


def sweep(runs, runs_dir, trial="sleeper", slots=2, prune=(), engine="local", **options):
    """Run a sweep to its end; return the outcome and what was watched."""
    events = []
    source = ListSource(runs, prune)
    limits = {key: options.pop(key) for key in ("max_failures",) if key in options}
    executor = make_engine(runs_dir, trial, engine, slots=slots, **options)
    outcome = Scheduler(source, executor, runs_dir, watch=events.append, **limits).run()
    return outcome, events, source


def begun(runs_dir):
    """How many times each run was begun."""
    log = runs_dir / "begun.log"
    return Counter(line.split()[0] for line in log.read_text().splitlines())

"""A sweep from Python: the same work as the command's, as values."""

from __future__ import annotations

from pathlib import Path

import pytest

from groupnorm_bench import TrainConfig, sweep
from groupnorm_bench.errors import ConfigError, RunFolderError, TrackingError
from groupnorm_bench.runs import RunFolder, find_runs
from groupnorm_bench.sweep.executors import EXECUTORS
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.session import choose_executor
from groupnorm_bench.tracking.options import TrackingOptions
from tests.support import FAILS_LATE

FILE = """
name: tiny
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, group]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  max_steps: {value: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(FILE)
    return path


def run(file: Path, **options):
    """Run the sweep with W&B off and nothing printed; return what came of it and was said."""
    said: list[str] = []
    options = {"runs": file.parent / "runs", "wandb": "disabled", "workers": "2"} | options
    return sweep(file, say=said.append, **options), said


def test_a_sweep_trains_what_is_missing_and_gives_all_results_and_their_ranking(file):
    events = []
    outcome, said = run(file, watch=events.append)
    assert said == ["tiny: 2 cells x 1 seed = 2 runs: 0 reused, 2 to do"]
    assert outcome.count("finished") == 2
    assert (outcome.num_left, outcome.stopped, outcome.gave_up) == (0, False, False)
    assert {cell.arm for cell in outcome.ranking()} == {"none", "group-g8"}
    assert {type(event).__name__ for event in events} >= {"Started", "Progress", "Ended"}
    found, _ = find_runs([file.parent / "runs"])
    assert {each.result.config.name for each in found} == set(outcome.trained)

    again, _ = run(file)
    assert (again.trained, set(again.reused)) == ({}, set(outcome.trained))
    assert [c.mean for c in again.ranking()] == [c.mean for c in outcome.ranking()]


def test_settings_seeds_and_a_spec_read_before_are_taken(file):
    base = TrainConfig(lr=0.5)
    outcome, _ = run(file, base=base, seeds=2, run_cap=1)
    (result,) = outcome.results
    assert (result.config.lr, outcome.plan.num_runs) == (0.5, 1)
    spec = read_spec(file)
    assert run(spec.path, base=base, run_cap=1)[0].reused.keys() == {result.config.name}


def test_a_sweep_told_to_stop_says_how_much_is_left(file):
    outcome, _ = run(file, should_stop=lambda: True)
    assert (outcome.stopped, outcome.num_left, outcome.results) == (True, 2, [])


def test_a_run_that_fails_raises_nothing_and_is_told(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    Path("fails_late.py").write_text(FAILS_LATE)
    file.write_text(FILE.replace("[none, group]", "[none, group, 'fails_late:make']"))
    outcome, _ = run(file)
    (failure,) = outcome.failures
    assert "no such luck" in failure.reason
    assert (outcome.count("finished"), outcome.count("failed"), outcome.num_left) == (2, 1, 1)
    again, _ = run(file)
    assert (again.trained, again.num_left) == ({}, 1), "it is left alone"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"executer": "local"}, ConfigError, "unknown option 'executer' .* mean 'executor'"),
        ({"executor": "dask"}, ConfigError, "executor='dask' is unknown"),
        ({"workers": "none"}, ConfigError, "workers='none' is not a number"),
        ({"wandb": "ofline"}, ConfigError, "wandb='ofline' is unknown; did you mean 'offline'"),
        ({"base": TrainConfig(seed=3)}, ConfigError, "seed=3 does nothing in a sweep"),
        ({"executor": "wandb"}, TrackingError, "executor=wandb needs W&B online"),
        ({"runs": "/dev/null/runs"}, RunFolderError, "out=/dev/null/runs cannot be made"),
    ],
)
def test_what_is_not_valid_is_refused_before_anything_is_trained(file, options, error, message):
    with pytest.raises(error, match=message):
        run(file, **options)
    assert not list(file.parent.glob("runs/*/"))


def test_auto_is_wandbs_agents_where_wandb_takes_our_key(wandb_server, wandb_env):
    tracking = TrackingOptions(project="p")
    assert choose_executor("auto", tracking, print, print)[0] == "wandb"
    offline = TrackingOptions(mode="offline")
    assert choose_executor("auto", offline, print, print) == ("local", offline)


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_is_described_and_has_a_home(name):
    spec = EXECUTORS[name]
    assert spec.help
    module, _, function = spec.home.partition(":")
    home = __import__(f"groupnorm_bench.sweep.executors.{module}", fromlist=[function])
    assert callable(getattr(home, function))


def test_a_run_folder_that_cannot_be_read_is_said_and_trained_anew(file):
    outcome, _ = run(file)
    name = next(iter(outcome.trained))
    RunFolder(file.parent / "runs" / name).result_path.write_text("{half")
    again, said = run(file)
    assert any("half" in line or "is not readable" in line for line in said)
    assert set(again.trained) == {name}


def test_a_metric_that_only_epochs_have_ranks_by_itself(file):
    file.write_text(FILE.replace("val/accuracy, goal: maximize", "val/loss, goal: minimize"))
    outcome, _ = run(file)
    ranking = outcome.ranking()
    assert {cell.metric for cell in ranking} == {"val/loss"}
    last = {result.arm: result.history[-1]["val/loss"] for result in outcome.results}
    assert [(cell.arm, cell.mean) for cell in ranking] == sorted(last.items(), key=lambda x: x[1])

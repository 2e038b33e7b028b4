"""A plan compiled to a W&B sweep: W&B's grid over it gives exactly the plan's runs."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groupnorm_bench.errors import SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.wandb.sweep_config import (
    VARIANT,
    compile_plan,
    compile_search,
    live_settings,
)
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import build_plan
from tests.support import ROOT
from tests.support.wandb_server.sweeps import grid_points

SWEEPS = sorted(p for p in (ROOT / "sweeps").glob("*.yaml") if "." not in p.stem)
SMOKE = ROOT / "sweeps" / "smoke.yaml"


def names(config: dict[str, object]) -> list[str]:
    """Return the runs of a W&B grid, as an agent's `--config ${args_json_file}` reads them."""
    flat = []
    for point in grid_points(json.loads(json.dumps(config))):
        variant = point.pop(VARIANT, {})
        flat.append(TrainConfig.from_mapping(point | variant).name)
    return flat


def plan_of(path: Path):
    return build_plan(read_spec(path), resolve_dataset=lambda n: "mnist-5k" if n == "auto" else n)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_file_compiles_to_its_own_runs(path: Path):
    plan = plan_of(path)
    if plan.spec.method != "grid":
        config = compile_search(plan.spec, plan.base, None)
        assert config["method"] == plan.spec.method
        assert config["parameters"].items() >= plan.spec.raw["parameters"].items()
        return
    config = compile_plan(plan.spec, plan.runs)
    assert sorted(names(config)) == sorted(run.name for run in plan.runs)


def test_the_norm_grid_keeps_batch_size_and_seed_as_plain_axes():
    plan = plan_of(SMOKE.with_name("norm.yaml"))
    parameters = compile_plan(plan.spec, plan.runs)["parameters"]
    assert {"norm": "batch"} in parameters[VARIANT]["values"]
    assert {"norm": "group", "num_groups": 8} in parameters[VARIANT]["values"]
    assert len(parameters[VARIANT]["values"]) == 8
    assert len(parameters["batch_size"]["values"]) == 3
    assert parameters["dataset"] == {"value": "mnist-5k"}


def test_the_command_names_no_path_of_this_machine():
    plan = plan_of(SMOKE)
    config = compile_plan(plan.spec, plan.runs)
    assert config["command"][:2] == ["gnbench", "train"]
    assert str(Path.home()) not in json.dumps(config["command"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.builds(
            TrainConfig,
            norm=st.sampled_from(["none", "batch", "group"]),
            num_groups=st.sampled_from([1, 2, 8]),
            batch_size=st.sampled_from([8, 32]),
            lr=st.sampled_from([0.1, 1.0]),
            seed=st.sampled_from([0, 1, 2]),
            max_steps=st.sampled_from([None, 10]),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda run: run.name,
    )
)
def test_any_set_of_runs_is_a_grid(runs: list[TrainConfig]):
    config = compile_plan(read_spec(SMOKE), runs)
    assert sorted(names(config)) == sorted(run.name for run in runs)


def test_a_setting_that_does_not_count_is_not_swept():
    assert "num_groups" not in live_settings(TrainConfig(norm="batch"))
    assert live_settings(TrainConfig(norm="group"))["num_groups"] == 8
    assert None not in live_settings(TrainConfig()).values()


def test_a_plan_too_large_for_wandb_is_refused():
    spec = read_spec(SMOKE)
    runs = (TrainConfig(seed=seed) for seed in range(10_001))
    with pytest.raises(SweepError, match="over 10,000 runs, too many for a W&B sweep"):
        compile_plan(spec, runs)


def test_a_search_sends_what_the_file_leaves_open():
    spec = read_spec(SMOKE.with_name("bayes.yaml"))
    config = compile_search(spec, TrainConfig(dataset="mnist-5k", optimizer="sgd"), 7)
    assert config["run_cap"] == 7
    assert config["parameters"]["optimizer"] == {"value": "sgd"}
    assert config["parameters"]["dataset"] == {"value": "mnist-5k"}
    assert "norm" in config["parameters"]
    assert dataclasses.asdict(spec)["raw"]["parameters"].keys() <= config["parameters"].keys()

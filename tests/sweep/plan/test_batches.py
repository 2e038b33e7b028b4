"""A batch that no training set of the plan holds is told with its line, before anything runs."""

import json
from pathlib import Path

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.errors import SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.batches import datasets_of
from groupnorm_bench.sweep.plan.plan import Plan, build_plan

BUNDLED = TrainConfig(dataset="mnist-5k")  # 3,500 to train on


def plan_of(folder: Path, base: TrainConfig = BUNDLED, **parameters: object) -> Plan:
    path = folder / "s.yaml"
    head = {"method": "random", "run_cap": 4} if "draw" in parameters else {"method": "grid"}
    parameters = {k: v if isinstance(v, dict) else {"values": v} for k, v in parameters.items()}
    if "draw" in parameters:
        parameters["batch_size"] = parameters.pop("draw")
    path.write_text(json.dumps({**head, "parameters": parameters}, indent=1))
    return build_plan(read_spec(path), base=base)


@pytest.mark.parametrize(
    ("base", "parameters", "says"),
    [
        (BUNDLED, {"batch_size": [64, 4000, 32]}, r"s.yaml:\d+ batch_size=4000 .* of 3,500 images"),
        (
            BUNDLED.replace(train_limit=48),
            {"batch_size": [64, 32]},
            r"batch_size=64 is larger .* of 48 images; set it to at most that",
        ),
        (
            BUNDLED,
            {"batch_size": [2, 32], "train_limit": [None, 100, 1]},
            "training set of 1 image",
        ),
        (BUNDLED, {"train_limit": [100, 3600]}, "train_limit=3600 is more than the 3,500 training"),
        (
            TrainConfig(dataset="mnist", batch_size=8000),
            {"dataset": ["mnist", "mnist-5k"]},
            r"s.yaml:\d+ batch_size=8000 .* 3,500",
        ),
        (BUNDLED.replace(batch_size=3501), {"lr": [0.1]}, r"s.yaml: batch_size=3501 .* 3,500"),
        (BUNDLED, {"draw": {"min": 8, "max": 4096}}, "batch_size=4096"),
    ],
)
def test_what_is_too_large_is_refused_with_its_line(
    tmp_path: Path, base: TrainConfig, parameters: dict[str, object], says: str
):
    with pytest.raises(SweepError, match=says):
        plan_of(tmp_path, base, **parameters)


def test_what_the_training_sets_hold_is_planned(tmp_path: Path):
    assert plan_of(tmp_path, batch_size=[64, 3500], train_limit=[None, 3500]).num_runs == 4
    assert plan_of(tmp_path, draw={"min": 8, "max": 3500}).num_runs == 4


def test_a_batch_that_a_cap_leaves_out_is_no_fault(tmp_path: Path):
    sizes = {"batch_size": {"values": [64, 4000]}, "seed": {"values": [0]}}
    (tmp_path / "s.yaml").write_text(json.dumps({"method": "grid", "parameters": sizes}))
    spec = read_spec(tmp_path / "s.yaml")
    assert build_plan(spec, base=BUNDLED, run_cap=1).num_runs == 1
    with pytest.raises(SweepError, match="batch_size=4000"):
        build_plan(spec, base=BUNDLED, run_cap=2)


def test_its_data_sets_are_those_of_the_file_or_the_one_that_is_typed(tmp_path: Path):
    plan = plan_of(tmp_path, dataset=["mnist", "mnist-5k"])
    assert datasets_of(plan.spec, plan.base) == ["mnist", "mnist-5k"]
    plan = plan_of(tmp_path, lr=[0.1, 0.01])
    assert datasets_of(plan.spec, plan.base) == ["mnist-5k"]


def test_on_the_command_line_it_is_one_line(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = {"norm": {"values": ["none", "batch"]}, "batch_size": {"values": [4000]}}
    Path("s.yaml").write_text(json.dumps({"method": "grid", "parameters": sizes}))
    assert run(["sweep", "s.yaml", "--dataset", "mnist-5k", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "batch_size=4000 is larger than the training set of 3,500 images" in err

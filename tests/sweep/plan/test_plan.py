"""The plan: distinct cells, why others are not, the order, what is reused; against brute force."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.norms import NORMS
from groupnorm_bench.runs import find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import Plan, build_plan
from tests.support import ROOT
from tests.support.run_folders import make_run

SWEEPS = sorted(p for p in (ROOT / "sweeps").glob("*.yaml") if "." not in p.stem)
NORM = ROOT / "sweeps" / "norm.yaml"

BUNDLED = TrainConfig(dataset="mnist-5k")


def plan_of(tmp_path: Path, document: dict, **options) -> Plan:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return build_plan(read_spec(path), **options)


def grid(**lists) -> dict:
    return {"method": "grid", "parameters": {k: {"values": v} for k, v in lists.items()}}


def test_the_reports_sweep_is_24_cells_of_3_seeds():
    plan = build_plan(read_spec(NORM))
    counts = (plan.grid_points, plan.num_cells, plan.num_runs, plan.num_reused, plan.num_todo)
    assert counts == (162, 24, 72, 0, 72)
    assert sum(plan.duplicates.values()) == 162 - 72
    assert len({config.name for config in plan.todo()}) == 72


def test_the_reason_for_every_duplicate_is_named():
    assert dict(build_plan(read_spec(NORM)).duplicates) == {
        "norm=none does not read num_groups": 45,
        "norm=batch does not read num_groups": 45,
    }


def test_all_arms_of_a_batch_size_come_together_and_seeds_come_last():
    runs = list(build_plan(read_spec(NORM)).todo())
    assert [config.seed for config in runs] == [0] * 24 + [1] * 24 + [2] * 24
    assert {config.batch_size for config in runs[:8]} == {32}
    assert len({config.arm for config in runs[:8]}) == 8


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_point_of_every_sweep_file_builds(path):
    plan = build_plan(read_spec(path))
    runs = list(plan.runs)
    assert len(runs) == (0 if plan.spec.method == "bayes" else plan.num_runs)
    assert all(TrainConfig.from_mapping(config.to_dict()) == config for config in runs)


LISTS = st.fixed_dictionaries(
    {},
    optional={
        "norm": st.lists(st.sampled_from(sorted(NORMS)), min_size=1, max_size=4),
        "num_groups": st.lists(st.sampled_from([1, 2, "4", 4.0, 8, 3]), min_size=1, max_size=3),
        "batch_size": st.lists(st.sampled_from([1, 2, 32, 32.0]), min_size=1, max_size=3),
        "weight_decay": st.lists(st.sampled_from([0, 0.0, 1e-4]), min_size=1, max_size=3),
        "weight_decay_all": st.lists(st.booleans(), min_size=1, max_size=3),
        "epochs": st.lists(st.sampled_from([1, 2]), min_size=1, max_size=2),
        "lr": st.lists(st.sampled_from([0.1, "1e-1", 0.01]), min_size=1, max_size=3),
        "device": st.lists(st.sampled_from(["auto", "cpu"]), min_size=1, max_size=2),
        "arm": st.lists(
            st.sampled_from(
                [
                    {"optimizer": "sgd", "schedule": "cosine"},
                    {"optimizer": "sgd"},
                    {"optimizer": "adam", "schedule": "constant"},
                ]
            ),
            min_size=1,
            max_size=3,
        ),
        "seed": st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True),
    },
).filter(bool)


@given(lists=LISTS)
@settings(max_examples=25, deadline=None)
def test_a_grid_is_what_building_each_of_its_points_gives(lists, tmp_path_factory):
    tmp_path = tmp_path_factory.getbasetemp()
    points = [
        dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
    ]
    try:
        configs = [TrainConfig.from_mapping(_flat(point)) for point in points]
    except ConfigError:
        with pytest.raises(SweepError, match=r"sweep\.yaml:"):
            plan_of(tmp_path, grid(**lists))
        return
    plan = plan_of(tmp_path, grid(**lists))
    assert plan.grid_points == len(points)
    assert {config.name for config in plan.todo()} == {config.name for config in configs}
    assert plan.num_runs == len({config.name for config in configs})
    assert sum(plan.duplicates.values()) == len(points) - plan.num_runs
    assert all(config in plan for config in configs)
    assert configs[0].replace(seed=99) not in plan
    assert configs[0].replace(lr=0.5) not in plan


def _flat(point: dict) -> dict:
    flat = {key: value for key, value in point.items() if key != "arm"}
    return {**flat, **point.get("arm", {})}


def test_seeds_from_the_command_line_replace_the_files():
    plan = build_plan(read_spec(NORM), seeds=5)
    assert (plan.seeds, plan.num_runs, plan.grid_points) == ((0, 1, 2, 3, 4), 120, 270)


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_a_count_of_seeds_that_is_none_is_refused(count):
    with pytest.raises(SweepError, match=f"^seeds={count} "):
        build_plan(read_spec(NORM), seeds=count)


def test_a_run_cap_keeps_the_first_runs_whole_arms_first(tmp_path):
    document = grid(norm=["none", "batch"], batch_size=[32, 64], seed=[0, 1]) | {"run_cap": 5}
    runs = list(plan_of(tmp_path, document).todo())
    assert [(c.norm, c.batch_size, c.seed) for c in runs] == [
        ("none", 32, 0),
        ("batch", 32, 0),
        ("none", 64, 0),
        ("batch", 64, 0),
        ("none", 32, 1),
    ]


def test_a_capped_plan_does_not_hold_the_runs_beyond_the_cap(tmp_path):
    plan = plan_of(tmp_path, grid(norm=["none", "batch"], seed=[0, 1]) | {"run_cap": 3})
    assert TrainConfig(norm="none", seed=1) in plan
    assert TrainConfig(norm="batch", seed=1) not in plan


def test_dictionaries_set_several_settings_at_once(tmp_path):
    arms = [{"norm": "none"}, {"norm": "batch"}, {"norm": "group", "num_groups": 4}]
    plan = plan_of(tmp_path, grid(arm=arms, batch_size=[32, 64]))
    assert [config.arm for config in plan.todo()] == ["none", "batch", "group-g4"] * 2


def test_groups_by_number_and_by_size_may_be_listed_side_by_side(tmp_path):
    arms = [{"norm": "group", "num_groups": 4}, {"norm": "group", "group_size": 4}]
    assert [c.arm for c in plan_of(tmp_path, grid(arm=arms)).todo()] == ["group-g4", "group-s4"]


def test_nested_parameters_set_what_flat_ones_do(tmp_path):
    flat = grid(norm=["none", "group"], lr=[0.1, 0.01])
    inner = {"lr": {"values": [0.1, 0.01]}}
    nested = grid(norm=["none", "group"])
    nested["parameters"]["optim"] = {"parameters": inner}
    names = [[c.name for c in plan_of(tmp_path, document).todo()] for document in (flat, nested)]
    assert names[0] == names[1]


def test_auto_is_planned_as_the_data_set_it_stands_for(tmp_path):
    plan = plan_of(
        tmp_path,
        grid(dataset=["auto", "mnist-5k"]),
        resolve_dataset=lambda name: "mnist-5k" if name == "auto" else name,
    )
    assert [config.dataset for config in plan.todo()] == ["mnist-5k"]
    assert dict(plan.duplicates) == {"dataset lists a value twice": 1}


def test_settings_the_file_does_not_name_come_from_the_base(tmp_path):
    plan = plan_of(tmp_path, grid(epochs=[1, 2]), base=TrainConfig(max_steps=7, device="cpu"))
    assert [(c.epochs, c.max_steps, c.device) for c in plan.todo()] == [
        (1, None, "cpu"),
        (2, None, "cpu"),
    ]


def test_finished_runs_are_reused_and_unfinished_ones_done(tmp_path):
    plan = build_plan(read_spec(NORM), base=BUNDLED)
    runs = list(plan.todo())
    statuses = ("finished", "diverged", "pruned", "interrupted", "failed")
    for config, status in zip(runs, statuses, strict=False):
        make_run(tmp_path / "runs", config, status=status)
    make_run(tmp_path / "runs", runs[0].replace(lr=0.5))  # of another sweep
    found, _ = find_runs([tmp_path / "runs"])
    plan = build_plan(read_spec(NORM), base=BUNDLED, found=found)
    assert (plan.num_reused, plan.num_failed, plan.num_todo) == (3, 1, 68)
    assert [c.name for c in plan.todo()] == [c.name for c in (runs[3], *runs[5:])]


def test_failed_runs_are_done_again_on_request(tmp_path):
    first = next(iter(build_plan(read_spec(NORM), base=BUNDLED).todo()))
    make_run(tmp_path / "runs", first, status="failed")
    found, _ = find_runs([tmp_path / "runs"])
    plan = build_plan(read_spec(NORM), base=BUNDLED, found=found, retry_failed=True)
    assert (plan.num_failed, plan.num_todo) == (0, 72)


def test_a_finished_run_counts_whatever_device_it_ran_on(tmp_path):
    first = next(iter(build_plan(read_spec(NORM), base=BUNDLED).todo()))
    make_run(tmp_path / "runs", first.replace(device="cuda:1"))
    found, _ = find_runs([tmp_path / "runs"])
    assert build_plan(read_spec(NORM), base=BUNDLED, found=found).num_reused == 1


def random_sweep(cap: int | None = None, **parameters) -> dict:
    document = {"method": "random", "parameters": parameters}
    return document | ({} if cap is None else {"run_cap": cap})


NINE = {
    "norm": {"values": ["none", "batch", "group"]},
    "num_groups": {"values": [1, 2, 4, 8, 16, 32, 32]},
}


def test_random_draws_every_distinct_cell_once(tmp_path):
    plan = plan_of(tmp_path, random_sweep(**NINE))
    cells = [config.cell for config in plan.todo()]
    assert len(cells) == len(set(cells)) == plan.num_runs == 8


def test_random_draws_by_its_seed(tmp_path):
    def cells(seed: int) -> list[str]:
        plan = plan_of(tmp_path, random_sweep(4, **NINE), search_seed=seed)
        assert all(config in plan for config in plan.todo())
        return [config.cell for config in plan.todo()]

    assert cells(0) == cells(0)
    assert len(cells(0)) == 4
    assert len({tuple(cells(seed)) for seed in range(5)}) > 1


def test_random_over_a_range_draws_as_many_cells_as_its_cap_has_runs(tmp_path):
    lr = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}
    plan = plan_of(tmp_path, random_sweep(6, lr=lr, seed={"values": [0, 1]}, **NINE))
    runs = list(plan.todo())
    assert [c.seed for c in runs] == [0, 0, 0, 1, 1, 1]
    assert [c.cell for c in runs[:3]] == [c.cell for c in runs[3:]]
    assert all(1e-4 <= c.lr <= 1e-1 for c in runs)
    assert all(c in plan for c in runs)
    assert plan.grid_points is None


def test_a_draw_that_no_config_takes_is_drawn_again(tmp_path):
    lr = {"distribution": "normal", "mu": 0.0, "sigma": 0.1}
    assert all(c.lr > 0 for c in plan_of(tmp_path, random_sweep(20, lr=lr)).todo())


def test_random_says_when_there_are_fewer_cells_than_its_cap(tmp_path):
    steps = {"distribution": "q_uniform", "min": 1, "max": 4, "q": 1}
    plan = plan_of(tmp_path, random_sweep(50, epochs=steps))
    assert sorted(c.epochs for c in plan.todo()) == [1, 2, 3, 4]
    assert plan.notes == ("only 4 distinct cells were found for a run_cap of 50",)


def test_a_million_points_are_counted_and_not_built(tmp_path):
    document = grid(norm=["none", "batch", "group"], num_groups=[1, 2, 4, 8])
    for name in ("batch_size", "epochs"):
        document["parameters"][name] = {"min": 2, "max": 301}
    plan = plan_of(tmp_path, document, seeds=10)
    assert plan.grid_points == 10_800_000
    assert plan.num_runs == 5_400_000
    assert plan.is_large
    last = plan.runs[-1]
    assert last in plan
    assert last == TrainConfig(num_groups=8, batch_size=301, epochs=301, seed=9)


def test_a_grid_beyond_counting_is_refused(tmp_path):
    ranges = {name: {"min": 1, "max": 10_000} for name in ("epochs", "train_limit", "lr")}
    with pytest.raises(SweepError, match=r"sweep\.yaml is a grid of 1e\+12 points; .*run_cap"):
        plan_of(tmp_path, {"method": "grid", "parameters": ranges})

"""Sources of runs: what a plan and a search hand out, learn from, and rebuild after a kill."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from groupnorm_bench.runs import FoundRun, RunFolder, RunResult, Status
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.spec import Hyperband, Metric, read_spec
from groupnorm_bench.sweep.plan.plan import Plan, build_plan
from groupnorm_bench.sweep.plan.pruner import Pruner, metric_value
from groupnorm_bench.sweep.plan.sources import Source, make_source
from groupnorm_bench.sweep.plan.space import choose_cell, shares_of

LR = {"lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}}
ARMS = {
    "norm": {"values": ["none", "batch", "group"]},
    "num_groups": {"values": [1, 2, 4, 8, 16, 32]},
}
ACCURACY = Metric(name="val/accuracy", goal="maximize")
Answer = Callable[[TrainConfig], RunResult | None]


def plan_of(
    folder: Path, method: str, parameters: dict, found: Sequence[RunResult] = (), **document: Any
) -> Plan:
    metric = {"name": "val/accuracy", "goal": "maximize"}
    document = {"method": method, "metric": metric, "parameters": parameters, **document}
    (folder / "s.yaml").write_text(yaml.safe_dump(document))
    return build_plan(read_spec(folder / "s.yaml"), found=folders_of(found))


def folders_of(results: Sequence[RunResult]) -> list[FoundRun]:
    return [FoundRun(RunFolder.of(Path("runs"), result.config), result) for result in results]


def result_of(config: TrainConfig, *accuracies: float, status: Status = "finished") -> RunResult:
    history = [{"epoch": i, "val/accuracy": value} for i, value in enumerate(accuracies, start=1)]
    summary = {"val/accuracy": accuracies[-1]} if accuracies and status == "finished" else {}
    return RunResult(config=config, status=status, history=history, summary=summary)


def truth(config: TrainConfig) -> float:
    """A world where group norm with 8 groups at lr 0.01 is best."""
    groups = abs(math.log2(config.num_groups) - 3) / 50 if config.norm == "group" else 0.2
    return 0.95 - groups - 0.05 * abs(math.log10(config.lr) + 2)


def honest(config: TrainConfig) -> RunResult:
    return result_of(config, truth(config))


def drive(source: Source, answer: Answer = honest, workers: int = 1) -> list[RunResult]:
    """Work off a source with `workers` runs in flight; return the results in handing order."""
    results: list[RunResult] = []
    flying: list[TrainConfig] = []
    while True:
        config = source.next() if len(flying) < workers else None
        if config is not None:
            flying.append(config)
        elif flying:
            result = answer(flying[0])
            source.done(flying.pop(0), result)
            results += [] if result is None else [result]
        else:
            return results


def cells_of(results: Sequence[RunResult]) -> list[str]:
    return [result.cell for result in results]


def test_a_grids_source_is_its_plan_in_order(tmp_path):
    plan = plan_of(tmp_path, "grid", ARMS)
    assert [r.config for r in drive(make_source(plan))] == list(plan.todo())


def test_a_source_ends_once_the_target_is_met(tmp_path):
    metric = {"name": "val/accuracy", "goal": "maximize", "target": 0.89}
    plan = plan_of(tmp_path, "grid", ARMS, metric=metric)
    results = drive(make_source(plan))
    assert [truth(r.config) >= 0.89 for r in results] == [False] * (len(results) - 1) + [True]
    found = folders_of(results)
    assert make_source(build_plan(plan.spec, found=found), found).next() is None


@pytest.mark.parametrize("workers", [1, 4])
def test_bayes_tries_every_cell_of_a_small_space_once(tmp_path, workers):
    plan = plan_of(tmp_path, "bayes", ARMS, run_cap=20)
    results = drive(make_source(plan), workers=workers)
    assert sorted(Counter(cells_of(results)).values()) == [1] * 8


def test_bayes_stops_at_its_cap_and_never_repeats_a_cell(tmp_path):
    plan = plan_of(tmp_path, "bayes", {**ARMS, **LR}, run_cap=25)
    results = drive(make_source(plan), workers=3)
    assert len(results) == len(set(cells_of(results))) == 25
    assert all(result.config in plan for result in results)


def test_bayes_spends_its_runs_where_results_are_good(tmp_path):
    cap = {"run_cap": 40}
    searched = drive(make_source(plan_of(tmp_path, "bayes", {**ARMS, **LR}, **cap)))
    drawn = drive(make_source(plan_of(tmp_path, "random", {**ARMS, **LR}, **cap)))

    def mean_of_last_20(results: list[RunResult]) -> float:
        return sum(truth(result.config) for result in results[20:]) / 20

    assert mean_of_last_20(searched) > mean_of_last_20(drawn) + 0.05


def test_bayes_goes_on_from_the_run_folders_knowing_what_they_tell(tmp_path):
    parameters = {**ARMS, **LR}
    first = drive(make_source(plan_of(tmp_path, "bayes", parameters, run_cap=20)))
    found = folders_of(first)
    plan = plan_of(tmp_path, "bayes", parameters, first, run_cap=30)
    assert (plan.num_reused, plan.num_todo) == (20, 10)
    rest = drive(make_source(plan, found))
    assert len(rest) == 10
    assert not set(cells_of(rest)) & set(cells_of(first))
    means = [sum(truth(r.config) for r in part) / 10 for part in (first[:10], rest)]
    assert means[1] > means[0] + 0.05  # its first ten were drawn blindly
    done = plan_of(tmp_path, "bayes", parameters, [*first, *rest], run_cap=30)
    assert done.num_todo == 0
    assert make_source(done, folders_of([*first, *rest])).next() is None


def test_a_cell_of_bayes_is_run_with_every_seed_and_judged_by_their_mean(tmp_path):
    parameters = {**LR, "seed": {"values": [0, 1, 2]}}
    results = drive(make_source(plan_of(tmp_path, "bayes", parameters, run_cap=9)))
    assert [r.seed for r in results] == [0, 1, 2] * 3
    assert len(set(cells_of(results))) == 3


def test_a_cell_that_lacks_a_seed_is_completed_first(tmp_path):
    parameters = {**LR, "seed": {"values": [0, 1]}}
    first = drive(make_source(plan_of(tmp_path, "bayes", parameters, run_cap=3)))
    interrupted = result_of(TrainConfig(lr=0.05), 0.5, status="interrupted")
    found = [*first, interrupted]
    plan = plan_of(tmp_path, "bayes", parameters, found, run_cap=10)
    assert (plan.num_reused, plan.num_todo) == (3, 7)
    rest = drive(make_source(plan, folders_of(found)))
    assert (rest[0].cell, rest[0].seed) == (first[2].cell, 1)
    assert [(r.config.lr, r.seed) for r in rest[1:3]] == [(0.05, 0), (0.05, 1)]


def test_runs_of_another_space_are_no_part_of_a_search(tmp_path):
    others = [
        honest(TrainConfig(lr=0.5)),
        honest(TrainConfig(epochs=7)),
        honest(TrainConfig(seed=3)),
    ]
    plan = plan_of(tmp_path, "bayes", {**ARMS, **LR}, others, run_cap=5)
    assert plan.num_reused == 0
    assert len(drive(make_source(plan, folders_of(others)))) == 5


@pytest.mark.parametrize(
    "answer",
    [
        lambda config: None,
        lambda config: result_of(config, status="diverged"),
        lambda config: result_of(config, 0.3, 0.4, status="pruned"),
        lambda config: result_of(config, math.nan),
    ],
    ids=["no result", "diverged", "pruned", "not a number"],
)
def test_a_search_survives_runs_without_a_value(tmp_path, answer):
    plan = plan_of(tmp_path, "bayes", {**ARMS, **LR}, run_cap=15)
    answers: list[Answer] = [honest, answer]
    handed: list[TrainConfig] = []

    def turn(config: TrainConfig) -> RunResult | None:
        handed.append(config)
        return answers[len(handed) % 2](config)

    results = drive(make_source(plan), turn)
    assert len(set(handed)) == 15
    rebuilt = plan_of(tmp_path, "bayes", {**ARMS, **LR}, results, run_cap=20)
    rest = drive(make_source(rebuilt, folders_of(results)), turn)
    assert not {r.cell for r in rest} & {r.cell for r in results}


def test_a_search_keeps_away_from_where_runs_diverge(tmp_path):
    def fragile(config: TrainConfig) -> RunResult:
        if config.lr > 1e-3:
            return result_of(config, status="diverged")
        return result_of(config, 0.9 - 0.1 * abs(math.log10(config.lr) + 3.7))

    plan = plan_of(tmp_path, "bayes", LR, run_cap=40)
    results = drive(make_source(plan), fragile)
    assert sum(r.status == "diverged" for r in results[20:]) <= 5


def test_a_search_draws_again_where_settings_do_not_fit(tmp_path):
    parameters = {"norm": {"value": "group"}, "num_groups": {"min": 1, "max": 32}, **LR}
    results = drive(make_source(plan_of(tmp_path, "bayes", parameters, run_cap=12)))
    assert len(results) == 12
    assert {r.config.num_groups for r in results} <= {1, 2, 4, 8, 16, 32}


def test_settings_that_a_norm_does_not_read_are_never_asked_for(tmp_path):
    plan = plan_of(tmp_path, "bayes", {**LR, **ARMS}, run_cap=5)
    asked: list[str] = []

    def share(axis: Any) -> float:
        asked.append(axis.label)
        return 0.1

    assert choose_cell(plan.spec.axes, plan.base, share).norm == "none"
    assert sorted(asked) == ["lr", "norm"]


KINDS = [
    {"distribution": "uniform", "min": 0.001, "max": 0.1},
    {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
    {"distribution": "q_uniform", "min": 0.05, "max": 0.9, "q": 0.05},
    {"distribution": "q_log_uniform_values", "min": 0.01, "max": 1.0, "q": 0.01},
    {"distribution": "log_normal", "mu": -6, "sigma": 2},
    {"distribution": "q_log_normal", "mu": 2, "sigma": 1, "q": 0.5},
    {"distribution": "normal", "mu": 1, "sigma": 0.1},
    {"values": [0.1, 0.01, 0.001]},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.get("distribution", "values"))
@given(share=st.floats(0.05, 0.95))
@settings(max_examples=40, deadline=None)
def test_a_cell_gives_back_the_quantiles_that_give_the_cell(kind, share, tmp_path_factory):
    plan = plan_of(tmp_path_factory.getbasetemp(), "bayes", {"lr": kind}, run_cap=5)
    cell = choose_cell(plan.spec.axes, plan.base, lambda axis: share)
    back = shares_of(plan.spec.axes, plan.base, cell)
    assert back is not None
    assert choose_cell(plan.spec.axes, plan.base, lambda axis: back["lr"]).lr == pytest.approx(
        cell.lr, rel=1e-9
    )


def test_the_value_of_a_run_is_its_last_not_its_best():
    result = result_of(TrainConfig(), 0.9, 0.8)
    assert metric_value(ACCURACY, result) == 0.8
    assert metric_value(ACCURACY, result.replace(summary={})) == 0.8
    assert metric_value(ACCURACY, result.replace(summary={}, history=[])) is None


def reports(pruner: Pruner, seed: int, *accuracies: float) -> int:
    """Return the epoch after which a run is stopped, or how many it was given."""
    config = TrainConfig(seed=seed)
    for epoch, value in enumerate(accuracies, start=1):
        if pruner.report(config, {"epoch": epoch, "val/accuracy": value}):
            return epoch
    return len(accuracies)


@given(
    values=st.lists(st.lists(st.integers(0, 50), min_size=9, max_size=9), min_size=1, max_size=12),
    at=st.sampled_from([(1, 3, 9), (1, 5), (2, 3, 8)]),
)
@settings(max_examples=40, deadline=None)
def test_hyperband_keeps_the_best_third_of_those_that_came_to_a_band(values, at):
    pruner = Pruner(Hyperband(bands=at, eta=3), ACCURACY)
    bands: dict[int, list[float]] = {band: [] for band in at}
    for seed, row in enumerate(values):
        expected = len(row)
        for band, seen in bands.items():
            seen.append(row[band - 1])
            if row[band - 1] < sorted(seen, reverse=True)[max(len(seen) // 3, 1) - 1]:
                expected = band
                break
        assert reports(pruner, seed, *row) == expected


def test_hyperband_has_no_band_from_max_iter_on():
    pruner = Pruner(Hyperband(bands=(1,), eta=3), ACCURACY)
    assert reports(pruner, 0, 0.5, 0.9, 0.9) == 3
    assert reports(pruner, 1, 0.6, 0.1, 0.1) == 3
    assert reports(pruner, 2, 0.4, 0.9, 0.9) == 1


def test_an_epoch_that_is_told_again_changes_nothing():
    pruner = Pruner(Hyperband(bands=(1, 3, 9), eta=3), ACCURACY)
    row = {"epoch": 1, "val/accuracy": 0.5}
    assert [pruner.report(TrainConfig(), row) for _ in range(3)] == [False] * 3
    assert pruner.report(TrainConfig(seed=1), row | {"val/accuracy": 0.4})


def test_hyperband_judges_by_the_run_folders_too(tmp_path):
    stop = {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3}}
    done = [result_of(TrainConfig(lr=lr), 0.9, 0.9) for lr in (0.1, 0.2)]
    plan = plan_of(tmp_path, "grid", {"lr": {"values": [0.1, 0.2, 0.3]}}, done, **stop)
    source = make_source(plan, folders_of(done))
    config = source.next()
    assert config is not None
    assert source.report(config, {"epoch": 1, "val/accuracy": 0.8})
    fresh = make_source(plan)
    assert not fresh.report(config, {"epoch": 1, "val/accuracy": 0.8})


def test_without_early_terminate_nothing_is_stopped(tmp_path):
    source = make_source(plan_of(tmp_path, "grid", ARMS))
    accuracies = random.Random(0).sample(range(100), 20)
    assert not any(
        source.report(TrainConfig(seed=i), {"epoch": 1, "val/accuracy": value})
        for i, value in enumerate(accuracies)
    )

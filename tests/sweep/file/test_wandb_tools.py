"""W&B's own tools as the judge: its client takes our files, and its `sweeps` package agrees.

The package pins numpy below 2, so it gets an environment of its own, made by pip; without a
package index that is skipped.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from groupnorm_bench.errors import SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.distributions import read_distribution
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import build_plan
from tests.support import ROOT
from tests.support.wandb_server import WandbServer

pytestmark = pytest.mark.slow

SWEEPS = sorted(p for p in (ROOT / "sweeps").glob("*.yaml") if "." not in p.stem)
Ask = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Return a function that puts (kind, question) pairs to the `sweeps` package."""
    folder = tmp_path_factory.mktemp("oracle")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--only-binary=:all:", "sweeps==0.3.0"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        install, capture_output=True, text=True, timeout=280, check=False, env=env
    )
    if done.returncode:
        pytest.skip(f"W&B's sweeps package cannot be installed: {done.stderr.strip()[-200:]}")

    def ask(*questions: tuple[str, Any]) -> list[Any]:
        script = ROOT / "tests" / "support" / "wandb_sweeps_oracle.py"
        done = subprocess.run(
            [python, script],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env=env,
        )
        return json.loads(done.stdout)

    return ask


def test_wandbs_schema_has_nothing_against_our_files(ask: Ask):
    questions = [("violations", yaml.safe_load(path.read_text())) for path in SWEEPS]
    answers = ask(*questions)
    assert len(answers) == len(SWEEPS) >= 5
    assert not any(answers)


def test_wandbs_grid_has_the_points_we_count_and_the_cells_we_run(ask: Ask):
    [path] = [path for path in SWEEPS if path.name == "norm.yaml"]
    [points] = ask(("grid_points", yaml.safe_load(path.read_text())))
    plan = build_plan(read_spec(path))
    assert len(points) == plan.grid_points == 162
    theirs = {TrainConfig.from_mapping(point).name for point in points}
    assert theirs == {config.name for config in plan.todo()}


def test_wandbs_grid_walks_a_range_as_ours_does(ask: Ask, tmp_path: Path):
    ranges: list[dict[str, Any]] = [
        {"min": 2, "max": 7},
        {"distribution": "q_uniform", "min": 1, "max": 10, "q": 3},
        {"distribution": "q_uniform", "min": 2, "max": 8, "q": 2},
        {"distribution": "q_uniform", "min": 2, "max": 8},
    ]
    documents = [{"method": "grid", "parameters": {"epochs": given}} for given in ranges]
    for document, points in zip(
        documents, ask(*(("grid_points", document) for document in documents)), strict=True
    ):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
        runs = build_plan(read_spec(tmp_path / "s.yaml")).runs
        assert [config.epochs for config in runs] == [point["epochs"] for point in points]


KINDS: list[dict[str, Any]] = [
    {"values": [1, 2, 3]},
    {"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]},
    {"min": 1, "max": 9},
    {"min": 0.5, "max": 9.5},
    {"min": 1, "max": 9.5},
    {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
    {"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 0.1},
    {"distribution": "q_uniform", "min": 0.3, "max": 9, "q": 0.5},
    {"distribution": "q_uniform", "min": 1, "max": 9},
    {"distribution": "q_log_uniform_values", "min": 1, "max": 900, "q": 4},
    {"distribution": "normal"},
    {"distribution": "normal", "mu": 3, "sigma": 0.5},
    {"distribution": "q_normal", "mu": 30, "sigma": 5, "q": 2},
    {"distribution": "log_normal", "mu": -6, "sigma": 0.5},
    {"distribution": "q_log_normal", "mu": 3, "sigma": 0.5, "q": 0.25},
]


def test_our_quantiles_are_wandbs(ask: Ask):
    shares = [0.013 + 0.0974 * k for k in range(11)]
    questions = [("quantiles", {"parameter": kind, "shares": shares}) for kind in KINDS]
    for kind, theirs in zip(KINDS, ask(*questions), strict=True):
        distribution = read_distribution("x", kind, lambda *keys: "f:1")
        ours = [distribution.quantile(share) for share in shares]
        if isinstance(ours[0], str):
            assert ours == theirs
        else:
            assert ours == pytest.approx(theirs, rel=1e-9), kind
            assert [type(value) for value in ours] == [type(value) for value in theirs], kind


def parameters() -> list[dict[str, Any]]:
    """Return descriptions of one parameter, sound and unsound, by combining what one may say."""
    ends = [{}, {"min": 1}, {"min": 1, "max": 2}, {"min": 0.6, "max": 2}, {"min": 2, "max": 1}]
    kinds = [{}] + [
        {"distribution": name}
        for name in (
            *("constant", "categorical", "int_uniform", "uniform", "q_uniform", "normal", "beta"),
            *("log_uniform", "log_uniform_values", "q_log_normal", "log_uniform_value"),
        )
    ]
    rests = [{}, {"q": 1}, {"q": 0}, {"mu": 1, "sigma": 0.1}, {"sigma": -1}, {"value": 1}]
    rests += [{"values": [1, 2]}, {"values": []}, {"value": 1, "values": [1]}, {"min": "one"}]
    rests += [{"values": [1, 2], "probabilities": p} for p in ([0.5, 0.5], [0.5, 0.6], [1])]
    return [{**a, **b, **c} for a, b, c in itertools.product(ends, kinds, rests)]


def test_we_take_what_wandb_takes_and_refuse_what_it_refuses(ask: Ask, tmp_path: Path):
    documents = [
        {"method": "random", "run_cap": 3, "parameters": {"lr": given}} for given in parameters()
    ]
    path = tmp_path / "s.yaml"
    disagreements = []
    answers = ask(*(("violations", document) for document in documents))
    for document, theirs in zip(documents, answers, strict=True):
        path.write_text(yaml.safe_dump(document))
        try:
            read_spec(path)
            ours = None
        except SweepError as error:
            ours = str(error)
        unsupported = ours is not None and "is not supported" in ours
        if bool(theirs) != (ours is not None) and not unsupported:
            disagreements.append((document["parameters"]["lr"], theirs, ours))
    assert disagreements == []


def test_our_bands_are_wandbs(ask: Ask, tmp_path: Path):
    stops: list[dict[str, Any]] = [
        {"type": "hyperband", **stop}
        for stop in (
            {"min_iter": 1},
            {"min_iter": 2, "eta": 2},
            {"max_iter": 27, "s": 2},
            {"max_iter": 8, "s": 9, "eta": 2},
            {"max_iter": 50, "s": 4},
        )
    ]
    answers = ask(*(("hyperband_bands", {"early_terminate": stop, "epochs": 30}) for stop in stops))
    for stop, theirs in zip(stops, answers, strict=True):
        document = {
            "method": "grid",
            "metric": {"name": "val/loss"},
            "early_terminate": stop,
            "parameters": {"lr": {"value": 1}},
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
        bands = read_spec(tmp_path / "s.yaml").early_terminate
        assert bands is not None
        assert [band for band in bands.bands if band < 31] == theirs


def wandb_cli(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from wandb.cli.cli import cli; cli()", *args],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_wandb_sweep_takes_every_file_unchanged(wandb_server: WandbServer):
    for path in SWEEPS:
        done = wandb_cli("sweep", str(path))
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr.lower()
    stored = wandb_server.store.all("SELECT config FROM sweeps ORDER BY id")
    assert [yaml.safe_load(row["config"]) for row in stored] == [
        yaml.safe_load(path.read_text()) for path in SWEEPS
    ]


def test_wandb_agent_runs_a_point_of_a_file_unchanged(wandb_server: WandbServer, wandb_env: Path):
    [path] = [path for path in SWEEPS if path.name == "smoke.yaml"]
    shim = wandb_env / "bin" / "gnbench"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m groupnorm_bench.cli "$@"\n')
    shim.chmod(0o755)
    assert wandb_cli("sweep", str(path)).returncode == 0
    [sweep] = wandb_server.store.all("SELECT name FROM sweeps")
    done = wandb_cli(
        *("agent", "--count", "1", f"tester/groupnorm-bench/{sweep['name']}"),
        cwd=wandb_env,
        PATH=f"{shim.parent}:{os.environ['PATH']}",
    )
    [run] = wandb_server.runs(sweep["name"])
    assert run["state"] == "finished", done.stderr
    assert run["config"].items() >= {"batch_size": 32, "num_groups": 8, "seed": 0}.items()

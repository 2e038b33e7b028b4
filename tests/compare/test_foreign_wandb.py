"""W&B projects that gnbench did not make: read by config and summary, as a table is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from groupnorm_bench import compare, load_runs, report
from groupnorm_bench.cli.app import run
from groupnorm_bench.compare.foreign import Columns
from groupnorm_bench.errors import CompareError
from tests.support.offline_runs import configs, track_one
from tests.support.wandb_server import WandbServer

PATH = "tester/theirs"


def put(
    server: WandbServer,
    config: dict[str, Any],
    summary: dict[str, Any],
    state: str = "finished",
    name: str = "",
    project: str = "theirs",
    entity: str = "tester",
) -> None:
    """Keep a run on the server, as W&B's own client leaves one."""
    found = server.store.project(entity, project, create=True)
    assert found is not None
    number = len(server.runs())
    server.store.insert(
        "runs",
        project=found["id"],
        name=f"run{number}",
        display_name=name or f"calm-sea-{number}",
        config=json.dumps({key: {"value": value} for key, value in config.items()}),
        summary=json.dumps(summary | {"_step": 9, "_wandb": {"runtime": 3}}),
        state=state,
        created=time.time(),
        heartbeat=time.time(),
    )


@pytest.fixture
def study(wandb_server: WandbServer) -> WandbServer:
    for seed in range(8):
        for norm, ahead in (("batch", 0.0), ("group", 0.03 + 0.001 * (seed % 3))):
            config = {"norm": norm, "seed": seed, "lr": 0.01, "model": {"width": 32}}
            summary = {"dice": 0.7 + 0.002 * seed + ahead, "val": {"loss": 0.3}}
            put(wandb_server, config, summary)
    return wandb_server


SCRIPT = """
import wandb
for norm in ("batch", "group"):
    for seed in (0, 1):
        config = {"norm": norm, "seed": seed, "batch_size": 2, "optim": {"lr": 0.1}}
        with wandb.init(project="theirs", name=f"{norm}-{seed}", config=config) as run:
            run.log({"dice": 0.5})
            run.log({"dice": 0.7 + 0.1 * seed + (norm == "group") / 100})
"""


def test_runs_of_a_script_with_a_setting_called_norm_are_theirs(wandb_server, wandb_env):
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True)
    table = load_runs(PATH)
    assert table.metric == "dice"
    assert {(row.arm, row.seed): row.metric("dice") for row in table.rows} == pytest.approx(
        {("batch", 0): 0.7, ("batch", 1): 0.8, ("group", 0): 0.71, ("group", 1): 0.81}
    )
    assert table.rows[0].setting == {"batch_size": 2.0}
    assert (
        "tester/theirs, guessed by its names: arm norm; seed seed; metric dice"
        in (table.problems[-1])
    )
    assert "optim.lr" in table.problems[-1]


def test_they_get_their_verdicts_and_a_page(study, capsys, tmp_path):
    assert run(["compare", PATH]) == 0
    shown = capsys.readouterr().out
    assert "group" in shown
    assert "better" in shown
    comparison = compare(PATH)
    assert [(c.arm, c.verdict, c.n_pairs) for c in comparison.contrasts] == [("group", "better", 8)]
    assert comparison.contrasts[0].mean_difference == pytest.approx(0.030875)
    page = report(PATH, tmp_path / "page.html").text
    assert f'href="{study.url}/tester/theirs/runs/run0"' in page


def test_names_may_be_told_dotted_ones_too(study):
    columns = Columns(arm=("norm",), seed="seed", metric="val.loss", setting=("model.width",))
    table = load_runs(PATH, columns=columns)
    assert table.metric == "val.loss"
    assert table.rows[0].setting == {"model.width": 32.0}


def test_runs_that_did_not_end_count_as_such(study):
    put(study, {"norm": "batch", "seed": 8, "lr": 0.01}, {}, "crashed")
    put(study, {"norm": "batch", "seed": 9, "lr": 0.01}, {"dice": 0.1}, "running")
    put(study, {"seed": 9}, {}, "failed", name="broken")
    put(study, {"norm": "group", "seed": 8, "lr": 0.01}, {"dice": "NaN"})
    comparison = compare(PATH)
    (batch, group) = comparison.cells
    assert (batch.n, batch.other_statuses) == (8, {"failed": 1, "interrupted": 1})
    assert (group.n, group.other_statuses) == (8, {"diverged": 1})
    assert any("run broken (tester/theirs/run18): failed, and has no norm" in n for n in
               comparison.notes)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "summary", "message"),
    [
        ({"norm": "group", "seed": 8, "lr": 0.01}, {}, "has no dice; leave it out: --where"),
        ({"norm": "group", "seed": 8}, {"dice": 1}, "has no lr; fill it in, or leave it out"),
        ({"norm": "group", "seed": "x", "lr": 1}, {"dice": 1}, "seed='x' is not a whole number"),
        ({"norm": "group", "seed": 8, "lr": 1}, {"dice": "high"}, "dice='high' is not a number"),
        ({"seed": 8, "lr": 1}, {"dice": 1}, "has no norm; fill it in"),
    ],
)
def test_what_is_not_clear_is_one_line_with_the_runs_name(study, capsys, config, summary, message):
    put(study, config, summary, name="odd one")
    assert run(["compare", PATH]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: run odd one (tester/theirs/run16)")
    assert message in line
    assert run(["compare", PATH, "--where", 'name!="odd one"']) == 0


def test_a_run_that_is_there_twice_is_told_by_its_names(study):
    put(study, {"norm": "group", "seed": 3, "lr": 0.01}, {"dice": 0.5}, name="again")
    told = "seed=3 of group lr=0.01 is there twice, in run calm-sea-7 (tester/theirs/run7) and "
    with pytest.raises(CompareError, match=re.escape(f"{told}run again (tester/theirs/run16)")):
        load_runs(PATH)


def test_names_that_are_not_plain_are_asked_for(wandb_server):
    put(wandb_server, {"layer": "batch", "seed": 0}, {"dice": 0.7})
    with pytest.raises(CompareError, match="tester/theirs: which column is the arm\\? --arm one"):
        load_runs(PATH)


def test_ours_are_read_as_ever_and_theirs_beside_them_are_named(wandb_server, wandb_env: Path):
    track_one(wandb_env / "runs", configs(1)[0], mode="online")
    theirs = {"norm": "batch", "seed": 0}
    put(wandb_server, theirs, {"dice": 0.7}, name="mine", project="groupnorm-bench")
    path = "tester/groupnorm-bench"
    table = load_runs(path)
    assert [row.config for row in table.rows] == [configs(1)[0]]
    assert (
        "run mine (tester/groupnorm-bench/run1): gnbench did not make it; skipped" in table.problems
    )
    with pytest.raises(CompareError, match="--seed and --setting name columns of a table"):
        load_runs(path, columns=Columns(seed="seed"))

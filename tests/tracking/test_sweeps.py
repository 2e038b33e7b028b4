"""`gnbench sweep` on W&B: shared with a second machine, and equal to an offline sweep synced."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from groupnorm_bench.errors import TrackingError
from groupnorm_bench.runs import find_runs
from groupnorm_bench.tracking.bounded import open_api
from groupnorm_bench.tracking.sweeps import SweepRecord, known_record
from tests.support.offline_runs import record_of
from tests.support.wandb_server import WandbServer

pytestmark = [
    pytest.mark.slow,  # agents look every 5 s, and each run imports torch
    pytest.mark.timeout(900),
]

SWEEP = {
    "name": "small",
    "method": "grid",
    "metric": {"name": "val/accuracy", "goal": "maximize"},
    "parameters": {
        "norm": {"values": ["batch", "group"]},
        "num_groups": {"values": [4, 8]},
        "dataset": {"value": "mnist-5k"},
        "train_limit": {"value": 100},
        "epochs": {"value": 1},
        "device": {"value": "cpu"},
    },
}
TIMED = ("train_seconds", "images_per_second", "peak_memory_mb")


@pytest.fixture
def place(wandb_server: WandbServer, wandb_env: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bin_dir = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([bin_dir, os.environ["PATH"]]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.chdir(wandb_env)
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    return wandb_env


def gnbench(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "groupnorm_bench.cli", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def record(run: dict[str, Any]) -> dict[str, Any]:
    """Return what W&B knows of a run, less its ids, clocks and the axis that agents add."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in row.items()
            if not key.startswith(("_", "perf/"))
            and key not in TIMED
            and isinstance(value, int | float | str)
        }

    return {
        "config": {k: v for k, v in run["config"].items() if k != "variant"},
        "summary": plain(run["summary"]),
        "history": [plain(row) for row in run["history"]],
        "media": len([name for name in run["files"] if name.startswith("media/")]),
        **{k: run[k] for k in ("state", "exitcode", "group_name", "job_type", "tags")},
    }


def records(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {run["display_name"]: record(run) for run in runs}


def test_a_sweep_is_shared_with_a_second_machine_and_equals_one_synced_later(
    wandb_server: WandbServer, place: Path
):
    """W&B: a grid hands out each of its points once, to whichever agent asks."""
    sweep = subprocess.Popen(
        [sys.executable, "-m", "groupnorm_bench.cli", "sweep", "small.yaml", "--workers", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    (made,) = wandb_server.wait_for(
        lambda: wandb_server.store.all("SELECT * FROM sweeps"), seconds=150
    )
    other = gnbench("agent", f"tester/groupnorm-bench/{made['name']}", "--out", "elsewhere")
    output, errors = sweep.communicate(timeout=280)
    assert (sweep.returncode, other.returncode) == (0, 0), errors + other.stderr
    assert f"W&B sweep: {wandb_server.url}/tester/groupnorm-bench/sweeps/{made['name']}" in errors
    assert "batch" in output
    online = wandb_server.runs(made["name"])
    told = [(r["display_name"], r["state"], r["offers"], r["completions"]) for r in online]
    assert len(online) == 3, told  # the file's four points are three cells: batch has no groups
    assert {(r["state"], r["offers"], r["completions"]) for r in online} == {("finished", 1, 1)}
    assert all(run["history"] and run["summary"]["status"] == "finished" for run in online)

    offline = gnbench("sweep", "small.yaml", "--wandb", "offline", "--out", "later", "--quiet")
    assert offline.returncode == 0, offline.stderr
    synced = gnbench("sync", "later", "--json")
    assert synced.returncode == 0, synced.stderr
    assert len(json.loads(synced.stdout)["sweeps"]) == 1
    later = [r for r in wandb_server.runs() if r["sweep"] not in (None, made["name"])]
    assert records(later) == records(online)
    name = later[0]["sweep"]
    kept = wandb_server.sweep(name)["config"], wandb_server.sweep(made["name"])["config"]
    assert yaml.safe_load(kept[0])["parameters"] == yaml.safe_load(kept[1])["parameters"]

    again = gnbench("sweep", "small.yaml", "--out", "later", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["todo"] == 0
    assert len(wandb_server.store.all("SELECT * FROM sweeps")) == 2


def test_a_search_goes_to_wandb_as_it_is(wandb_server: WandbServer, place: Path):
    """W&B: bayes proposes values for the parameters as the file has them, until `run_cap`."""
    spec = SWEEP | {
        "method": "bayes",
        "run_cap": 2,
        "parameters": SWEEP["parameters"]
        | {"lr": {"min": 0.001, "max": 0.01}, "norm": {"value": "batch"}},
    }
    Path("bayes.yaml").write_text(yaml.safe_dump(spec))
    done = gnbench("sweep", "bayes.yaml", "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    (made,) = wandb_server.store.all("SELECT * FROM sweeps")
    config = yaml.safe_load(made["config"])
    assert config["method"] == "bayes"
    assert config["parameters"]["lr"] == {"min": 0.001, "max": 0.01, "distribution": "uniform"}
    runs = wandb_server.runs(made["name"])
    assert [run["state"] for run in runs] == ["finished", "finished"]
    assert json.loads(done.stdout)["finished"] == 2
    assert {run["config"]["lr"] for run in runs} == {
        run.result.config.lr for run in find_runs([place / "runs"])[0]
    }


def test_wandb_by_name_without_a_login_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_API_KEY")
    done = gnbench("sweep", "small.yaml", "--executor", "wandb", "--quiet")
    assert done.returncode == 2
    assert done.stderr == (
        "error: executor=wandb needs W&B online (W&B: no login found); use --executor local\n"
    )


def test_what_a_killed_writer_left_of_a_record_goes_when_it_is_written_again(tmp_path: Path):
    record = record_of(["a", "b"])
    record.write(tmp_path)
    (tmp_path / ".norm.sweep.json-0123abcd").write_text("half")
    record.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["norm.sweep.json"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "s"',
        "[]",
        '{"name": "s", "config": [], "runs": 5, "wandb": []}',
        '{"name": "s", "config": {}, "runs": [], "wandb": {"sweep_id": "../x"}}',
        "\xff",
    ],
)
def test_a_record_that_cannot_be_read_is_set_aside_and_the_sweep_goes_on(tmp_path, text):
    fresh = SweepRecord(name="s", config={"method": "grid"}, runs=("a",))
    path = fresh.path_in(tmp_path)
    path.write_text(text, encoding="latin-1")
    said: list[str] = []
    assert known_record(fresh, tmp_path, said.append) == fresh
    assert f"{path} is not a sweep's record" in said[0]
    assert path.with_suffix(".bad").exists()
    assert not path.exists()


NAMES = ["n" * 300, "💥" * 200, "../../../evil", "a\nb", ".", "-x", "\x1b"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_makes_a_record_in_its_folder(tmp_path, name):
    record = SweepRecord(name=name, config={}, runs=())
    record.write(tmp_path)
    (path,) = tmp_path.iterdir()
    assert SweepRecord.read(path) == record


def test_long_names_that_begin_alike_have_records_of_their_own(tmp_path):
    names = ("n" * 300, "n" * 301)
    paths = {SweepRecord(name=name, config={}, runs=()).path_in(tmp_path) for name in names}
    assert len(paths) == 2


def test_seeds_until_it_is_decided_stand_in_the_same_sweep_and_its_question_beside_them(
    place: Path, wandb_server: WandbServer
):
    few = SWEEP | {"parameters": SWEEP["parameters"] | {"num_groups": {"value": 8}}}
    Path("small.yaml").write_text(yaml.safe_dump(few))
    Path("small.question.yaml").write_text("{alpha: 1.0e-9, max_seeds: 3, first_look: 2}")
    typed = ("sweep", "small.yaml", "--executor", "wandb", "--until-decided", "--quiet", "--json")
    done = gnbench(*typed)
    assert done.returncode == 5, done.stderr
    told = json.loads(done.stdout)
    assert (told["finished"], told["undecided"]) == (6, 1)
    runs = wandb_server.runs()
    assert len(runs) == 6
    record = SweepRecord.read(place / "runs" / "small.sweep.json")
    assert {run["sweep"] for run in runs} == {record.wandb["sweep_id"]}
    assert len(record.runs) == 6
    assert 'question: {"alpha": 1e-09' in record.config["description"]
    again = gnbench(*typed)
    assert again.returncode == 5
    assert json.loads(again.stdout)["contrasts"] == told["contrasts"]
    assert len(wandb_server.runs()) == 6


def test_what_the_client_raises_for_a_request_that_failed_is_one_line(wandb_server: WandbServer):
    failed = WandbApiFailedError("invalid character 'N'\nlooking for a value")
    words = r"^W&B: invalid character 'N' looking for a value; "
    with pytest.raises(TrackingError, match=words), open_api():
        raise failed

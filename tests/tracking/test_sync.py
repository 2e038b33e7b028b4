"""`gnbench sync` and reading back, with the real client against the test server."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.errors import RunFolderError, TrackingError
from groupnorm_bench.runs import RunFolder, find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.readback import read_wandb, split_path
from groupnorm_bench.tracking.sweeps import SweepRecord, find_records, make_sweep
from groupnorm_bench.tracking.wire import from_wandb, to_wandb
from tests.support.offline_runs import configs, record_of, track_one
from tests.support.wandb_server import API_KEY, WandbServer


@pytest.fixture
def offline(wandb_env: Path) -> Path:
    """Return a folder with six offline runs of one sweep."""
    runs_dir = wandb_env / "runs"
    folders = [track_one(runs_dir, config) for config in configs(6)]
    record_of([folder.path.name for folder in folders]).write(runs_dir)
    return runs_dir


def gnbench(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "groupnorm_bench.cli", *map(str, args)],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def sync(runs_dir: Path, *args: str, **env: str) -> dict[str, object]:
    done = gnbench("sync", runs_dir, "--json", *args, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_local_sweep_becomes_a_sweep_that_reads_back_and_a_second_sync_does_nothing(
    offline: Path, wandb_server: WandbServer
):
    outcome = sync(offline)
    names = {run.folder.path.name for run in find_runs([offline])[0]}
    assert set(outcome["uploaded"]) == names
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    assert outcome["sweeps"] == [
        f"{wandb_server.url}/tester/groupnorm-bench/sweeps/{sweep['name']}"
    ]
    assert (sweep["state"], sweep["display_name"]) == ("FINISHED", "norm")
    runs = wandb_server.runs(sweep["name"])
    assert {run["display_name"] for run in runs} == names
    assert {(run["state"], run["completions"]) for run in runs} == {("finished", 1)}
    assert {len(run["history"]) for run in runs} == {2}

    before = len(wandb_server.operations())
    again = sync(offline)
    assert again == {"uploaded": [], "failed": {}, "sweeps": [], "grouped": []}
    assert len(wandb_server.operations()) == before

    results, problems = read_wandb(f"tester/groupnorm-bench/{sweep['name']}")
    assert problems == []
    here = {run.result.config.name: run.result for run in find_runs([offline])[0]}
    assert {result.config.name for result in results} == set(here)
    for result in results:
        kept = here[result.config.name]
        assert result.config == kept.config
        assert result.status == kept.status
        assert result.history == kept.history
        assert kept.summary.items() <= result.summary.items()


@pytest.mark.slow
def test_runs_made_later_join_the_sweep(offline: Path, wandb_server: WandbServer):
    late = TrainConfig(norm="layer", dataset="mnist-5k", epochs=2)
    record = SweepRecord.read(offline / "norm.sweep.json")
    record.replace(runs=(*record.runs, late.name)).write(offline)
    sync(offline)
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    assert sweep["state"] == "PENDING"
    track_one(offline, late)
    sync(offline)
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    assert len(wandb_server.runs(sweep["name"])) == 7
    assert sweep["state"] == "FINISHED"


@pytest.mark.slow
def test_where_the_sweep_is_refused_its_runs_stand_in_one_group(
    offline: Path, wandb_server: WandbServer
):
    wandb_server.rules.accept_prior_runs = False
    done = gnbench("sync", offline, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["grouped"] == ["norm"]
    assert "did not take norm as a sweep" in done.stderr
    assert {run["group_name"] for run in wandb_server.runs()} == {"norm"}
    assert {run["state"] for run in wandb_server.runs()} == {"finished"}
    assert len(wandb_server.runs()[0]["history"]) == 2, "regrouping must not lose anything"


@pytest.mark.slow
def test_a_server_that_is_gone_is_one_line_and_nothing_is_lost(
    offline: Path, wandb_server: WandbServer
):
    wandb_server.stop()
    began = time.monotonic()
    done = gnbench("sync", offline)
    assert done.returncode == 2
    assert done.stderr.startswith("error: W&B: not online")
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - began < 60
    wandb_server.start()
    assert len(sync(offline)["uploaded"]) == 6


@pytest.mark.slow
def test_a_failed_upload_is_named_though_wandb_sync_exits_0(
    offline: Path, wandb_server: WandbServer
):
    wandb_server.fail("status", status=403, matching="file_stream")
    done = gnbench("sync", offline)
    assert done.returncode == 2, "wandb sync exits 0 when it failed; gnbench sync does not"
    assert "6 of 6 runs were not uploaded" in done.stderr
    wandb_server.heal()
    assert len(sync(offline)["uploaded"]) == 6
    assert {len(run["history"]) for run in wandb_server.runs()} == {2}


@pytest.mark.slow
def test_the_key_is_nowhere(offline: Path, wandb_server: WandbServer):
    done = gnbench("sync", offline)
    assert API_KEY not in done.stdout + done.stderr
    for path in offline.rglob("*"):
        if path.is_file():
            assert API_KEY.encode() not in path.read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"WANDB_API_KEY": ""}, "no login found; type wandb login"),
        ({"WANDB_API_KEY": "f" * 40}, "not online"),
        ({"WANDB_API_KEY": "short"}, "not online"),
    ],
)
def test_a_key_missing_or_wrong_is_one_line_and_never_a_prompt(
    offline: Path, wandb_server: WandbServer, env: dict[str, str], message: str
):
    done = gnbench("sync", offline, **env)
    assert done.returncode == 2
    assert done.stderr.startswith("error: W&B: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_project_and_entity_can_be_overridden(offline: Path, wandb_server: WandbServer):
    sync(offline, "--project", "elsewhere", "--entity", "team")
    projects = wandb_server.store.all("SELECT entity, name FROM projects")
    assert projects == [{"entity": "team", "name": "elsewhere"}]


def test_dry_run_asks_nothing_and_a_running_run_is_left_alone(
    offline: Path, wandb_server: WandbServer, capsys: pytest.CaptureFixture[str]
):
    runs = find_runs([offline])[0]
    with RunFolder(runs[0].folder.path).claim():
        done = gnbench("sync", offline, "--dry-run", "--json")
    assert f"{runs[0].folder.path.name} is still running; skipped" in done.stderr
    assert len(json.loads(done.stdout)["todo"]) == 5
    assert run(["sync", str(offline), "--dry-run"]) == 0
    *names, last = capsys.readouterr().out.splitlines()
    assert set(names) == {each.folder.path.name for each in runs}
    assert last == "6 runs to upload"
    assert wandb_server.operations() == []


@pytest.mark.slow
def test_a_run_that_was_cut_off_online_is_completed(
    wandb_server: WandbServer, wandb_env: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("groupnorm_bench.tracking.run.FINISH_SECONDS", 3)
    runs_dir = wandb_env / "runs"
    fault = wandb_server.fail("status", status=500, matching="file_stream")
    folder = track_one(runs_dir, configs(1)[0], mode="online")
    assert fault.hits > 0
    assert [run["state"] for run in wandb_server.runs()] == ["running"]
    wandb_server.heal()
    assert sync(runs_dir)["uploaded"] == [folder.path.name]
    (run,) = wandb_server.runs()
    assert (run["state"], [row["epoch"] for row in run["history"]]) == ("finished", [1, 2])
    assert sync(runs_dir)["uploaded"] == [], "W&B has its end: nothing to upload"


@pytest.mark.slow
def test_a_sync_of_fifty_killed_twice_uploads_each_run_once(
    wandb_env: Path, wandb_server: WandbServer
):
    runs_dir = wandb_env / "runs"
    folders = [track_one(runs_dir, config) for config in configs(50)]
    record_of([folder.path.name for folder in folders]).write(runs_dir)
    dice = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "groupnorm_bench.cli", "sync", str(runs_dir)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        seen = len(wandb_server.runs())
        wandb_server.wait_for(lambda seen=seen: len(wandb_server.runs()) > seen + 4)
        time.sleep(dice.uniform(0, 0.5))
        os.killpg(process.pid, 9)
        process.wait()
    assert len(wandb_server.runs()) < 50 or not wandb_server.store.all("SELECT * FROM sweeps")
    sync(runs_dir)
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    runs = wandb_server.runs(sweep["name"])
    assert len(runs) == len(wandb_server.runs()) == 50
    assert {run["display_name"] for run in runs} == {folder.path.name for folder in folders}
    assert {run["state"] for run in runs} == {"finished"}
    results, _ = read_wandb(f"tester/groupnorm-bench/{sweep['name']}")
    kept = {run.result.config.name: run.result.history for run in find_runs([runs_dir])[0]}
    assert {result.config.name: result.history for result in results} == kept


@pytest.mark.parametrize("path", ["tester/none", "tester/groupnorm-bench/none", "x/y/z"])
def test_a_path_that_is_not_there_is_one_line(wandb_server: WandbServer, path: str):
    with pytest.raises(TrackingError, match="W&B: "):
        read_wandb(path)


def test_runs_that_are_not_ours_are_named(wandb_server: WandbServer, wandb_env: Path):
    code = "import wandb; wandb.init(project='p', config={'x': 1}).finish()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    results, problems = read_wandb("tester/p")
    assert results == []
    assert "gnbench did not make it" in problems[0]


def test_what_wandb_answers_is_held_to_what_a_folder_is(wandb_server: WandbServer, wandb_env: Path):
    """Whoever may write to the project wrote it, and per cent are no fractions."""
    config = json.dumps(to_wandb(TrainConfig(dataset="mnist-5k"), "norm"))
    code = (
        "import json, sys, wandb\n"
        "for accuracy in (97.0, 0.97):\n"
        "    run = wandb.init(project='p', config=json.loads(sys.argv[1]))\n"
        "    run.log({'epoch': 1.0, 'val/accuracy': 0.5})\n"
        "    run.summary['test/accuracy'] = accuracy\n"
        "    run.finish()\n"
    )
    subprocess.run([sys.executable, "-c", code, config], check=True, capture_output=True)
    (result,), (problem,) = read_wandb("tester/p")
    assert result.summary["test/accuracy"] == 0.97
    assert [type(row["epoch"]) for row in result.history] == [int]
    assert "has test/accuracy=97, not between 0 and 1; skipped" in problem


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(norm="batch"),
        TrainConfig(group_size=4),
        TrainConfig(max_steps=10, train_limit=100),
        TrainConfig(norm="none", lr=1.0, weight_decay=0.1, weight_decay_all=True),
    ],
)
def test_a_config_survives_wandb(config: TrainConfig):
    sent = json.loads(json.dumps(to_wandb(config, "norm")))
    assert from_wandb(sent).cell_settings == config.cell_settings
    assert from_wandb(sent).name == config.name


@pytest.mark.parametrize("path", ["one", "a/b/c/d", "a//b", ""])
def test_a_malformed_path_is_refused(path: str):
    with pytest.raises(TrackingError, match="is no W&B path; write ENTITY/PROJECT"):
        split_path(path)


def test_a_sweeps_address_is_a_path():
    assert split_path("e/p/sweeps/s") == ("e", "p", "s")


def test_a_broken_record_is_named_and_skipped(tmp_path: Path):
    (tmp_path / "norm.sweep.json").write_text("{")
    records, problems = find_records([tmp_path])
    assert records == []
    assert "norm.sweep.json is not a sweep's record" in problems[0]
    with pytest.raises(RunFolderError, match="not a sweep's record"):
        SweepRecord.read(tmp_path / "norm.sweep.json")


def test_a_run_that_wandb_has_not_whole_is_told_again_from_its_result(
    offline: Path, wandb_server: WandbServer
):
    """Its client failed half-way, or its files are gone: the folder has all that is needed."""
    found, _ = find_runs([offline])
    cut, gone = found[0], found[1]
    row = {"epoch": 3, "step": 30, "val/accuracy": 0.75, "train/loss": 0.5}
    summary = cut.result.summary | {"val/accuracy": 0.75, "test/accuracy": 0.5}
    longer = cut.result.replace(history=[*cut.result.history, row], summary=summary)
    cut.folder.write(longer)
    shutil.rmtree(gone.folder.path / "wandb")
    outcome = sync(offline)
    assert set(outcome["uploaded"]) == {run.folder.path.name for run in found}
    stored = {run["display_name"]: run for run in wandb_server.runs()}
    told = stored[cut.folder.path.name]
    assert [line["epoch"] for line in told["history"] if "epoch" in line] == [1, 2, 3]
    assert told["summary"]["test/accuracy"] == 0.5
    assert told["state"] == "finished"
    assert len(stored[gone.folder.path.name]["history"]) == len(gone.result.history)
    before = len(wandb_server.operations())
    assert sync(offline)["uploaded"] == []
    assert len(wandb_server.operations()) == before, "what is known to be whole is left alone"


def test_two_folders_with_one_id_are_refused_and_the_rest_goes_up(
    offline: Path, wandb_server: WandbServer
):
    found, _ = find_runs([offline])
    twin = TrainConfig(norm="none", dataset="mnist-5k", epochs=2, seed=7)
    folder = RunFolder.of(offline, twin)
    shutil.copytree(found[0].folder.path, folder.path)
    folder.write(found[0].result.replace(config=twin))
    done = gnbench("sync", offline, "--json")
    assert done.returncode == 2
    failed = json.loads(done.stdout)["failed"]
    assert set(failed) == {found[0].folder.path.name, twin.name}
    assert "is that of 2 run folders" in failed[twin.name]
    assert len(wandb_server.runs()) == len(found) - 1


def test_a_sync_killed_after_it_made_the_sweep_finds_it_again(
    offline: Path, wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch
):
    record = SweepRecord.read(offline / "norm.sweep.json")
    write = SweepRecord.write

    def killed(self: SweepRecord, runs_dir: Path) -> None:
        if "sweep_id" in self.wandb:
            raise KeyboardInterrupt
        write(self, runs_dir)

    with monkeypatch.context() as patch:
        patch.setattr(SweepRecord, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            make_sweep(record, offline, project="groupnorm-bench", entity=None)
    outcome = sync(offline)
    (stored,) = wandb_server.store.all("SELECT * FROM sweeps")
    assert outcome["sweeps"][0].endswith(stored["name"])
    assert len(wandb_server.runs(stored["name"])) == 6
    assert "making" not in SweepRecord.read(offline / "norm.sweep.json").wandb

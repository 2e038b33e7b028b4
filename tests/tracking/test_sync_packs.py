"""`gnbench sync` of a pack, with the real client against the test server."""

import json
from pathlib import Path

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.runs import RunFolder, find_runs
from groupnorm_bench.tracking.readback import read_wandb
from tests.support.offline_runs import configs, record_of, track_one
from tests.support.wandb_server import WandbServer

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def runs(wandb_env: Path) -> Path:
    """Return a folder with three offline runs of one sweep."""
    runs_dir = wandb_env / "runs"
    folders = [track_one(runs_dir, config) for config in configs(3)]
    record_of([folder.path.name for folder in folders]).write(runs_dir)
    return runs_dir


@pytest.fixture
def pack(runs: Path) -> Path:
    path = runs.with_name("all.gnb")
    assert run(["pack", str(runs), "-o", str(path), "-q"]) == 0
    return path


def sync(capsys: Captured, *args: object) -> dict[str, list[str]]:
    capsys.readouterr()
    assert run(["sync", "--json", *map(str, args)]) == 0
    told: dict[str, list[str]] = json.loads(capsys.readouterr().out)
    return told


def changes(server: WandbServer) -> int:
    return sum("upsert" in str(operation).lower() for operation in server.operations())


def test_a_pack_goes_up_from_its_results_once_and_is_one_sweep(
    pack: Path, runs: Path, wandb_server: WandbServer, capsys: Captured
):
    sealed = pack.read_bytes()
    kept = {each.result.config.name: each.result for each in find_runs([runs])[0]}
    told = sync(capsys, pack)
    assert set(told["uploaded"]) == set(kept)
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    assert told["sweeps"] == [f"{wandb_server.url}/tester/groupnorm-bench/sweeps/{sweep['name']}"]
    assert (sweep["state"], sweep["display_name"]) == ("FINISHED", "norm")
    stored = wandb_server.runs(sweep["name"])
    assert {each["name"] for each in stored} == {each.wandb["id"] for each in kept.values()}
    assert {each["state"] for each in stored} == {"finished"}
    results, problems = read_wandb(f"tester/groupnorm-bench/{sweep['name']}")
    assert problems == []
    assert {r.config.name: r.history for r in results} == {n: r.history for n, r in kept.items()}
    before = changes(wandb_server)
    assert before > 0
    again = sync(capsys, pack)
    assert again == {"uploaded": [], "failed": {}, "sweeps": [], "grouped": []}
    assert changes(wandb_server) == before, "W&B was asked, and told nothing"
    assert pack.read_bytes() == sealed


def test_what_lies_in_a_folder_too_is_left_to_that_and_packs_in_a_folder_are_read(
    pack: Path, runs: Path, wandb_server: WandbServer, capsys: Captured
):
    capsys.readouterr()
    assert run(["sync", str(pack), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "3 runs to upload"
    assert "W&B may have them" in err
    assert run(["sync", str(runs), str(pack), "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["todo"]) == 3
    assert wandb_server.operations() == []
    told = sync(capsys, runs, pack.parent)
    assert len(told["uploaded"]) == len(wandb_server.runs()) == 3
    assert len(wandb_server.store.all("SELECT * FROM sweeps")) == 1
    assert sync(capsys, pack)["sweeps"] == [], "the sweep that the folder made is found"


def test_a_packed_run_with_the_id_of_another_is_refused(
    pack: Path, runs: Path, wandb_server: WandbServer, capsys: Captured
):
    first, second = (each for each in find_runs([runs])[0][:2])
    second.folder.write(second.result.replace(wandb=first.result.wandb))
    other = runs.with_name("other.gnb")
    assert run(["pack", str(second.folder.path), "-o", str(other), "-q"]) == 0
    capsys.readouterr()
    assert run(["sync", str(first.folder.path), str(other)]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "1 run uploaded"
    assert f"is that of {RunFolder(first.folder.path).name}, too" in err
    assert "1 of 2 runs were not uploaded" in err

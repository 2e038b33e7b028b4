"""Ray as the engine: what travels, what is refused, and sweeps on real nodes that share no disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from groupnorm_bench.errors import ConfigError, RunFolderError
from groupnorm_bench.runs import RunFolder, find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EXECUTORS, EngineOptions
from groupnorm_bench.sweep.executors.protocol import Lost, Progress, Said, Stopped
from groupnorm_bench.sweep.executors.ray import cluster
from groupnorm_bench.sweep.executors.ray.executor import RayExecutor, _Slot
from groupnorm_bench.sweep.executors.ray.luggage import OWN_MODULES, pack_code
from groupnorm_bench.sweep.executors.ray.travel import FolderNews, FolderWatcher, apply_news
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import build_plan
from groupnorm_bench.sweep.plan.sources import make_source
from groupnorm_bench.sweep.scheduler import Scheduler
from groupnorm_bench.sweep.session import Session, SweepOptions, sweep
from groupnorm_bench.tracking.options import TrackingOptions
from tests.support.ray_nodes import TOKEN, RayNodes
from tests.support.sweeping import make_engine
from tests.sweep.test_faults import essence, wait_for

OWN_NORM = """
import helper
def make(num_channels, num_groups):
    return helper.nn.GroupNorm(4, num_channels)
"""
OURS = Path(cluster.__file__).parents[3]


def test_what_changed_in_a_folder_goes_home_and_nothing_else(tmp_path):
    there, here = RunFolder(tmp_path / "there"), RunFolder(tmp_path / "here")
    (there.path / "wandb" / "offline-run-1-a").mkdir(parents=True)
    here.path.mkdir()
    (there.path / "wandb" / "offline-run-1-a" / "run-a.wandb").write_bytes(b"rows")
    (there.path / "wandb" / "latest-run").symlink_to("offline-run-1-a")
    for name in ("result.json", "checkpoint.pt", "lock", "lock.3", ".result.json-1a2b3c4d"):
        (there.path / name).write_text(name)
    watcher = FolderWatcher(there.path)
    apply_news(here, watcher.news())
    assert sorted(os.listdir(here.path)) == ["checkpoint.pt", "result.json"]
    assert not watcher.news()

    there.result_path.write_text("the end")
    there.checkpoint_path.unlink()
    apply_news(here, watcher.news(wandb=True))
    assert sorted(os.listdir(here.path)) == ["result.json", "wandb"]
    assert here.result_path.read_text() == "the end"
    assert (here.path / "wandb" / "latest-run" / "run-a.wandb").read_bytes() == b"rows"


@pytest.mark.parametrize("name", ["../lock", "/etc/passwd", "lock", "lock.3", ""])
def test_a_node_writes_into_its_run_folder_alone(tmp_path, name):
    with pytest.raises(RunFolderError, match="no file of a run"):
        apply_news(RunFolder(tmp_path), FolderNews({name: b"x"}))


@pytest.mark.parametrize(
    "news",
    [
        FolderNews(links={"wandb/x": "../../else"}),
        FolderNews(links={"wandb/x": "/etc"}),
        FolderNews({"wandb/there/x": b"x"}),
        FolderNews(gone=("wandb/there/kept",)),
        FolderNews(links={"wandb/there/x": "kept"}),
    ],
)
def test_no_link_leads_a_node_out_of_its_run_folder(tmp_path, news):
    folder, elsewhere = RunFolder(tmp_path / "run"), tmp_path / "else"
    (folder.path / "wandb").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (folder.path / "wandb" / "there").symlink_to("../../else")
    with pytest.raises(RunFolderError, match=r"no file of a run|out of the run"):
        apply_news(folder, news)
    assert os.listdir(elsewhere) == ["kept"]
    assert os.listdir(folder.path / "wandb") == ["there"]


def test_a_file_that_a_trial_saved_by_a_link_comes_home_as_a_file(tmp_path):
    there, here = RunFolder(tmp_path / "there"), RunFolder(tmp_path / "here")
    files = there.path / "wandb" / "offline-run-1-a" / "files"
    files.mkdir(parents=True)
    here.path.mkdir()
    (tmp_path / "table.csv").write_text("1,2")
    (files / "table.csv").symlink_to(tmp_path / "table.csv")
    (files / "nowhere").symlink_to(tmp_path / "nowhere")
    (files / "folder").symlink_to(tmp_path)
    apply_news(here, FolderWatcher(there.path).news(wandb=True))
    home = here.path / "wandb" / "offline-run-1-a" / "files"
    assert os.listdir(home) == ["table.csv"]
    assert not (home / "table.csv").is_symlink()
    assert (home / "table.csv").read_text() == "1,2"


def test_code_goes_along_and_runs_data_and_the_repository_do_not(tmp_path, monkeypatch):
    home = tmp_path / "home"
    for folder in ("lab", "lab/runs", "lab/.git", "lab/data", "lab/wandb", "runs", ".git"):
        (home / folder).mkdir(parents=True)
        (home / folder / "big.bin").write_bytes(b"x")
    for name in ("__init__.py", ".env", ".netrc"):
        (home / "lab" / name).touch()
    (home / "my_norms.py").write_text(OWN_NORM.replace("helper", "beside"))
    (home / "beside.py").write_text("from torch import nn")
    (home / "sweep.yaml").write_text(
        "{method: grid, parameters: {norm: {values: [none, 'my_norms:make']}, "
        "seed: {values: [0, 1]}, dataset: {value: mnist-5k}}}"
    )
    monkeypatch.chdir(home)
    plan = build_plan(read_spec(home / "sweep.yaml"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert pack_code(plan, "lab.trials:train", scratch) == [str(OURS), str(scratch / OWN_MODULES)]
    sent = {str(p.relative_to(scratch / OWN_MODULES)) for p in scratch.rglob("*") if p.is_file()}
    assert sent == {"lab/__init__.py", "lab/big.bin", "my_norms.py", "beside.py"}


def test_modules_too_large_to_be_sent_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "big.bin").write_bytes(bytes(33 * 2**20))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(ConfigError, match=r"33 MiB of .*large to the nodes"):
        pack_code(None, "large.trials:train", tmp_path / "scratch")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("nowhere", "is no address; write HOST:PORT, or auto"),
        ("127.0.0.1:123456", "is no address"),
        ("ray://127.0.0.1:10001", "Ray Client"),
    ],
)
def test_a_wrong_address_is_one_line_at_once(tmp_path, address, words):
    pytest.importorskip("ray")
    before = time.monotonic()
    with pytest.raises(ConfigError, match=words) as caught:
        make_engine(tmp_path, engine="ray", ray_address=address)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - before < 10


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'groupnorm-bench\[ray\]'"):
        make_engine(tmp_path, engine="ray")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"executor": "local", "ray_address": "auto"}, "does nothing without --executor ray"),
        ({"executor": "ray", "ray_address": " "}, "ray_address=' ' is empty; write HOST:PORT"),
        ({"executor": "ray", "ship_wandb_key": True}, "is for the nodes of a cluster"),
        (
            {"executor": "ray", "ray_address": "a:1", "ship_wandb_key": True, "wandb": "offline"},
            "ship_wandb_key does nothing with --wandb offline; leave one of them out",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, options, words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=words):
        sweep("sweeps/smoke.yaml", runs=tmp_path, **options)


def test_a_key_that_no_run_would_use_stays_here(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    said = []
    session = object.__new__(Session)
    session._options, session._say = SweepOptions(ship_wandb_key=True), said.append
    session._tracking = TrackingOptions(mode="offline")
    assert (session._shipped(), said) == ((), ["W&B is offline, so no key goes to the nodes"])
    session._tracking = TrackingOptions(mode="online")
    assert dict(session._shipped())["WANDB_API_KEY"] == "k" * 40


SEARCH = """
method: bayes
metric: {name: val/accuracy, goal: maximize}
early_terminate: {type: hyperband, min_iter: 1, eta: 2}
run_cap: 5
parameters:
  norm: {values: [none, batch, group]}
  lr: {min: 0.001, max: 0.5}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  epochs: {value: 2}
"""


@pytest.fixture
def hearing(tmp_path):
    """An executor whose only actor is at a run, and dies after each batch; how it went, told."""
    ray = SimpleNamespace(
        exceptions=SimpleNamespace(
            RayError=RayDied, RayActorError=RayDied, RayTaskError=KeyboardInterrupt
        ),
        get=lambda messages: messages,
        kill=lambda actor: None,
    )
    executor = object.__new__(RayExecutor)
    executor._ray, executor._slots, executor._furthest = ray, {}, {}
    executor._stop_deadline = None
    executor._options = EngineOptions(
        runs_dir=tmp_path, data_dir=tmp_path, tracking=TrackingOptions(mode="disabled"), trial="a:b"
    )

    def heard(run, *steps):
        def stream():
            yield [Progress(run, 0, step, 0.5, {"epoch": step}) for step in steps]
            raise RayDied

        executor._slots[0] = slot = _Slot(0, None, None, run=run, stream=stream())
        return [type(e) for _ in range(2) for e in executor._hear(slot, None)][len(steps) :]

    return executor, heard


class RayDied(Exception):
    pass


def test_a_run_that_ends_its_node_at_the_same_place_does_not_go_on_for_ever(hearing):
    _, heard = hearing
    run = TrainConfig()
    assert heard(run, 1, 2) == [Said, Stopped]
    assert heard(run, 2, 3) == [Said, Stopped]
    assert heard(run, 1, 2, 3) == [Lost]
    assert heard(run) == [Lost]


def test_a_folder_that_cannot_be_read_costs_its_run_alone(hearing, monkeypatch):
    executor, _ = hearing

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "checkpoint.pt")

    monkeypatch.setattr(FolderWatcher, "news", refuse)
    (event,) = executor._begin(_Slot(0, None, None), run := TrainConfig())
    assert isinstance(event, Lost)
    assert "Permission denied" in event.reason
    assert not executor._folder(run).is_claimed()


@pytest.mark.slow
def test_a_search_that_prunes_goes_as_on_local_workers(tmp_path):
    (tmp_path / "search.yaml").write_text(SEARCH)

    def searched(engine):
        runs_dir = tmp_path / engine
        runs_dir.mkdir()
        plan = build_plan(read_spec(tmp_path / "search.yaml"))
        options = EngineOptions(
            runs_dir=runs_dir, data_dir=tmp_path, tracking=TrackingOptions(mode="disabled")
        )
        executor = EXECUTORS[engine].open(plan, options, print)
        outcome = Scheduler(make_source(plan, ()), executor, runs_dir).run()
        return [(name, result.status) for name, result in outcome.results.items()]

    there = searched("ray")
    assert there == searched("local")
    assert "pruned" in {status for _, status in there}
    assert essence_of_all(tmp_path / "ray") == essence_of_all(tmp_path / "local")


def essence_of_all(runs_dir):
    """What time does not change of runs, pruned ones too, which have no hits."""
    runs, problems = find_runs([runs_dir])
    assert not problems
    timed = ("perf/", "train_seconds", "images_per_second", "peak_memory_mb")
    return {
        run.result.config.name: [
            {key: value for key, value in row.items() if not key.startswith(timed)}
            for row in [*run.result.history, run.result.summary]
        ]
        for run in runs
    }


SWEEP = """
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, "own_norm:make"]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 128}
  epochs: {value: 2}
"""
SEEDS = 12
NAPS = """
import time
def train(run):
    time.sleep(2)
    return {"score": 0.5}
"""
SWEEP_OF_NAPS = """
method: grid
metric: {name: score, goal: maximize}
parameters:
  trial: {value: "naps:train"}
  norm: {values: [none, batch]}
"""


class Command:
    """`gnbench sweep` in a folder of its own, in the background."""

    def __init__(self, home, *options, seeds=SEEDS, wandb="disabled", text=SWEEP, **variables):
        home.mkdir(exist_ok=True)
        (home / "sweep.yaml").write_text(text)
        (home / "own_norm.py").write_text(OWN_NORM)
        (home / "helper.py").write_text("from torch import nn\n")
        self.runs_dir = home / "runs"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "groupnorm_bench", "sweep", "sweep.yaml", "--json"),
                *("--wandb", wandb, "--seeds", str(seeds), *options),
            ],
            cwd=home,
            env=os.environ | TOKEN | {"PYTHONPATH": str(OURS.parent)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self):
        """Wait for the end; return exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=280)
        return self.process.returncode, stdout, stderr

    def num_settled(self):
        return sum(
            RunFolder(path).read_settled() is not None for path in self.runs_dir.glob("*-s*")
        )


@pytest.fixture
def place():
    """A folder of temporary files with a name short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(place):
    """Ids of the processes of a Ray whose temporary files are there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                if f"TMPDIR={place}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found += [entry.name] * (b"ray" in (entry / "cmdline").read_bytes())
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folders that the local engine leaves."""
    command = Command(tmp_path_factory.mktemp("reference") / "home", "--executor", "local")
    assert command.finish()[0] == 0
    return essence(command.runs_dir)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster of a head without CPUs and a node with two."""
    cluster = RayNodes(tmp_path_factory.mktemp("nodes"))
    cluster.add(2)
    yield cluster
    cluster.close()


@pytest.mark.slow
def test_a_ray_of_our_own_leaves_the_folders_of_local_workers(tmp_path, reference, place):
    command = Command(
        tmp_path / "home", "--executor", "ray", seeds=1, wandb="offline", TMPDIR=str(place)
    )
    code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert json.loads(stdout)["finished"] == 2
    assert "ray" not in stderr.lower(), stderr
    ours = essence(command.runs_dir)
    assert ours == {name: reference[name] for name in ours}
    assert len(ours) == len(list(command.runs_dir.glob("*/wandb/offline-run-*/run-*.wandb")))
    for name in ours:  # four inodes, beyond W&B's
        kept = sorted(os.listdir(command.runs_dir / name))
        assert kept == ["lock", "result.json", "test_hits.npy", "wandb"]
    wait_for(lambda: not processes_of(place), seconds=60)
    assert not list(place.glob("gnbench-*"))


@pytest.mark.slow
def test_a_killed_node_costs_no_run_and_one_that_joins_is_used(tmp_path, nodes, reference):
    doomed = nodes.add()
    command = Command(tmp_path / "home", "--executor", "ray", "--ray-address", nodes.address)
    at = random.randrange(1, 2 * SEEDS - 6)
    print(f"the node is killed when {at} runs are settled")
    wait_for(lambda: command.num_settled() >= at)
    nodes.kill(doomed)
    joined = nodes.add()
    code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert json.loads(stdout)["finished"] == 2 * SEEDS
    assert essence(command.runs_dir) == reference
    log = (nodes.home / f"node-{nodes.nodes.index(joined)}" / "stdout").read_text()
    assert joined.poll() is None, log
    nodes.kill(joined)
    wait_for(lambda: not nodes.left_over(), seconds=60)


@pytest.mark.slow
def test_a_node_that_drains_is_given_no_more_runs(tmp_path, nodes):
    leaving = nodes.add(resources='{"leaving": 1}')
    home = tmp_path / "home"
    home.mkdir()
    (home / "naps.py").write_text(NAPS)
    options = ("--executor", "ray", "--ray-address", nodes.address)
    command = Command(home, *options, seeds=20, text=SWEEP_OF_NAPS)
    wait_for(lambda: nodes.trainers(leaving) and command.num_settled() >= 1)
    nodes.drain("leaving")
    wait_for(lambda: not nodes.trainers(leaving), seconds=60)
    settled = command.num_settled()
    code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert settled < json.loads(stdout)["finished"] == 40
    assert not nodes.trainers(leaving)
    nodes.kill(leaving)


@pytest.mark.slow
def test_the_line_of_the_scale_page_sweeps_on_a_cluster(tmp_path, nodes, reference):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "norm.yaml").write_text(SWEEP.replace(', "own_norm:make"', ""))
    line = "gnbench sweep sweeps/norm.yaml --executor ray --ray-address auto"
    (tmp_path / "gnbench").write_text(
        f'#!/bin/sh\nexec {sys.executable} -P -m groupnorm_bench "$@"'
    )
    (tmp_path / "gnbench").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", f"{line} --wandb disabled"],
        cwd=tmp_path,
        env=os.environ | TOKEN | {"PATH": path, "RAY_ADDRESS": nodes.address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[1/1]" in done.stderr + done.stdout
    ours = essence(tmp_path / "runs")
    assert len(ours) == 1
    assert ours == {name: reference[name] for name in ours}


@pytest.mark.slow
def test_the_killed_command_typed_again_goes_on(tmp_path, nodes, reference):
    options = ("--executor", "ray", "--ray-address", nodes.address)
    command = Command(tmp_path / "home", *options, seeds=4)
    wait_for(lambda: command.num_settled() >= 2)
    command.process.kill()
    command.process.communicate()
    wait_for(lambda: not nodes.left_over(), seconds=60)
    settled = command.num_settled()
    again = Command(tmp_path / "home", *options, seeds=4)
    code, stdout, stderr = again.finish()
    assert code == 0, stderr
    told = json.loads(stdout)
    assert told["reused"] >= settled
    assert told["finished"] + told["reused"] == 8
    ours = essence(again.runs_dir)
    assert len(ours) == 8
    assert ours == {name: reference[name] for name in ours}


@pytest.mark.slow
def test_ctrl_c_brings_checkpoints_home(tmp_path, nodes):
    options = ("--executor", "ray", "--ray-address", nodes.address)
    command = Command(tmp_path / "home", *options, seeds=4)
    wait_for(lambda: command.num_settled() >= 2)
    os.killpg(command.process.pid, signal.SIGINT)
    code, _, stderr = command.finish()
    assert code == 130, stderr
    assert "type the same command to go on" in stderr
    states = [RunFolder(path).read() for path in command.runs_dir.glob("*-s*")]
    stopped = [state for state in states if state is not None and state.status == "interrupted"]
    assert len(list(command.runs_dir.glob("*/checkpoint.pt"))) == len(stopped)
    wait_for(lambda: not nodes.left_over(), seconds=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "cuda"], "has no GPU"),
        (["--threads", "3"], "no node of the cluster"),
    ],
)
def test_what_a_cluster_lacks_is_one_line(tmp_path, nodes, options, words):
    command = Command(
        tmp_path / "home", "--executor", "ray", "--ray-address", nodes.address, *options
    )
    code, stdout, stderr = command.finish()
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert (code, stdout) == (2, "")
    assert words in line
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_another_version_of_ray_is_one_line_with_both(tmp_path, nodes, monkeypatch):
    import ray

    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import ray; ray.__version__ = '2.1.0'")
    monkeypatch.setenv("PYTHONPATH", str(site))
    for name, value in TOKEN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"runs Ray {ray.__version__} on Python .* Ray 2.1.0 on"):
        make_engine(tmp_path, engine="ray", ray_address=nodes.address)

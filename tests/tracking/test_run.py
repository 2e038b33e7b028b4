"""The W&B run of one trial, with the real client: read back with W&B's own tools.

A training must never wait for W&B, never fail because of it, and never lose what it logged.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groupnorm_bench.norms import NORMS
from groupnorm_bench.runs import find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.login import START_SECONDS, resolve_mode
from groupnorm_bench.tracking.run import Tracker, test_media
from groupnorm_bench.tracking.wire import to_wandb
from tests.support.command_line import gnbench
from tests.support.wandb_server import API_KEY, WandbServer

test_media.__test__ = False  # a function of the product, not a test
BUSY_SECONDS = 20.0
"""What the import of wandb and its start may take on a busy machine; left alone, the client waits
for an unreachable server for 101 s."""
CONFIG = TrainConfig(norm="batch", dataset="mnist-5k")
OTHER_KEY = "fedcba9876543210fedcba9876543210fedcba98"

TRACK = """
import json, sys, time
from pathlib import Path
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.run import track
config = TrainConfig(norm="batch", dataset="mnist-5k")
folder, options, previous, rows, end = Path(sys.argv[1]), *json.loads(sys.argv[2])
said, began = [], time.monotonic()
folder.mkdir(exist_ok=True)
with track(config, folder, TrackingOptions(**options), said.append, previous) as tracker:
    delay = time.monotonic() - began
    for epoch in rows:
        tracker.log({"epoch": epoch, "val/accuracy": epoch / 10})
    tracker.summarize({"status": end})
    if end == "failed":
        raise RuntimeError("on purpose")
print(json.dumps({"delay": delay, "said": said, "info": tracker.info}))
"""


TEST_SET = """
import sys
from pathlib import Path
import numpy as np
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.run import track
folder = Path(sys.argv[1])
folder.mkdir()
images, labels = np.zeros((30, 1, 4, 4), np.uint8), np.arange(30) % 3
options = TrackingOptions(mode="offline")
with track(TrainConfig(dataset="mnist-5k"), folder, options, print) as tracker:
    tracker.log_test(images, labels, np.eye(3, dtype=np.float32)[(labels + 1) % 3])
    assert not tracker.failed
    assert "pandas" not in sys.modules
    from wandb import Table, util
    assert util.pd_available
    import pandas
    tracker.run.log({"theirs": pandas.DataFrame({"a": [1]})})  # as W&B takes it
    tracker.log_test(images, labels, np.eye(3, dtype=np.float32)[labels])
"""


def track(
    folder: Path,
    *,
    previous: dict[str, Any] | None = None,
    rows: tuple[int, ...] = (1, 2),
    end: str = "finished",
    env: dict[str, str] | None = None,
    **options: Any,
) -> Any:
    """Track two epochs in a process of their own; return its delay, lines and info."""
    done = subprocess.run(
        [sys.executable, "-c", TRACK, str(folder), json.dumps([options, previous, rows, end])],
        env=os.environ | {"WANDB_X_DISABLE_STATS": "true"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if end == "failed":
        assert "RuntimeError: on purpose" in done.stderr
        return None
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing of wandb's own"
    return json.loads(done.stdout)


def inspect(folder: Path, *options: str) -> str:
    """Read the only offline run of a run folder back with W&B's own tool."""
    (run,) = folder.glob("wandb/offline-run-*")
    code = "from wandb.cli.cli import cli; cli()"
    command = [sys.executable, "-c", code, "leet", "inspect", "--json", *options, str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def holds(folder: Path, secret: str) -> list[Path]:
    """Return the files under `folder` in which `secret` is written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_a_test_set_is_logged_without_loading_pandas(tmp_path):
    command = [sys.executable, "-c", TEST_SET, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    tables = list((tmp_path / "run").rglob("media/table/**/*.json"))
    assert len(tables) == 3  # two confusion matrices, and theirs


def test_an_offline_run_is_whole_for_wandbs_own_tool(tmp_path):
    options = ["--norm", "batch", "--epochs", "1", "--train-limit", "64", "--wandb", "offline"]
    done = gnbench("train", *options, "--project", "my-project", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wandb:" not in done.stdout + done.stderr
    ((found,), _) = find_runs([tmp_path / "runs"])
    result, folder = found.result, found.folder.path
    assert f"wandb leet {folder.relative_to(tmp_path)}/wandb" in done.stdout
    assert "gnbench sync runs" in done.stdout

    seen = json.loads(inspect(folder, "--summary"))
    assert (seen["state"], seen["exit_code"]) == ("finished", 0)
    assert (seen["name"], seen["project"]) == (result.config.name, "my-project")
    assert seen["run_id"] == result.wandb["id"]
    assert result.wandb["mode"] == "offline"
    assert result.wandb["url"] is None
    expected = to_wandb(result.config, "train")
    assert seen["config"] == expected
    assert seen["config"]["num_groups"] == 0, "a missing value drops a line from a parallel plot"
    assert not [value for value in expected.values() if value is None or isinstance(value, dict)]
    assert not [key for key in expected if "." in key or "/" in key]
    for key in ("test/accuracy", "val/accuracy", "val/best_epoch", "train_seconds", "status"):
        assert seen["summary"][key] == pytest.approx(result.summary[key]), key

    records = [json.loads(line) for line in inspect(folder).splitlines()]
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["run_group"], run["job_type"]) == (result.config.cell, "train")
    assert run["tags"] == ["batch"]
    text = json.dumps([record for record in records if record["type"] == "history"])
    assert text.count('"table-file"') == 1, "the confusion matrix, once"
    assert text.count('"images/separated"') == 1, "the worst images, once"
    assert len(list(folder.glob("wandb/offline-run-*/files/media/images/test/*.png"))) == 25


def test_without_a_login_auto_is_offline_with_one_line(wandb_env):
    seen = track(wandb_env / "run", mode="auto")
    assert seen["info"]["mode"] == "offline"
    assert len(seen["said"]) == 1
    assert seen["said"][0].startswith("W&B: no login found, keeping the run offline")


def test_asked_online_without_a_login_it_is_told_why_not(wandb_env):
    seen = track(wandb_env / "run", mode="online")
    assert seen["info"]["mode"] == "offline"
    assert seen["said"] == [
        "W&B: not online (no login found), keeping the run offline (later: gnbench sync)"
    ]


def test_disabled_leaves_no_file_and_says_nothing(wandb_env):
    seen = track(wandb_env / "run", mode="disabled")
    assert seen["info"] == {}
    assert seen["said"] == []
    assert list((wandb_env / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "mode"), [("dryrun", "offline"), ("offline", "offline"), ("disabled", "disabled")]
)
def test_auto_obeys_wandb_mode_and_an_explicit_mode_does_not(monkeypatch, asked, mode):
    monkeypatch.setenv("WANDB_MODE", asked)
    said: list[str] = []
    assert resolve_mode("auto", said.append) == mode
    assert resolve_mode("disabled", said.append) == "disabled"
    assert resolve_mode("offline", said.append) == "offline"
    assert said == []


def test_a_crash_reads_as_a_crash(wandb_env):
    track(wandb_env / "run", mode="offline", end="failed")
    seen = json.loads(inspect(wandb_env / "run", "--summary"))
    assert (seen["state"], seen["exit_code"]) == ("failed", 1)
    assert seen["summary"]["val/accuracy"] == 0.2, "what was logged before it is there"


@pytest.mark.slow
def test_a_run_that_goes_on_offline_is_one_whole_record(wandb_env):
    first = track(wandb_env / "run", mode="offline", rows=(1, 2))
    again = track(wandb_env / "run", mode="offline", rows=(1, 2, 3), previous=first["info"])
    assert again["info"]["id"] == first["info"]["id"]
    records = [json.loads(line) for line in inspect(wandb_env / "run").splitlines()]
    assert Counter(record["type"] for record in records)["history"] == 3


@pytest.mark.slow
def test_an_unreachable_server_costs_seconds_and_one_line(wandb_env):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        env = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "WANDB_API_KEY": OTHER_KEY,
        }
        seen = track(wandb_env / "run", mode="online", env=env)
    assert seen["info"]["mode"] == "offline"
    assert len(seen["said"]) == 1
    assert seen["said"][0].startswith("W&B: not online (")
    assert OTHER_KEY not in seen["said"][0]
    assert seen["delay"] < START_SECONDS + BUSY_SECONDS
    assert holds(wandb_env / "run", OTHER_KEY) == []
    assert json.loads(inspect(wandb_env / "run", "--summary"))["state"] == "finished"


@pytest.mark.slow
def test_a_server_that_never_answers_costs_seconds_and_one_line(wandb_env):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        env = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "WANDB_API_KEY": OTHER_KEY,
        }
        seen = track(wandb_env / "run", mode="online", env=env)
    assert len(seen["said"]) == 1
    assert "keeping the run offline" in seen["said"][0]
    assert seen["delay"] < START_SECONDS + BUSY_SECONDS


def test_a_rejected_key_is_one_line_and_the_run_is_kept(wandb_server):
    folder = Path(os.environ["HOME"]) / "run"
    seen = track(folder, mode="auto", env={"WANDB_API_KEY": OTHER_KEY})
    assert seen["info"]["mode"] == "offline"
    assert len(seen["said"]) == 1
    assert "keeping the run offline" in seen["said"][0]
    assert seen["delay"] < START_SECONDS + BUSY_SECONDS
    assert holds(folder, OTHER_KEY) == []
    assert wandb_server.runs() == []


def test_an_online_run_goes_on_where_it_was(wandb_server: WandbServer):
    folder = Path(os.environ["HOME"]) / "run"
    first = track(folder, mode="auto", rows=(1, 2), suite="norms", tags=("night",))
    assert first["said"] == []
    assert first["info"]["mode"] == "online"
    assert first["info"]["url"].startswith(wandb_server.url)
    track(folder, mode="auto", rows=(1, 2, 3), previous=first["info"], suite="norms")
    (run,) = wandb_server.runs()
    assert run["name"] == first["info"]["id"]
    assert [row["epoch"] for row in run["history"]] == [1, 2, 3], "no row twice"
    assert run["config"] == to_wandb(CONFIG, "norms")
    assert run["summary"]["status"] == "finished"
    assert (run["state"], run["exitcode"]) == ("finished", 0)
    assert holds(folder, API_KEY) == []


@pytest.mark.slow
def test_gnbench_train_never_shows_the_key(wandb_env, monkeypatch):
    monkeypatch.delenv("WANDB_DIR")
    env = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": OTHER_KEY}
    tiny = ["--max-steps", "2", "--train-limit", "64", "--dataset", "mnist-5k"]
    done = gnbench("train", *tiny, "--wandb", "online", "--json", cwd=wandb_env, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    assert sum("W&B" in line for line in done.stderr.splitlines()) == 1
    assert OTHER_KEY not in done.stdout + done.stderr
    assert holds(wandb_env, OTHER_KEY) == []


class Refusing:
    """A client that takes nothing: the only stand-in here, for errors that cannot be caused."""

    starting_step = 0

    def log(self, *args: object, **rest: object) -> None:
        raise OSError("broken\npipe")


def test_a_client_that_breaks_is_one_line_and_then_left_alone():
    said: list[str] = []
    tracker = Tracker(said.append, Refusing())  # type: ignore[arg-type]
    tracker.log({"epoch": 1})
    tracker.log({"epoch": 2})
    tracker.summarize({"status": "finished"})
    assert said == ["W&B stopped taking this run (broken pipe); gnbench sync completes it"]


@pytest.mark.parametrize("norm", [*NORMS, "mine:make"])
def test_the_config_is_flat_without_missing_values_and_zero_where_inert(norm):
    config = to_wandb(TrainConfig(norm=norm, group_size=None, max_steps=7), "train")
    assert all(type(value) in (int, float, str, bool) for value in config.values())
    assert (config["epochs"], config["max_steps"]) == (0, 7)
    reads = norm == "mine:make" or NORMS[norm].reads_groups
    assert (config["num_groups"], config["group_size"]) == (8 if reads else 0, 0)
    by_size = to_wandb(TrainConfig(norm=norm, group_size=4), "train")
    assert (by_size["num_groups"], by_size["group_size"]) == (0, 4 if reads else 0)


def test_the_media_are_the_most_confidently_wrong(wandb_env, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    labels = np.arange(40) % 10
    logits = np.zeros((40, 10), np.float32)
    logits[np.arange(40), labels] = 5.0  # right
    for index, sureness in ((3, 6.0), (7, 9.0), (11, 7.0)):
        logits[index, labels[index]] = 0.0
        logits[index, (labels[index] + 1) % 10] = sureness
    images = np.zeros((40, 1, 28, 28), np.uint8)
    media = test_media(images, labels, logits, ())
    captions = [image._caption for image in media["test/worst_images"]]
    assert [caption.split(":")[0] for caption in captions] == ["#7", "#11", "#3"]
    assert captions[0].startswith("#7: 7 read as 8 (100% sure)")
    letters = tuple("abcdefghij")
    named = test_media(images, labels, logits, letters)
    assert named["test/worst_images"][0]._caption.startswith("#7: h read as i (100% sure)")
    rows = named["test/confusion_matrix"].table.data
    assert {row[0] for row in rows} == {row[1] for row in rows} == set(letters)
    many = np.concatenate([logits, np.zeros((40, 91), np.float32)], axis=1)
    assert set(test_media(images, labels, many, ())) == {"test/worst_images"}
    everything_wrong = np.roll(logits, 1, axis=1)
    assert len(test_media(images, labels, everything_wrong, ())["test/worst_images"]) == 25

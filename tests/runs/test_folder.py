"""The run folder: written whole, read back, held by one process, never deleted by surprise."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import RunFolder, RunResult, find_runs, finite, write_atomic
from groupnorm_bench.settings.config import TrainConfig

CONFIG = TrainConfig(dataset="mnist-5k", seed=3)
RESULT = RunResult(
    config=CONFIG,
    status="finished",
    history=[{"epoch": 1, "val/accuracy": 0.5}],
    summary={"status": "finished", "test/accuracy": 0.75},
    environment={"torch": "2.15.0"},
    wandb={"id": "abc"},
)


def folder_with(path: Path, text: str) -> RunFolder:
    path.mkdir(parents=True)
    (path / "result.json").write_text(text)
    return RunFolder(path)


def test_a_result_is_read_back_as_it_was(tmp_path: Path):
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        assert folder.read() is None
        folder.write(RESULT)
    assert folder.read() == RESULT
    document = json.loads(folder.result_path.read_text())
    assert list(document) == [
        "config", "arm", "cell", "seed", "status", "history", "summary", "environment", "wandb",
    ]  # fmt: skip
    assert (document["arm"], document["cell"], document["seed"]) == ("group-g8", CONFIG.cell, 3)
    assert (RESULT.arm, RESULT.cell, RESULT.seed) == ("group-g8", CONFIG.cell, 3)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path):
    nan, inf = float("nan"), float("inf")
    assert finite({"a": [nan, (1.0, -inf)], "b": "nan"}) == {"a": [None, [1.0, None]], "b": "nan"}
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        folder.write(RESULT.replace(status="diverged", history=[{"train/loss": nan}]))
    again = folder.read()
    assert again is not None
    assert again.history == [{"train/loss": None}]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_hits_are_read_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, hits: list[bool]):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_hits(np.array(hits))
    assert folder.read_hits(len(hits)).tolist() == hits
    with pytest.raises(RunFolderError, match="does not hold"):
        folder.read_hits(len(hits) + 8)


@pytest.mark.parametrize("content", [b"", b"not numpy", None])
def test_hits_that_cannot_be_read_are_told(tmp_path: Path, content: bytes | None):
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.hits_path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"test_hits.npy is not readable"):
        folder.read_hits(8)


def test_pickled_hits_are_not_loaded(tmp_path: Path):
    folder = RunFolder(tmp_path)
    np.save(folder.hits_path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RunFolderError, match="not readable"):
        folder.read_hits(8)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "result.json"
    write_atomic(path, b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from groupnorm_bench.runs import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"write_atomic(Path({str(path)!r}), b'x' * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RunFolderError" in done.stderr
    assert "File too large; free space" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100


def test_a_file_is_readable_by_others(tmp_path: Path):
    write_atomic(tmp_path / "x", b"x")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


HOLD = """
import sys
from pathlib import Path
from groupnorm_bench.runs import RunFolder
with RunFolder(Path(sys.argv[1])).claim():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_and_let_go_when_it_is_killed(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_claimed()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert folder.is_claimed()
        with pytest.raises(RunFolderError, match="in use by another process"), folder.claim():
            pass
        assert folder.is_claimed(), "to be refused, or to look, takes nothing from the holder"
        os.kill(holder.pid, signal.SIGKILL)
    assert not folder.is_claimed()
    with folder.claim():
        assert folder.is_claimed()
    assert not folder.is_claimed()


def test_set_aside_keeps_every_old_result(tmp_path: Path):
    folder = folder_with(tmp_path / "run", "first")
    folder.checkpoint_path.touch()
    assert folder.set_aside() == folder.path / "result.1.json"
    assert not folder.checkpoint_path.exists()
    assert folder.set_aside() is None
    folder.result_path.write_text("second")
    assert folder.set_aside() == folder.path / "result.2.json"
    assert [(folder.path / f"result.{n}.json").read_text() for n in (1, 2)] == ["first", "second"]


def test_an_empty_folder_is_removed_with_an_empty_parent_and_no_other(tmp_path: Path):
    one, other = (RunFolder(tmp_path / "runs" / name) for name in "ab")
    for folder in (one, other):
        with folder.claim():
            pass
    (other.path / "result.json").touch()
    other.remove_empty()
    one.remove_empty()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "runs", "runs/b", "runs/b/lock", "runs/b/result.json",
    ]  # fmt: skip
    other.result_path.unlink()
    other.remove_empty()
    assert list(tmp_path.iterdir()) == []


def changed(**changes: object) -> str:
    return json.dumps(json.loads(RESULT.to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not readable"),
        (RESULT.to_json()[:50], "not readable"),
        ("[]", "is not a gnbench result"),
        ("{}", "is not a gnbench result"),
        ("[" * 100_000, "not readable"),
        (changed(status="done"), "unknown status 'done'"),
        (changed(cell="batch-b64-00000000"), "says cell 'batch-b64-00000000' but"),
        (changed(config={"norm": "nrom"}), "config of another version"),
        (changed(config=3), "not readable"),
        (changed(history={}), "is not a gnbench result"),
        (changed(history=[1]), "is not a gnbench result"),
        (changed(summary=[]), "is not a gnbench result"),
    ],
)
def test_a_foreign_or_half_written_result_is_told_and_left(tmp_path: Path, text: str, says: str):
    folder = folder_with(tmp_path / "runs" / "a", text)
    with pytest.raises(RunFolderError, match=says):
        folder.read()
    runs, problems = find_runs([tmp_path / "runs"])
    assert runs == []
    assert len(problems) == 1
    assert says in problems[0]
    assert problems[0].endswith("; skipped")
    assert folder.result_path.read_text() == text


def test_a_result_that_is_not_text_is_told(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.result_path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match="not readable"):
        folder.read()


def test_find_runs_takes_run_folders_and_folders_of_them(tmp_path: Path):
    for seed in (1, 0):
        folder = RunFolder.of(tmp_path / "runs", CONFIG.replace(seed=seed))
        with folder.claim():
            folder.write(RESULT.replace(config=CONFIG.replace(seed=seed)))
    started = RunFolder(tmp_path / "runs" / "started")
    with started.claim():
        pass
    (tmp_path / "runs" / "holiday").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    runs, problems = find_runs([tmp_path / "runs"])
    assert [run.result.seed for run in runs] == [0, 1]
    assert problems == [f"{tmp_path / 'runs' / 'holiday'} is not a run folder; skipped"]
    alone, _ = find_runs([runs[1].folder.path])
    assert [run.result.seed for run in alone] == [1]
    with pytest.raises(RunFolderError, match="train one: gnbench train"):
        find_runs([tmp_path / "nowhere"])

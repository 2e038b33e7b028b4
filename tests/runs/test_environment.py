"""Where a run happened: the commit of the checkout is read without git."""

from __future__ import annotations

from pathlib import Path

import pytest

from groupnorm_bench.runs import describe_environment, device_name, source_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_folder(path: Path, head: str, **files: str) -> Path:
    path.mkdir(parents=True)
    (path / "HEAD").write_text(head)
    for name, content in files.items():
        file = path / name.replace("__", "/").replace("_", "-")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return path


@pytest.mark.parametrize(
    ("head", "files"),
    [
        (f"{COMMIT}\n", {}),
        ("ref: refs/heads/main\n", {"refs__heads__main": f"{COMMIT}\n"}),
        ("ref: refs/heads/main\n", {"packed_refs": f"# pack-refs\n{COMMIT} refs/heads/main\n"}),
    ],
    ids=["detached", "branch", "packed"],
)
def test_the_commit_of_a_checkout_is_read(tmp_path, head, files):
    git_folder(tmp_path / ".git", head, **files)
    assert source_commit(tmp_path) == COMMIT


def test_the_commit_of_a_linked_worktree_is_read(tmp_path):
    common = git_folder(tmp_path / "main" / ".git", "ref: refs/heads/main\n")
    linked = git_folder(common / "worktrees" / "side", "ref: refs/heads/side\n")
    (linked / "commondir").write_text("../..\n")
    (common / "refs" / "heads").mkdir(parents=True)
    (common / "refs" / "heads" / "side").write_text(COMMIT)
    (tmp_path / "side").mkdir()
    (tmp_path / "side" / ".git").write_text(f"gitdir: {linked}\n")
    assert source_commit(tmp_path / "side") == COMMIT


@pytest.mark.parametrize("head", [None, "ref: refs/heads/gone\n"])
def test_what_is_no_checkout_has_no_commit(tmp_path, head):
    if head is not None:
        git_folder(tmp_path / ".git", head, packed_refs=f"{COMMIT} refs/heads/other\n")
    assert source_commit(tmp_path) is None


def test_an_environment_tells_what_is_needed_to_judge_a_run():
    seen = describe_environment("cpu")
    assert {"version", "commit", "python", "torch", "host", "device", "threads"} <= set(seen)
    assert seen["device_name"] == device_name("cpu") != ""
    assert seen["threads"] >= 1


@pytest.mark.parametrize(
    ("program", "told"),
    [("/home/ann/venv/bin/gnbench", "gnbench"), ("/x/groupnorm_bench/__main__.py", "gnbench")],
)
def test_a_command_is_told_without_where_the_program_lies(monkeypatch, program, told):
    monkeypatch.setattr("sys.argv", [program, "train", "--norm", "none"])
    assert describe_environment("cpu")["command"] == [told, "train", "--norm", "none"]


def test_a_checkout_that_moves_on_does_not_change_what_is_loaded(tmp_path):
    git_folder(tmp_path / ".git", COMMIT)
    assert source_commit(tmp_path) == COMMIT
    (tmp_path / ".git" / "HEAD").write_text("0" * 40)
    assert source_commit(tmp_path) == COMMIT

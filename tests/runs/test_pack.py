"""A pack: what goes in comes out byte for byte, and what was done to the file is told."""

from __future__ import annotations

import os
import shutil
import sqlite3
import zlib
from pathlib import Path

import pytest

from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import RunFolder, find_runs, list_folders, pack_runs, unpack_runs
from groupnorm_bench.runs.folder import MAX_RESULT_BYTES
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.status import read_status
from tests.support.command_line import gnbench
from tests.support.run_folders import make_run, make_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_runs(
        tmp_path / "runs",
        arms=[{"norm": norm} for norm in ("batch", "layer", "none")],
        batch_sizes=(32,),
        seeds=3,
    )
    return tmp_path / "runs"


@pytest.fixture
def pack(runs: Path) -> Path:
    path = runs.with_name("all.gnb")
    assert pack_runs(list_folders(runs), path).added == 9
    return path


def contents(runs: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(runs)): path.read_bytes()
        for path in sorted(runs.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def altered(pack: Path, *statements: str) -> Path:
    with sqlite3.connect(pack) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return pack


def test_what_is_packed_comes_out_byte_for_byte(runs, pack, tmp_path):
    assert unpack_runs(pack, tmp_path / "back") == (9, 0)
    assert contents(tmp_path / "back") == contents(runs)
    assert unpack_runs(pack, tmp_path / "back") == (0, 9)


def test_compare_and_status_read_it_like_the_folder(runs, pack):
    folder, packed = load_runs([runs]), load_runs([pack])
    assert [row.result for row in packed.rows] == [row.result for row in folder.rows]
    assert all((a.hits() == b.hits()).all() for a, b in zip(packed.rows, folder.rows, strict=True))
    assert read_status([pack]).counts == read_status([runs]).counts == {"finished": 9}


def test_packing_again_and_merging_packs_lose_and_double_nothing(runs, pack, tmp_path):
    before = pack.read_bytes()
    again = pack_runs(list_folders(runs), pack)
    assert (again.added, again.known) == (0, 9)
    other = tmp_path / "other"
    make_run(other, TrainConfig(norm="instance", dataset="mnist-5k", seed=1))
    assert pack_runs([*list_folders(other), *list_folders(runs)], tmp_path / "b.gnb").added == 10
    merged = pack_runs(list_folders(tmp_path / "b.gnb"), pack)
    assert (merged.added, merged.known) == (1, 9)
    assert len(find_runs([pack])[0]) == 10
    assert pack.read_bytes() != before


def test_another_result_of_the_same_run_is_refused_and_the_pack_stays(runs, pack, tmp_path):
    before = pack.read_bytes()
    folder = list_folders(runs)[0]
    text = folder.result_path.read_text().replace('"started": "', '"started": "later ')
    folder.result_path.write_text(text)
    with pytest.raises(RunFolderError, match=r"holds another result than .*all\.gnb"):
        pack_runs(list_folders(runs), pack)
    assert pack.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.gnb", "runs"]
    with pytest.raises(RunFolderError, match="holds another result than"):
        unpack_runs(pack, runs)


def test_only_settled_runs_are_packed(tmp_path):
    make_run(tmp_path / "runs", TrainConfig(dataset="mnist-5k"), status="failed")
    make_run(tmp_path / "runs", TrainConfig(dataset="mnist-5k", seed=1), status="diverged")
    packed = pack_runs(list_folders(tmp_path / "runs"), tmp_path / "all.gnb")
    assert packed.added == 1
    assert len(packed.problems) == 1
    assert "is failed" in packed.problems[0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_pack_is_refused(pack, share):
    content = pack.read_bytes()
    pack.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RunFolderError, match=r"all\.gnb (is damaged|is no pack)"):
        list_folders(pack)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM runs WHERE name LIKE 'batch%'", "not as it was sealed"),
        ("UPDATE runs SET result_sha256 = x'00'", "not as it was sealed"),
        ("UPDATE runs SET name = '../../' || name", "not as it was sealed"),
        ("DELETE FROM seal", "not as it was sealed"),
        ("CREATE VIEW more AS SELECT 1", "no pack of gnbench's"),
        ("PRAGMA user_version = 7", "of format 7, of a later gnbench"),
        ("PRAGMA application_id = 1", "no pack of gnbench's"),
    ],
)
def test_what_was_done_to_a_pack_is_told(pack, statement, message):
    with pytest.raises(RunFolderError, match=message):
        list_folders(altered(pack, statement))


def test_an_altered_result_is_skipped_by_compare_and_stops_unpacking(pack, tmp_path):
    other = zlib.compress(b"{}").hex()
    altered(pack, f"UPDATE runs SET result = x'{other}' WHERE name LIKE 'batch%s0%'")
    runs, problems = find_runs([pack])
    assert len(runs) == 8
    assert "is not as it was packed" in problems[0]
    with pytest.raises(RunFolderError, match="is not as it was packed"):
        unpack_runs(pack, tmp_path / "back")


def test_a_result_that_would_swell_is_not_inflated(pack):
    bomb = zlib.compress(bytes(MAX_RESULT_BYTES + 2)).hex()
    altered(pack, f"UPDATE runs SET result = x'{bomb}'")
    assert "longer than" in find_runs([pack])[1][0]


def test_a_pack_is_a_regular_file_and_is_called_one(runs, tmp_path):
    os.mkfifo(tmp_path / "pipe.gnb")
    with pytest.raises(RunFolderError, match="is not a regular file"):
        list_folders(tmp_path / "pipe.gnb")
    with pytest.raises(RunFolderError, match="No such file"):
        list_folders(tmp_path / "none.gnb")
    with pytest.raises(RunFolderError, match=r"a pack is called NAME\.gnb"):
        pack_runs(list_folders(runs), tmp_path / "all.zip")
    (tmp_path / "text.gnb").write_text("hello\n")
    with pytest.raises(RunFolderError, match="damaged or no pack"):
        pack_runs(list_folders(runs), tmp_path / "text.gnb")
    assert (tmp_path / "text.gnb").read_text() == "hello\n"


def test_on_the_command_line(runs, tmp_path):
    done = gnbench("pack", "runs", "-o", "all.gnb", cwd=tmp_path)
    assert done.stdout == "all.gnb  9 runs added, 0 there already\n"
    compared = [
        gnbench("compare", place, "--json", cwd=tmp_path).stdout for place in ("runs", "all.gnb")
    ]
    assert compared[0] == compared[1] != ""
    assert gnbench("report", "all.gnb", cwd=tmp_path).returncode == 0
    shutil.rmtree(runs)
    done = gnbench("unpack", "all.gnb", "--json", cwd=tmp_path)
    assert done.stdout.split() == [
        "{",
        '"runs":',
        '"runs",',
        '"written":',
        "9,",
        '"known":',
        "0",
        "}",
    ]
    assert RunFolder(next(runs.iterdir())).read() is not None
    refused = gnbench("sync", "all.gnb", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "gnbench unpack all.gnb" in refused.stderr


def test_a_pack_that_is_a_link_stays_one(tmp_path):
    target, link = tmp_path / "target.gnb", tmp_path / "link.gnb"
    pack_runs([], target)
    link.symlink_to(target)
    pack_runs([], link)
    assert link.is_symlink()
    assert list_folders(target) == []


def test_a_pack_below_a_file_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        pack_runs([], tmp_path / "file" / "x.gnb")

"""A pack: what goes in comes out byte for byte, and what was done to the file is told."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import zlib
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from groupnorm_bench.compare.ask import compare
from groupnorm_bench.compare.foreign import Columns
from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.errors import CompareError, RunFolderError
from groupnorm_bench.report import content
from groupnorm_bench.runs import RunFolder, find_runs, list_folders, pack_runs, unpack_runs
from groupnorm_bench.runs import facts as facts_module
from groupnorm_bench.runs.facts import encoded, facts_of
from groupnorm_bench.runs.folder import MAX_RESULT_BYTES
from groupnorm_bench.runs.pack import _INDEX, _TABLES, Packed, _content, _seal
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import SETTINGS
from groupnorm_bench.sweep.status import read_status
from groupnorm_bench.tracking.sweeps import SweepRecord, find_records
from tests.support.command_line import gnbench
from tests.support.run_folders import make_run, make_runs

OURS = Path(__file__).parents[2]


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


def test_a_row_of_a_pack_says_what_the_row_of_its_folder_does(runs):
    """The facts that verdicts rest on, read by column, are those of the documents."""
    odd = {"dataset": "mnist-5k", "batch_size": 32}
    make_run(runs, TrainConfig(**odd, seed=11), status="diverged")
    environment = {"threads": 2, "commit": None, "version": None, "started": None}
    make_run(runs, TrainConfig(**odd, seed=12, group_size=4), environment=environment)
    pack_runs(list_folders(runs), runs.with_name("odd.gnb"))
    packed, folders = load_runs([runs.with_name("odd.gnb")]).rows, load_runs([runs]).rows
    assert len(packed) == len(folders) == 11
    names = (
        "arm",
        "order",
        "cell",
        "name",
        "norm",
        "seed",
        "status",
        "code",
        "threads",
        "device",
        "timed_on",
    )
    names += ("setting", "setting_key", "seconds_per_epoch", "config", "history", "result")
    for one, other in zip(packed, folders, strict=True):
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
        assert one.environment == {name: other.environment[name] for name in one.environment}
        assert {*other.summary_keys} <= {*one.summary_keys}
        for key in one.summary_keys:
            assert (one.metric(key), one.printed(key)) == (other.metric(key), other.printed(key))
        for key in (*SETTINGS, *one.summary_keys, "torch", "threads", "source", "never"):
            value, expected = one.value(key), other.value(key)
            assert key == "source" or (value, type(value)) == (expected, type(expected))
        assert [one.num_images(part) for part in ("test", "val")] == [
            other.num_images(part) for part in ("test", "val")
        ]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"where": "batch_size<=32 and val/best_epoch>=1 and threads==1 and seed!=2"},
        {"where": "test/accuracy>0.9 and device==cpu and status==finished"},
        {"choose": ["batch_size"], "where": "batch_size<32"},
        {"choose": ["batch_size"], "where": "batch_size<32", "choose_seeds": [20, 21]},
        {"columns": Columns(arm=("norm", "batch_size"))},
        {"metric": "test/loss", "all_pairs": True, "rule": "planned"},
    ],
)
def test_verdicts_of_a_pack_are_those_of_its_folder(runs, how):
    """To the last digit, new images included."""
    arms = [{"norm": "batch"}, {"norm": "group"}]
    make_runs(runs, arms=arms, batch_sizes=(8, 16), seeds=range(20, 40))
    pack = runs.with_name("more.gnb")
    pack_runs(list_folders(runs), pack)
    assert compare(pack, **how).to_dict() == compare(runs, **how).to_dict()


def test_status_of_a_pack_tells_of_each_run_what_it_does_of_its_folder(runs):
    make_run(runs, TrainConfig(dataset="mnist-5k", batch_size=32, seed=11), status="diverged")
    pack_runs(list_folders(runs), runs.with_name("odd.gnb"))
    packed, folders = read_status([runs.with_name("odd.gnb")]), read_status([runs])
    assert packed.counts == folders.counts == {"finished": 9, "diverged": 1}
    assert [run.to_data() for run in packed.runs] == [run.to_data() for run in folders.runs]


def test_a_run_in_a_folder_and_in_packs_counts_once(runs, pack, tmp_path):
    other = tmp_path / "other.gnb"
    pack_runs(list_folders(runs)[:4], other)
    make_run(runs, TrainConfig(dataset="mnist-5k", seed=20), status="interrupted")
    status = read_status([pack, runs, other, runs])
    assert status.counts == {"finished": 9, "interrupted": 1}
    assert status.problems == [
        f"9 runs of {pack} had been counted in the other places already",
        f"4 runs of {other} had been counted in the other places already",
    ]
    assert read_status([other, pack]).counts == {"finished": 9}
    assert read_status([pack]).problems == []


def test_a_pack_in_a_folder_is_told_of_where_it_is_not_named(runs, pack, tmp_path):
    line = f"{pack} is a pack: name it to have its runs"
    for name in ("other", "things"):
        (tmp_path / name).mkdir()
    with pytest.raises(CompareError, match=re.escape(line)):
        load_runs([tmp_path])  # "runs" in it is a folder of runs, and no run
    assert line in read_status([tmp_path]).problems
    inside = pack.rename(runs / "all.gnb")
    line = f"{inside} is a pack: name it to have its runs"
    assert load_runs([runs]).problems == (line,)
    (runs / "loop.gnb").symlink_to("loop.gnb")
    (runs / "long.gnb").symlink_to("n" * 300)
    assert len(load_runs([runs]).problems) == 3
    for name in ("loop.gnb", "long.gnb"):
        (runs / name).unlink()
    (runs.parent / "packs").mkdir()
    alone = shutil.copy(inside, runs.parent / "packs")
    assert load_runs([runs.parent / "packs", alone]).problems == ()
    assert read_status([runs]).problems == [line]
    told = read_status([inside, runs]).problems
    assert told == [f"9 runs of {inside} had been counted in the other places already"]


def test_made_results_are_packed_and_read(tmp_path):
    """As a million of them are: `benchmarks/million.py`."""
    script, path = OURS / "benchmarks" / "million.py", tmp_path / "made.gnb"
    said = [
        subprocess.run(
            [sys.executable, script, *map(str, args)], capture_output=True, text=True, check=True
        ).stdout
        for args in (
            ["make", path, "--cells", 12, "--seeds", 3, "--epochs", 1],
            ["make", path, "--cells", 15, "--seeds", 3, "--epochs", 1, "--from", 12],
            ["read", path],
        )
    ]
    assert "36 runs of 12 cells" in said[0]
    assert "9 runs of 3 cells" in said[1]
    assert "| 45 runs |" in said[2]


def test_a_report_of_too_many_runs_shows_the_lowest_seeds_one_by_one(runs, monkeypatch):
    """Whole, though they lie in a pack; its means are of all."""
    pack = runs.with_name("all.gnb")
    pack_runs(list_folders(runs), pack)
    monkeypatch.setattr(content, "MOST_SHOWN", 8)
    monkeypatch.setattr(content, "SHOWN_OF_MORE", 7)
    table = load_runs([pack])
    found = content.build(
        table, compare(table), sources=[], data_dir=Path("nowhere"), command="gnbench report"
    )
    assert [row.seed for row in found.shown.rows] == [0, 1] * 3
    assert {type(row) for row in found.shown.rows} == {RunRow}
    assert len(found.table.rows) == 9
    assert "6 runs of 9, those of the lowest seeds" in found.comparison.notes[-1]
    assert {cell.n for cell in found.comparison.cells} == {3}


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
    begun = RunFolder.of(tmp_path / "runs", TrainConfig(dataset="mnist-5k", seed=2))
    with begun.claim():  # killed, or at work, before its first epoch
        packed = pack_runs(list_folders(tmp_path / "runs"), tmp_path / "all.gnb")
    assert packed.added == 1
    assert [line.partition(" ")[2] for line in sorted(packed.problems)] == [
        "is failed, no result yet; left out",
        "has no result yet; left out",
    ]


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
        ("UPDATE runs SET name = '../../' || name", "is damaged or no pack: it holds '../../"),
        ("UPDATE runs SET name = CAST(name AS BLOB)", "is damaged or no pack: it holds b'batch"),
        ("UPDATE runs SET hits_sha256 = 'x'", "is damaged or no pack: it holds 'x'"),
        ("UPDATE runs SET place = 'x' || place", "is damaged or no pack: it holds 'x0'"),
        ("UPDATE facts SET content = 'x'", "is damaged or no pack: it holds 'x'"),
        ("UPDATE runs SET place = 8 - place", "not as it was sealed"),
        ("DELETE FROM seal", "not as it was sealed"),
        ("DELETE FROM facts", "not as it was sealed"),
        ("INSERT INTO sweeps VALUES ('a.sweep.json', x'7b7d')", "not as it was sealed"),
        ("CREATE VIEW more AS SELECT 1", "no pack of gnbench's"),
        ("PRAGMA user_version = 1", "no pack of gnbench's"),
        ("PRAGMA user_version = 7", "of format 7, of a later gnbench"),
        ("PRAGMA application_id = 1", "no pack of gnbench's"),
    ],
)
def test_what_was_done_to_a_pack_is_told(pack, statement, message):
    with pytest.raises(RunFolderError, match=message):
        list_folders(altered(pack, statement))


def test_an_altered_result_stops_compare_and_unpacking(pack, tmp_path):
    other = zlib.compress(b"{}").hex()
    one = "(SELECT place FROM runs WHERE name LIKE 'batch%s0%')"
    altered(pack, f"UPDATE contents SET result = x'{other}' WHERE place = {one}")
    runs, problems = find_runs([pack])
    assert len(runs) == 8
    assert "is not as it was packed" in problems[0]
    for read in (lambda: load_runs([pack]), lambda: unpack_runs(pack, tmp_path / "back")):
        with pytest.raises(RunFolderError, match="is not as it was packed"):
            read()


@pytest.mark.parametrize(
    "change",
    [
        {"summary": {"test/accuracy": 0.999}},
        {"summary": {"new/metric": 1.0}},
        {"status": "diverged"},
        {"environment": '{"version":"9"}'},
        {"counts": (1.0, 1.0, 1.0, 1.0)},
        {"seed": 7},
        {"later": ("null", "null")},
    ],
)
def test_facts_that_are_not_those_of_the_results_are_found_out(pack, change):
    """Also where whoever changed them has sealed the pack anew."""
    with sqlite3.connect(pack) as database:
        ((name,),) = database.execute("SELECT name FROM runs WHERE place = 0")
        facts = [facts_of(found.result) for found in find_runs([pack])[0]]
        first = next(i for i, run in enumerate(list_folders(pack)) if run.name == name)
        if "summary" in change:
            change = {"summary": facts[first].summary | change["summary"]}
        facts[first] = dataclasses.replace(facts[first], **change)
        order = database.execute("SELECT place FROM runs ORDER BY name").fetchall()
        facts = [facts[order.index((place,))] for place in range(len(facts))]
        database.execute("UPDATE facts SET content = ?", [encoded(facts)])
        seal = _seal(database, 2, database.execute(_INDEX[2]))
        database.execute("UPDATE seal SET digest = ?", [seal])
    database.close()
    with pytest.raises(RunFolderError, match=r"all\.gnb: its columns"):
        load_runs([pack])


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_byte_loses_nothing_in_silence(pack, seed):
    """Here and there one is changed: it is told in a line, or no byte of the runs is another."""
    whole, random = pack.read_bytes(), Random(seed)
    before = [_content(run) for run in list_folders(pack)]
    told = 0
    for at in random.sample(range(len(whole)), 60):
        changed = bytes([whole[at] ^ 1 << random.randrange(8)])
        pack.write_bytes(whole[:at] + changed + whole[at + 1 :])
        try:
            load_runs([pack])
            after = [_content(run) for run in list_folders(pack)]
        except RunFolderError as error:
            after, told = before, told + (str(error).count("\n") == 0)
        assert after == before
    assert told > 5


def test_a_pack_of_the_first_format_is_read_and_grows_into_one_of_the_present(runs, tmp_path):
    old = tmp_path / "old.gnb"
    with sqlite3.connect(old) as database:
        for table in _TABLES[1]:
            database.execute(table)
        database.execute(f"PRAGMA application_id = {int.from_bytes(b'gnbp', 'big')}")
        database.execute("PRAGMA user_version = 1")
        for run in list_folders(runs):
            parts = [run.file(name, 2**20) for name in ("result.json", "test_hits.npy")]
            row = [x for part in parts for x in (zlib.compress(part), sha256(part).digest())]
            database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", [run.name, *row])
        seal = _seal(database, 1, database.execute(_INDEX[1]))
        database.execute("INSERT INTO seal VALUES (?)", [seal])
    database.close()
    assert compare(old).to_dict() == compare(runs).to_dict()
    told = read_status([tmp_path, old]).problems
    assert not any("name it" in line for line in told)
    assert pack_runs(list_folders(runs), old) == Packed(old, 0, 9, ())
    assert unpack_runs(old, tmp_path / "back") == (9, 0)
    assert contents(tmp_path / "back") == contents(runs)
    assert load_runs([old]).rows[0].summary_keys  # by column


def record(runs: Path, **changes: Any) -> SweepRecord:
    names = tuple(sorted(path.name for path in runs.iterdir() if path.is_dir()))
    told = {"name": "norm", "config": {"method": "grid"}, "runs": names}
    return SweepRecord(**told | changes)


def test_a_pack_carries_the_question_of_its_sweep_and_what_tuned_it(runs, tmp_path):
    make_runs(runs, arms=[{"norm": "batch"}, {"norm": "layer"}], seeds=range(20, 23))
    tuning = tuple(path.name for path in runs.iterdir() if "-s2" in path.name[-12:])
    asked = {"baseline": "none", "margin": 0.3, "arms": ["layer"]}
    record(runs, question=asked, contrasts=1, file="sweeps/norm.yaml").write(runs)
    record(runs, name="tuning", tunes="norm").replace(runs=tuning).write(runs)
    done = gnbench("pack", "runs", "-o", "all.gnb", cwd=tmp_path)
    assert done.returncode == 0
    outputs = [
        gnbench(*command, place, "--json", cwd=tmp_path).stdout
        for command in (["compare"], ["status"])
        for place in ("runs", "all.gnb")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[2] == outputs[3]
    assert '"baseline": "none"' in outputs[0]
    assert "that tuned a sweep not reported" in outputs[0]
    assert gnbench("unpack", "all.gnb", "--out", "back", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "back") == contents(runs)


def test_packs_of_two_machines_give_one_sweep_and_different_sweeps_are_refused(runs, tmp_path):
    other = tmp_path / "other"
    make_runs(other, arms=[{"norm": "batch"}], batch_sizes=(32,), seeds=range(5, 8))
    record(runs, question={"margin": 0.3}).write(runs)
    record(other, question={"margin": 0.3}, wandb={"project": "p"}).write(other)
    for place in ("runs", "other"):
        gnbench("pack", place, "-o", f"{place}.gnb", cwd=tmp_path)
    done = gnbench("pack", "other.gnb", "-o", "runs.gnb", cwd=tmp_path)
    assert done.stdout == "runs.gnb  3 runs added, 0 there already\n"
    ((_, found),), _ = find_records([tmp_path / "runs.gnb"])
    assert len(found.runs) == 12
    assert (found.question, found.wandb) == ({"margin": 0.3}, {"project": "p"})
    record(other, question={"margin": 0.1}).write(other)
    before = (tmp_path / "runs.gnb").read_bytes()
    refused = gnbench("pack", "other", "-o", "runs.gnb", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "different sweeps called norm" in refused.stderr
    assert (tmp_path / "runs.gnb").read_bytes() == before


def test_a_result_that_would_swell_is_not_inflated(pack):
    bomb = zlib.compress(bytes(MAX_RESULT_BYTES + 2)).hex()
    altered(pack, f"UPDATE contents SET result = x'{bomb}'")
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
    synced = gnbench("sync", "all.gnb", cwd=tmp_path)  # none of its runs was for W&B
    assert (synced.returncode, synced.stdout) == (0, "0 runs uploaded\n"), synced.stderr


def test_a_pack_that_is_a_link_stays_one(tmp_path):
    target, link = tmp_path / "target.gnb", tmp_path / "link.gnb"
    pack_runs([], target)
    link.symlink_to(target)
    pack_runs([], link)
    assert link.is_symlink()
    assert len(list_folders(target)) == 0
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(RunFolderError, match="cannot be written: Too many levels"):
        pack_runs([], link)


def test_a_pack_below_a_file_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        pack_runs([], tmp_path / "file" / "x.gnb")


def test_parts_of_the_columns_are_never_larger_than_they_are_read(runs, tmp_path, monkeypatch):
    """Runs with a thousand metrics each were packed, and the pack was refused ever after."""
    monkeypatch.setattr(facts_module, "MAX_PART", 6_000)
    pack_runs(list_folders(runs), tmp_path / "all.gnb")
    with sqlite3.connect(tmp_path / "all.gnb") as database:
        ((parts,),) = database.execute("SELECT COUNT(*) FROM facts")
    database.close()
    assert 1 < parts < 9
    assert compare(tmp_path / "all.gnb").to_dict() == compare(runs).to_dict()


def test_hits_of_any_number_of_items_are_packed(tmp_path):
    folder = make_run(tmp_path / "runs", TrainConfig(dataset="mnist-5k"))
    hits = np.arange(9_000_000) % 3 > 0
    folder.write_hits(hits)
    assert pack_runs([folder], tmp_path / "all.gnb").added == 1
    assert (list_folders(tmp_path / "all.gnb")[0].read_hits(len(hits)) == hits).all()


def test_a_result_that_cannot_be_packed_is_told_by_its_path(runs, tmp_path):
    folder = list_folders(runs)[4]
    folder.result_path.write_text("{")
    with pytest.raises(
        RunFolderError, match=rf"{folder.name}/result.json is not readable: .* move"
    ):
        pack_runs(list_folders(runs), tmp_path / "all.gnb")
    assert not (tmp_path / "all.gnb").exists()


@pytest.mark.parametrize("later", [b"[]", b"{", b"[[],[]]"])
def test_columns_that_are_read_late_are_refused_as_the_others_are(pack, later):
    with sqlite3.connect(pack) as database:
        ((part,),) = database.execute("SELECT content FROM facts")
        head, _, table = zlib.decompress(part).split(b"\n", 2)
        part = zlib.compress(b"\n".join((head, later, table)))
        database.execute("UPDATE facts SET content = ?", [part])
        seal = _seal(database, 2, database.execute(_INDEX[2]))
        database.execute("UPDATE seal SET digest = ?", [seal])
    database.close()
    with pytest.raises(RunFolderError, match=r"all\.gnb: its columns are not readable"):
        load_runs([pack])


def test_of_two_that_pack_at_once_the_second_says_so_and_loses_nothing(runs, pack, tmp_path):
    """It replaced the pack of the first, whose runs were gone, or took its temporary away."""
    more = make_run(tmp_path / "more", TrainConfig(norm="instance", dataset="mnist-5k"))
    others = iter([more])

    def meanwhile() -> None:
        for other in others:
            assert pack_runs([other], pack).added == 1

    with pytest.raises(RunFolderError, match=r"all\.gnb was changed by another process meanwhile"):
        pack_runs(list_folders(runs), pack, on_run=meanwhile)
    assert len(list_folders(pack)) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.gnb", "more", "runs"]

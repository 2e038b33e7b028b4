"""Runs as rows: reading, filtering, what counts and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupnorm_bench.compare.cells import rank, summarize_cells
from groupnorm_bench.compare.load import load_runs, refuse_duplicates
from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.compare.where import parse_where
from groupnorm_bench.errors import CompareError, GnbenchError, RunFolderError
from tests.support.run_folders import ENVIRONMENT, hits_of, result_of, row_of, table_of, write_run


def test_folders_from_several_machines_merge_and_one_reached_twice_counts_once(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "a", result_of("batch", 0.9, seed=seed))
        write_run(tmp_path / "b", result_of("group-g8", 0.9, seed=seed))
    one_run = tmp_path / "a" / result_of("batch", seed=0).config.name
    table = load_runs([tmp_path / "a", tmp_path / "b", tmp_path / "a", one_run])
    assert len(table.rows) == 6
    assert table.arms == ("batch", "group-g8")


def test_a_seed_found_twice_is_refused_with_both_places(tmp_path):
    for machine in ("a", "b"):
        write_run(tmp_path / machine, result_of("batch", 0.9, seed=3))
    with pytest.raises(CompareError, match=r"seed=3 of batch-b64.* is there twice, in .*/a/.*/b/"):
        load_runs([tmp_path / "a", tmp_path / "b"])


def test_a_seed_that_ran_under_two_versions_of_the_code_is_two_results():
    first, second = row_of("batch", seed=0), row_of("batch", seed=0)
    second.result.environment["commit"] = "another"
    refuse_duplicates([first, second])
    assert len(summarize_cells([first, second])) == 2


def test_half_written_and_foreign_folders_are_told_and_skipped(tmp_path):
    write_run(tmp_path, result_of("batch"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "result.json").write_text('{"config": {')
    table = load_runs([tmp_path])
    assert len(table.rows) == 1
    assert len(table.problems) == 2
    assert "half" in table.problems[1]


def test_no_runs_and_no_folder_are_one_line_each(tmp_path):
    with pytest.raises(CompareError, match="holds no runs; train some"):
        load_runs([tmp_path])
    with pytest.raises(RunFolderError, match="is not a folder of runs"):
        load_runs([tmp_path / "absent"])


def test_only_finished_runs_count_and_the_others_are_counted_apart():
    rows = [
        row_of("batch", 0.90, seed=0),
        row_of("batch", 0.94, seed=1),
        row_of("batch", None, seed=2, status="diverged"),
        row_of("batch", None, seed=3, status="pruned"),
        row_of("batch", float("nan"), seed=4),
    ]
    (cell,) = summarize_cells(rows)
    assert cell.n == 2
    assert cell.mean == pytest.approx(92.0)
    assert cell.sd == pytest.approx(np.sqrt(8.0))
    assert cell.seeds == (0, 1)
    assert cell.other_statuses == {"diverged": 1, "pruned": 1, "without test/accuracy": 1}
    assert cell.seconds_per_epoch == pytest.approx(2.0)
    assert cell.images_per_second == 2000.0


def test_one_seed_has_a_mean_and_no_spread():
    (cell,) = summarize_cells([row_of("batch", 0.9)])
    assert (cell.n, cell.sd) == (1, None)


def test_ranking_is_by_validation_best_first_and_by_loss_smallest_first():
    table = table_of({"none": [0.9, 0.91], "batch": [0.95, 0.96], "group-g8": [0.92, 0.93]})
    lost = row_of("layer", None, status="diverged")
    ranked = rank([*table.rows, lost])
    assert [cell.arm for cell in ranked] == ["batch", "group-g8", "none", "layer"]
    assert [cell.arm for cell in rank(table.rows, "test/loss")] == ["batch", "group-g8", "none"]
    assert ranked[0].mean == pytest.approx(95.5)


def test_a_ranking_counts_every_seed_whatever_code_left_it():
    rows = [row_of("batch", 0.9, seed=0), row_of("batch", 0.92, seed=1)]
    rows[1].result.environment["version"] = "0.0.9"
    (ranked,) = rank(rows, "test/accuracy")
    assert (ranked.n, ranked.mean) == (2, pytest.approx(91.0))
    assert "; " in ranked.code
    assert [cell.n for cell in summarize_cells(rows)] == [1, 1]


def test_settings_leave_out_what_makes_the_arm():
    group, batch = row_of("group-g8"), row_of("batch")
    assert group.setting == batch.setting
    assert "num_groups" not in group.setting
    assert group.setting["batch_size"] == 64


def test_hits_come_back_at_their_own_length(tmp_path):
    for num_images in (500, 501, 507, 1000):
        accuracy = round(0.977 * num_images) / num_images
        hits = hits_of(accuracy, num_images)
        folder = write_run(tmp_path / str(num_images), result_of("batch", accuracy), hits)
        (row,) = load_runs([folder.path]).rows
        np.testing.assert_array_equal(row.hits(), hits)


def test_missing_hits_are_none(tmp_path):
    folder = write_run(tmp_path, result_of("batch"))
    (row,) = load_runs([folder.path]).rows
    assert row.hits() is None
    folder.hits_path.write_bytes(b"not numpy")
    assert row.hits() is None


WHERE = [
    ("batch_size<=32 and norm!=none", {"batch32", "group32"}),
    ("batch_size <= 32", {"batch32", "group32", "none32"}),
    ("norm = group", {"group32", "group128"}),
    ("arm in (group-g8, 'none')", {"group32", "group128", "none32"}),
    ("arm not in [group-g8]", {"batch32", "none32"}),
    ("num_groups == 8", {"group32", "group128"}),
    ("num_groups == none", {"batch32", "none32"}),
    ("max_steps == none and lr==1e-3", {"batch32", "group32", "none32", "group128"}),
    ("not (norm==group or norm==none)", {"batch32"}),
    ("test/accuracy > 0.945", {"group128"}),
    ("norm==none or norm==batch and batch_size>32", {"none32"}),
    ("weight_decay_all == none", {"batch32", "group32", "none32", "group128"}),
    (
        f"commit == {ENVIRONMENT['commit']} and seed == 0",
        {"batch32", "group32", "none32", "group128"},
    ),
]


@pytest.mark.parametrize(("expression", "kept"), WHERE)
def test_where_keeps_the_rows_it_names(expression, kept):
    rows = {
        "batch32": row_of("batch", 0.94, batch_size=32),
        "group32": row_of("group-g8", 0.94, batch_size=32),
        "none32": row_of("none", 0.94, batch_size=32),
        "group128": row_of("group-g8", 0.95, batch_size=128),
    }
    left = RunTable(rows=tuple(rows.values())).where(expression)
    assert {name for name, row in rows.items() if row in left.rows} == kept


BAD_WHERE = [
    ("nrom==group", "unknown name 'nrom'; did you mean 'norm'"),
    ("__import__('os').system('x')", "not clear|unknown name"),
    ("batch_size <=", "not clear at its end"),
    ("", "not clear at its end"),
    ("batch_size < small", "needs a number"),
    ("batch_size 32", "where a comparison should stand"),
    ("(norm==group", "not clear at its end"),
    ("norm==group)", r"not clear at '\)'"),
    ("norm==group;", "not clear at ';'"),
    ("norm in 3", "where a list"),
    ("32 < batch_size", "where a name should stand"),
    ("norm == and", "where a value should stand"),
    ("batch_size==7", "leaves no run of 1;"),
    ("(" * 200 + "norm==group" + ")" * 200, "nested over 50 deep"),
    ("not " * 20_000 + "norm==group", "characters; shorten"),
    ("norm==group and " * 500 + "x", "unknown name 'x'"),
]


@pytest.mark.parametrize(("expression", "message"), BAD_WHERE)
def test_a_bad_where_is_refused_in_one_line(expression, message):
    with pytest.raises(CompareError, match=message) as error:
        table_of({"batch": [0.9]}).where(expression)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@given(st.text(max_size=60) | st.text(alphabet="ab<>=!()[],'\"19 .eandornti-", max_size=40))
def test_where_never_fails_otherwise_than_by_its_own_error(expression):
    try:
        keeps = parse_where(expression, ["a", "b", "norm"])
    except GnbenchError:
        return
    assert keeps({"a": 1, "b": None, "norm": "group"}.get) in (True, False)


def test_how_many_images_were_scored_is_told_or_follows_from_hits_or_the_data_set(tmp_path):
    told = result_of("batch", 0.9, seed=0)
    told.summary.update({"test/num_images": 40, "val/num_images": 20})
    older = [result_of("batch", 0.9, seed=seed) for seed in (1, 2)]
    write_run(tmp_path, told, hits_of(0.9, 40))
    write_run(tmp_path, older[0], hits_of(0.9, 70))
    write_run(tmp_path, older[1])
    rows = sorted(load_runs([tmp_path]).rows, key=lambda row: row.seed)
    assert [row.num_images("test") for row in rows] == [40, 70, 1_000]
    assert [row.num_images("val") for row in rows] == [20, 500, 500]
    assert [None if row.hits() is None else len(row.hits()) for row in rows] == [40, 70, None]


def test_hits_of_another_length_than_told_are_left_out(tmp_path):
    told = result_of("batch", 0.9)
    told.summary["test/num_images"] = 80
    write_run(tmp_path, told, hits_of(0.9, 40))
    (row,) = load_runs([tmp_path]).rows
    assert (row.hits(), row.num_images("test")) == (None, 80)


@pytest.mark.parametrize("kind", ["fifo", "zip", "device", "huge", "text"])
def test_hits_of_any_other_kind_are_left_out_at_once(tmp_path, kind):
    folder = write_run(tmp_path, result_of("batch", 0.9), hits_of(0.9, 40))
    path = folder.hits_path
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zip":
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(3))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.write_text("no array")
    (row,) = load_runs([tmp_path]).rows
    assert (row.hits(), row.num_images("test")) == (None, 1_000)


@pytest.mark.parametrize("seen", ["x", None, True, [1], -1, 1e400])
def test_a_history_of_anything_gives_no_traceback(tmp_path, seen):
    result = result_of("batch", 0.9)
    result.history[0]["images_seen"] = seen
    row = RunRow(result=result)
    assert row.seconds_per_epoch == 2.0


def test_compare_loads_without_torch_wandb_and_slow_libraries():
    code = (
        "import sys, groupnorm_bench.compare.rows, groupnorm_bench.compare.where\n"
        "slow = {'torch', 'wandb', 'scipy', 'sklearn', 'pandas', 'rich', 'plotly'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_runs_copied_from_another_machine_keep_their_identity(tmp_path):
    folder = write_run(tmp_path / "a", result_of("group-g8", 0.9, seed=1))
    shutil.copytree(folder.path, tmp_path / "b" / folder.name)
    (row,) = load_runs([tmp_path / "b"]).rows
    assert row.name == "group-g8-b64-mnist-5k-e2-s1-" + row.cell[-8:]
    assert row.code == f"0.1.0@{ENVIRONMENT['commit'][:12]}, torch {ENVIRONMENT['torch']}"


def test_a_foreign_file_in_place_of_hits_is_left_out_where_their_number_is_not_told(tmp_path):
    folder = write_run(tmp_path, result_of(), hits_of(0.97))
    (row,) = load_runs([str(tmp_path)]).rows
    assert len(row.hits()) == 1000  # by the share that was right
    np.savez(folder.path / "hits.npz", a=np.zeros(3))
    (folder.path / "hits.npz").replace(folder.hits_path)
    (row,) = load_runs([str(tmp_path)]).rows
    assert row.hits() is None

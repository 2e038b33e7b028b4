"""Tables that other programs left: read as they are, guessed where that is plain, else refused."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pandas
import pytest

from groupnorm_bench import compare
from groupnorm_bench.compare.foreign import Columns, read_results
from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.errors import CompareError
from tests.support.command_line import gnbench
from tests.support.run_folders import make_runs, table_of

HEAD = "norm,seed,batch_size,dice,epoch"


def study(folder: Path, seeds: int = 8) -> Path:
    """Write a study: group norm is ahead by 0.03 at batch size 2, and level at 8."""
    draw = random.Random(1)
    lines = [HEAD]
    for size, ahead in ((2, 0.03), (8, 0.001)):
        for seed in range(seeds):
            base = 0.7 + draw.gauss(0, 0.01)
            lines.append(f"batch,{seed},{size},{base:.5f},20")
            lines.append(f"group,{seed},{size},{base + ahead + draw.gauss(0, 0.004):.5f},20")
    path = folder / "study.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_finished_study_gets_its_verdicts(tmp_path):
    comparison = compare(study(tmp_path))
    assert comparison.metric == "dice"
    assert [(c.setting, c.verdict) for c in comparison.contrasts] == [
        ({"batch_size": 2.0}, "better"),
        ({"batch_size": 8.0}, "undecided"),
    ]
    assert (
        "guessed by its names: arm norm; seed seed; metric dice; setting batch_size; left out"
        in (comparison.notes[-1])
    )


def test_the_numbers_are_those_of_runs_with_the_same_accuracies(tmp_path):
    accuracies = {"batch": [0.95, 0.96, 0.94, 0.95], "layer": [0.96, 0.975, 0.949, 0.968]}
    lines = ["arm,seed,test/accuracy"]
    lines += [f"{arm},{s},{100 * a}" for arm, row in accuracies.items() for s, a in enumerate(row)]
    path = tmp_path / "percent.csv"
    path.write_text("\n".join(lines))
    ours = compare(table_of(accuracies)).contrasts[0]
    theirs = compare(path).contrasts[0]
    for name in ("mean_difference", "ci_low", "ci_high", "p", "t_p", "n_pairs"):
        assert getattr(theirs, name) == pytest.approx(getattr(ours, name)), name


def test_json_lines_tsv_and_semicolons_are_the_same_table(tmp_path):
    path = study(tmp_path, seeds=3)
    expected = [(r.arm, r.seed, r.setting, r.metric("dice")) for r in read_results(path).rows]
    head, *rows = [line.split(",") for line in path.read_text().splitlines()]
    files = {
        "a.tsv": "\n".join("\t".join(row) for row in [head, *rows]),
        "b.csv": "\ufeff" + "\r\n".join(";".join(row) for row in [head, *rows]),
        "c.jsonl": "\n".join(json.dumps(dict(zip(head, row, strict=True))) for row in rows),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        found = read_results(tmp_path / name).rows
        assert [(r.arm, r.seed, r.setting, r.metric("dice")) for r in found] == expected, name


def test_parquet_is_the_same_table(tmp_path):
    path = study(tmp_path, seeds=3)
    pandas.read_csv(path).to_parquet(tmp_path / "a.parquet")
    expected = [(r.arm, r.seed, r.metric("dice")) for r in read_results(path).rows]
    found = read_results(tmp_path / "a.parquet").rows
    assert [(r.arm, r.seed, r.metric("dice")) for r in found] == expected


def test_columns_are_what_one_says(tmp_path):
    columns = Columns(arm=("batch_size",), seed="seed", metric="epoch", setting=("norm",))
    table = read_results(study(tmp_path, seeds=2), columns)
    assert table.metric == "epoch"
    assert table.arms == ("2", "8")
    assert table.rows[0].setting == {"norm": "batch"}
    both = read_results(tmp_path / "study.csv", Columns(arm=("norm", "batch_size")))
    assert both.arms[0] == "norm=batch, batch_size=2"


def test_a_metric_that_is_nan_is_a_run_that_was_lost(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "norm,seed,dice\n" + "".join(f"batch,{s},0.7\ngroup,{s},nan\n" for s in range(6))
    )
    comparison = compare(path)
    assert comparison.contrasts == ()
    assert "group: 6 runs diverged" in comparison.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("norm,seed,dice\n", "holds no rows"),
        ("norm,dice\nbatch,1\n", "which column is the seed? --seed one of norm, dice"),
        ("a,seed,dice\nb,1,2\n", "which column is the arm? --arm one of a, seed, dice"),
        (
            "norm,seed,x,y\nb,1,2,3\n",
            "which column is the metric? --metric one of norm, seed, x, y",
        ),
        ("norm,seed,dice\nbatch,1\n", "a.csv:2 has 2 cells under 3 names"),
        ("norm,seed,dice\nbatch,1,\n", "a.csv:2 has no dice; remove the row, or write nan"),
        ("norm,seed,dice\nbatch,1,0.7\nbatch,2,high\n", "a.csv:3 dice='high' is not a number"),
        ("norm,seed,dice\nbatch,1,inf\n", "a.csv:2 dice='inf' is not a number"),
        ("norm,seed,dice\nbatch,1.5,1\n", "a.csv:2 seed='1.5' is not a whole number"),
        ("norm,seed,dice\nbatch,one,1\n", "a.csv:2 seed='one' is not a whole number"),
        ("norm,seed,dice\n,1,1\n", "a.csv:2 has no norm; fill it in"),
        ("norm,seed,seed\nbatch,1,1\n", "a.csv:1 has the column 'seed' twice"),
        ('norm,seed,dice\n"batch,1,1\n', "is not CSV"),
        (
            "norm,seed,dice\nbatch,1,1\nbatch,1,2\n",
            "seed=1 of batch is there twice, in {0}:2 and {0}:3",
        ),
    ],
)
def test_what_is_not_clear_is_one_line_with_its_row(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(CompareError, match=re.escape(message.format(path))) as error:
        load_runs([path])
    assert "\n" not in str(error.value)


def test_other_files_and_columns_that_are_not_there_are_one_line(tmp_path):
    path = study(tmp_path, seeds=2)
    with pytest.raises(CompareError, match="has no column 'seeds'; did you mean 'seed'"):
        read_results(path, Columns(seed="seeds"))
    with pytest.raises(CompareError, match="give it alone"):
        load_runs([path, tmp_path])
    (tmp_path / "latin.csv").write_bytes(b"norm,seed,dice\nbatch,1,0.7\nl\xe4yer,1,0.7\n")
    with pytest.raises(CompareError, match=r"latin\.csv:3 is not UTF-8"):
        load_runs([tmp_path / "latin.csv"])
    (tmp_path / "bad.jsonl").write_text('{"norm": "batch"}\n[1]\n')
    with pytest.raises(CompareError, match=r"bad\.jsonl:2 is no object"):
        load_runs([tmp_path / "bad.jsonl"])
    with pytest.raises(CompareError, match="cannot be read"):
        load_runs([tmp_path / "none.csv"])


def test_any_setting_of_our_own_runs_can_be_the_arm(tmp_path):
    arms = [{"norm": "batch", "optimizer": o} for o in ("adam", "sgd")]
    make_runs(tmp_path / "runs", arms=arms, batch_sizes=(32,), seeds=3)
    comparison = compare(tmp_path / "runs", columns=Columns(arm=("optimizer",)))
    (contrast,) = comparison.contrasts
    assert (contrast.arm, contrast.baseline) == ("sgd", "adam")
    assert contrast.setting["norm"] == "batch"
    assert "optimizer" not in contrast.setting
    with pytest.raises(CompareError, match="arm='optimiser' is no setting of a run; did you mean"):
        compare(tmp_path / "runs", columns=Columns(arm=("optimiser",)))
    with pytest.raises(CompareError, match="--seed and --setting name columns of a table"):
        compare(tmp_path / "runs", columns=Columns(seed="seed"))


def test_on_the_command_line(tmp_path):
    study(tmp_path)
    shown = gnbench("compare", "study.csv", cwd=tmp_path)
    assert shown.returncode == 0
    assert "group against batch at batch_size=2: better" in shown.stdout
    assert "add their rows" in shown.stdout
    told = gnbench(
        *("compare", "study.csv", "--arm", "norm", "--seed", "seed", "--metric", "dice"),
        *("--setting", "batch_size", "--claim", "group > batch"),
        cwd=tmp_path,
    )
    assert told.returncode == 5


def test_long_names_that_begin_alike_stay_two_arms(tmp_path):
    """They were cut to 80 letters, and two arms of other seeds were one."""
    path, place = tmp_path / "a.csv", "checkpoints/of/this/year/" * 4
    lines = [f"{place}{arm},{seed},0.{seed}" for arm in ("a", "b") for seed in range(3)]
    path.write_text("arm,seed,dice\n" + "\n".join(lines))
    assert load_runs(path).arms == (f"{place}a", f"{place}b")
    path.write_text("arm,seed,dice\n" + "x" * 301 + ",0,0.5\n")
    with pytest.raises(CompareError, match=r"a.csv:2 arm='x+\.\.\.' has 301 letters; 300 are"):
        load_runs(path)


def test_in_pandas_it_has_its_own_columns(tmp_path):
    """They were the defaults of a run of gnbench, the seed too."""
    frame = load_runs(study(tmp_path, seeds=2)).to_pandas()
    assert list(frame) == ["run", "arm", "cell", "status", "batch_size", "seed", "dice", "code"]
    assert list(frame.seed) == [0, 0, 1, 1] * 2
    assert list(frame.batch_size) == [2] * 4 + [8] * 4


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (Columns(metric="seed"), "seed"),
        (Columns(setting=("norm",)), "norm"),
        (Columns(setting=("batch_size", "dice"), metric="dice"), "dice"),
        (Columns(arm=("norm", "norm")), "norm"),
    ],
)
def test_a_column_is_one_thing(tmp_path, columns, name):
    with pytest.raises(CompareError, match=f"column '{name}' is taken for two things"):
        read_results(study(tmp_path, seeds=2), columns)


def test_words_and_numbers_of_a_table_are_taken_for_no_more_than_they_are(tmp_path):
    """A line separator inside JSON, a setting that is infinite, an accuracy of 5,000 per cent."""
    rows = [{"norm": n, "seed": 0, "lr": lr, "accuracy": 0.5} for n in "ab" for lr in ("inf", 1)]
    path = tmp_path / "a.jsonl"
    note = {"note": "one\u2028two"}
    path.write_text("\n".join(json.dumps(row | note, ensure_ascii=False) for row in rows))
    assert [row.setting["lr"] for row in read_results(path).rows] == ["inf", "1"] * 2
    path.write_text("\n".join(json.dumps(row | {"accuracy": 5000}) for row in rows))
    with pytest.raises(CompareError, match=r"a\.jsonl:1 accuracy=5000 is neither a fraction"):
        read_results(path)


def test_rows_at_hand_are_filtered_by_their_seed(tmp_path):
    assert len(load_runs(study(tmp_path, seeds=4)).where("seed<2").rows) == 8


def test_settings_are_not_chosen_without_scores_on_validation(tmp_path):
    path = study(tmp_path, seeds=3)
    with pytest.raises(CompareError, match="which a table does not tell; leave --choose out"):
        compare(path, choose=["batch_size"])

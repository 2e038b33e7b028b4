"""`gnbench compare` as a user types it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from groupnorm_bench.cli import app as cli_app
from groupnorm_bench.cli.app import run
from groupnorm_bench.tracking.sweeps import SweepRecord
from tests.support.run_folders import arms, config_of, make_run, make_runs, result_of, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Batch, none and group-g8 at two batch sizes, 8 seeds: batch suffers at batch size 2."""
    folder = tmp_path_factory.mktemp("runs")
    chosen = [arm for arm in arms(groups=(8,)) if arm["norm"] in ("none", "batch", "group")]
    make_runs(folder, arms=chosen, batch_sizes=(2, 32), seeds=8)
    return folder


def compare(capsys, *args):
    """Return the exit code, stdout and stderr of `gnbench compare ARGS`."""
    code = run(["compare", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_answer_comes_first_and_all_fits_80_columns(capsys, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = compare(capsys, runs)
    assert (code, err) == (0, "")
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert max(map(len, plain.splitlines())) <= 80
    answer, table, steps = plain.strip().split("\n\n")
    lines = answer.splitlines()
    assert lines[0] == "best at batch_size=2: group-g8, test/accuracy 97.80 %, 8 seeds"
    decided = lines.index("decided: 3 of 4 contrasts")
    assert lines[decided + 1].startswith("  none against batch at batch_size=2: better, +")
    assert "undecided: 1 of 4 contrasts" in lines
    assert re.search(r"group-g8 against batch at batch_size=32: \d+ to \d+ more seeds", answer)
    rows = table.splitlines()
    assert " ".join(rows[0].split()) == "batch_size arm n mean % sd diff 95 % interval verdict"
    assert len(rows) == 2 + 6
    assert len({re.search(r" 8 +9", row).start() for row in rows[2:]}) == 1
    assert steps.startswith("to decide the rest:  gnbench sweep FILE --until-decided\n")
    assert "to read why:         gnbench compare /" in steps


def test_off_a_terminal_nothing_is_broken_or_coloured(capsys, runs):
    _, out, _ = compare(capsys, runs)
    assert "\x1b" not in out
    assert f"gnbench compare {runs} --explain" in out


def test_explain_has_a_row_per_cell_and_a_sentence_per_contrast(capsys, runs):
    code, out, err = compare(capsys, runs, "--explain")
    assert (code, err) == (0, "")
    head, table, over_settings, sentences, notes = out.strip().split("\n\n")
    assert head.startswith("test/accuracy in points, against batch; ")
    assert " epochs=3, " in head
    assert head.endswith("verdicts hold whenever they are read (anytime p and interval)")
    lines = table.splitlines()
    assert " ".join(lines[0].split()) == (
        "batch_size arm n mean sd diff 95 % interval p Holm "
        "worse/equal/better % verdict s/epoch images/s MB"
    )
    assert len(lines) == 1 + 6
    assert len({line.index(" 8  9") for line in lines[1:]}) == 1  # n and mean stand in columns
    assert over_settings.startswith("over 2 settings")
    assert len(over_settings.splitlines()) == 1 + 3
    assert len(sentences.splitlines()) == 4
    assert notes == "note: more seeds until decided: gnbench sweep FILE --until-decided"
    assert "group-g8 against batch at batch_size=2: significantly better, +" in sentences
    assert "\x1b" not in out


def test_json_is_one_document_with_the_promised_keys(capsys, runs):
    code, out, _ = compare(capsys, runs, "--json")
    assert code == 0
    document = json.loads(out)
    assert len(document["contrasts"]) == 4
    promised = {"arm", "baseline", "setting", "n_pairs", "mean_difference", "ci_low", "ci_high"}
    promised |= {"p", "p_adjusted", "correlation", "verdict", "seeds_needed"}
    promised |= {"t_p", "t_p_adjusted", "e_value", "anytime_p", "anytime_p_adjusted"}
    promised |= {"anytime_low", "anytime_high", "rule"}
    assert promised <= set(document["contrasts"][0])
    assert document["contrasts"][0]["setting"]["batch_size"] == 2
    assert compare(capsys, runs, "--format", "json")[1] == out


def test_csv_carries_the_numbers_of_json_with_every_digit(capsys, runs):
    document = json.loads(compare(capsys, runs, "--json")[1])
    rows = list(csv.DictReader(io.StringIO(compare(capsys, runs, "--format", "csv")[1])))
    assert len(rows) == 4
    for row, contrast in zip(rows, document["contrasts"], strict=True):
        assert float(row["mean_difference"]) == contrast["mean_difference"]
        assert float(row["p_adjusted"]) == contrast["p_adjusted"]
        assert int(row["batch_size"]) == contrast["setting"]["batch_size"]
        assert row["verdict"] == contrast["verdict"]


def test_markdown_is_a_table_and_a_list(capsys, runs):
    _, out, _ = compare(capsys, runs, "--format", "md")
    table, over_settings = out.split("\n\n")[1:3]
    assert len(table.splitlines()) == 2 + 6
    assert len({line.count("|") for line in table.splitlines()}) == 1
    assert len(over_settings.splitlines()) == 2 + 3
    assert sum(line.startswith("- ") for line in out.splitlines()) == 4 + 1


def test_where_baseline_metric_and_margin_are_honoured(capsys, runs):
    args = ("--where", "batch_size==32 and norm!=group", "--baseline", "none")
    document = json.loads(
        compare(capsys, runs, *args, "--metric", "val/accuracy", "--margin", "5", "--json")[1]
    )
    (contrast,) = document["contrasts"]
    assert (contrast["arm"], contrast["baseline"]) == ("batch", "none")
    assert contrast["metric"] == "val/accuracy"
    assert contrast["margin"] == 5.0
    assert contrast["setting"]["batch_size"] == 32


def test_alpha_widens_the_interval(capsys, runs):
    wide, narrow = (
        json.loads(compare(capsys, runs, "--alpha", alpha, "--json")[1])["contrasts"][0]
        for alpha in ("0.01", "0.2")
    )
    assert wide["ci_low"] < narrow["ci_low"]
    assert wide["ci_high"] > narrow["ci_high"]
    assert "80 % interval" in compare(capsys, runs, "--alpha", "0.2")[1]


def test_latex_is_a_table_of_booktabs_with_its_test_told(capsys, runs):
    code, out, err = compare(capsys, runs, "--format", "latex")
    assert code == 0
    assert err.startswith("note: more seeds")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == r"\begin{table}"
    assert lines[-1] == r"\end{table}"
    assert [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")] == [
        r"\toprule", r"\midrule", r"\bottomrule",
    ]  # fmt: skip
    assert r"Norm & batch\_size=2 & batch\_size=32 \\" in lines
    rows = {line.split(" & ")[0]: line for line in lines if line.endswith("\\\\")}
    assert rows.keys() == {"Norm", "none", "batch", "group-g8"}
    assert rows["group-g8"].count(r"\textbf") == 2
    assert rows["none"].count(r"\uparrow") == rows["none"].count(r"\downarrow") == 1
    assert rows["batch"].count("arrow") == 0
    assert r"$n = 8$" in out
    assert "Holm over 4 contrasts" in out
    assert "anytime-valid" in out
    assert "number fixed beforehand" in compare(capsys, runs, "--format", "latex", "--planned")[1]


def test_csv_has_the_means_and_another_file_the_runs(capsys, runs, tmp_path):
    file = tmp_path / "runs.csv"
    code, out, _ = compare(capsys, runs, "--format", "csv", "--runs-csv", file)
    assert code == 0
    contrasts = list(csv.DictReader(io.StringIO(out)))
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert len(rows) == 48
    for contrast in contrasts:
        of_arm = [
            float(row["test/accuracy"])
            for row in rows
            if (row["arm"], row["batch_size"]) == (contrast["arm"], contrast["batch_size"])
        ]
        assert len(of_arm) == int(contrast["n_arm"]) == 8
        assert 100 * sum(of_arm) / 8 == pytest.approx(float(contrast["arm_mean"]))
    assert {row["status"] for row in rows} == {"finished"}
    code, _, err = compare(capsys, runs, "--runs-csv", file / "x.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written: File exists; choose another --runs-csv" in err


def test_explain_is_never_ignored(capsys, runs):
    for more in (["--json"], ["--format", "md"], ["--claim", "none > batch"]):
        code, out, err = compare(capsys, runs, "--explain", *more)
        assert (code, out) == (2, "")
        assert err.startswith("error: --explain")


CLAIMS = [
    ("group-g8 > batch", "batch_size==2", 0, "supported: group-g8 > batch; "),
    ("batch > group-g8", "batch_size==2", 4, "refuted: batch > group-g8; "),
    ("group-g8 > batch", "batch_size==2 and seed<4", 5, "undecided: group-g8 > batch; "),
]


@pytest.mark.parametrize(("claim", "where", "code", "line"), CLAIMS)
def test_a_claim_is_one_line_and_an_exit_code(capsys, runs, claim, where, code, line):
    found, out, err = compare(capsys, runs, "--claim", claim, "--where", where)
    assert found == code
    assert out.startswith(line)
    assert out.count("\n") == 1
    assert err == ""


def test_a_claim_as_json_has_its_outcome(capsys, runs):
    code, out, _ = compare(capsys, runs, "--claim", "group-g8 = group-g8x", "--json")
    assert code == 2
    code, out, _ = compare(capsys, runs, "--claim", "none < batch", "--json")
    assert json.loads(out)["outcome"] in ("supported", "refuted", "undecided")


def test_choose_takes_the_best_groups_on_validation(capsys, tmp_path):
    make_runs(tmp_path, arms=arms(groups=(1, 8)), batch_sizes=(2,), seeds=3)
    document = json.loads(compare(capsys, tmp_path, "--choose", "num_groups", "--json")[1])
    groups = {c["arm"] for c in document["contrasts"] if c["arm"].startswith("group")}
    assert len(groups) == 1
    assert document["contrasts"][-1]["notes"] != []


def test_notes_say_what_was_left_out(capsys, tmp_path):
    make_runs(tmp_path, arms=[{"norm": "batch"}, {"norm": "none"}], seeds=3)
    make_run(tmp_path, config_of("none", batch_size=8, epochs=3, seed=3), status="diverged")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{")
    code, out, err = compare(capsys, tmp_path)
    assert code == 0
    assert "3 +1 diverged" in out
    assert "note: none: 1 run diverged" in out
    assert "broken/result.json is not readable" in out
    code, out, err = compare(capsys, tmp_path, "--format", "csv")
    assert "note:" in err
    assert "note:" not in out


def test_one_arm_alone_says_so(capsys, tmp_path):
    write_run(tmp_path, result_of("batch"))
    code, out, _ = compare(capsys, tmp_path)
    assert code == 0
    assert "One arm alone" in out


BAD = [
    (["absent"], "absent is not a folder of runs"),
    (["--baseline", "bacth"], "baseline='bacth' has no finished run; did you mean 'batch'"),
    (["--metric", "test/acc"], "metric='test/acc' is in no finished run; did you mean"),
    (["--where", "batch_size <"], "where='batch_size <' is not clear at its end"),
    (["--where", "batchsize==2"], "unknown name 'batchsize'; did you mean 'batch_size'"),
    (["--where", "batch_size==3"], "leaves no run of 48;"),
    (["--format", "xml"], "format='xml' is unknown"),
    (["--format", "cvs"], "format='cvs' is unknown; did you mean 'csv'"),
    (["--alpha", "0"], "alpha=0.0 is not between 0 and 1"),
    (["--alpha", "five"], "Invalid value for '--alpha'"),
    (["--margin", "-1"], "margin=-1.0 is not a number from 0 on"),
    (["--margin", "nan"], "margin=nan is not a number from 0 on"),
    (["--claim", "better"], "claim='better' is not clear"),
    (["--claim", "group-g9 > batch"], "arm='group-g9' has no finished run"),
    (["--claim", "group-g8 > batch", "--baseline", "none"], "has no use beside --claim"),
    (["--choose", "sed"], "choose='sed' cannot be chosen"),
    (["--choose", ""], "--choose is empty text"),
    (["--bogus"], "No such option: --bogus"),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=lambda value: " ".join(value)[:40])
def test_bad_input_is_one_line_and_exit_2(capsys, runs, args, message):
    folder = [] if args == ["absent"] else [runs]
    code, out, err = compare(capsys, *folder, *args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_empty_folder_is_one_line_and_exit_2(capsys, tmp_path):
    code, _, err = compare(capsys, tmp_path)
    assert code == 2
    assert "holds no runs; train some: gnbench sweep" in err


@pytest.mark.parametrize("columns", [200, 80, 60])
def test_on_a_terminal_nothing_is_cut(capsys, runs, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, out, _ = compare(capsys, runs, "--explain")
    assert "…" not in out
    assert out.count("s/epoch") == 1
    assert "group-g8" in out
    table = [line for line in re.sub(r"\x1b\[[\d;]*m", "", out).splitlines() if "    " in line]
    assert len(table) > 6
    assert max(len(line) for line in table) <= columns


def test_compare_as_a_process_loads_no_torch_and_no_wandb(runs):
    code = (
        "import sys\n"
        "from groupnorm_bench.cli.app import run\n"
        "import groupnorm_bench.cli\n"
        f"assert run(['compare', {str(runs)!r}]) == 0\n"
        "slow = {'torch', 'wandb', 'sklearn', 'pandas', 'plotly'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    env = os.environ | {"COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=env)


def test_the_command_is_registered():
    assert "compare" in {command.name for command in cli_app.registered_commands}


def test_a_misspelt_folder_is_no_wandb_path_either(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = compare(capsys, "runs/typo")
    assert code == 2
    assert err.startswith("error: runs/typo is no folder here; as a W&B path: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_runs_on_wandb_give_the_numbers_of_their_folders(capsys, wandb_env, wandb_server):
    from tests.support.offline_runs import configs, track_one

    folder = wandb_env / "runs"
    for config in configs(6):
        track_one(folder, config)
    sync = [sys.executable, "-m", "groupnorm_bench.cli", "sync", str(folder)]
    subprocess.run(sync, check=True, timeout=240, capture_output=True)
    args = ("--metric", "val/accuracy", "--json")
    ours, theirs = (
        json.loads(compare(capsys, source, *args)[1])["contrasts"]
        for source in (folder, "tester/groupnorm-bench")
    )
    assert ours == theirs
    assert ours[0]["seeds"] == [0, 1, 2]


def test_planned_all_pairs_and_seeds_to_choose_by_are_options(capsys, runs):
    planned = json.loads(compare(capsys, runs, "--planned", "--json")[1])
    assert {c["rule"] for c in planned["contrasts"]} == {"planned"}
    _, out, _ = compare(capsys, runs, "--all-pairs")
    assert "letters at batch_size=2" in out
    code, _, err = compare(capsys, runs, "--choose-seeds", "1-2")
    assert (code, "without --choose" in err) == (2, True)
    for seeds in ("x", "3-1", "9" * 5_000, "1-" + "9" * 5_000):
        code, _, err = compare(capsys, runs, "--choose", "lr", "--choose-seeds", seeds)
        assert (code, f"choose-seeds='{seeds[:20]}" in err) == (2, True)
        assert "is not clear; write it as in 8-11" in err
    code, _, err = compare(capsys, runs, "--claim", "group-g8 > batch", "--all-pairs")
    assert (code, "--all-pairs has no use beside --claim" in err) == (2, True)


def test_what_a_sweep_asked_is_answered_from_its_record(capsys, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    names = [path.name for path in (tmp_path / "runs").iterdir() if "group" not in path.name]
    record = SweepRecord(
        name="norm",
        config={},
        runs=tuple(names),
        question={"baseline": "none", "alpha": 0.01},
        contrasts=7,
        file="sweeps/norm.yaml",
    )
    record.write(tmp_path / "runs")
    document = json.loads(compare(capsys, tmp_path / "runs", "--json")[1])
    assert (document["baseline"], document["alpha"]) == ("none", 0.01)
    families = {c["arm"]: (c["family"], c["family_size"]) for c in document["contrasts"]}
    assert families == {"batch": ("norm", 7), "group-g8": ("not asked", 2)}
    assert any("gnbench sweep sweeps/norm.yaml --until-decided" in n for n in document["notes"])
    override = json.loads(
        compare(capsys, tmp_path / "runs", "--json", "--baseline", "batch", "--alpha", "0.05")[1]
    )
    assert (override["baseline"], override["alpha"]) == ("batch", 0.05)


@pytest.mark.parametrize("form", ["html", "md"])
def test_files_may_have_names_that_are_no_utf8(tmp_path, monkeypatch, form):
    """As those of a disk that was written under another encoding."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        for norm in ("none", "batch"):
            make_run(tmp_path / "runs", config_of(norm, seed=seed))
    monkeypatch.setattr("sys.argv", ["gnbench", "report", "runs\udcff"])  # a page tells its command
    assert run(["report", "runs", "--out", "page\udcff", "--format", form]) == 0
    assert run(["compare", "runs", "--runs-csv", "table\udcff"]) == 0
    names = {os.fsencode(name) for name in os.listdir(tmp_path)}
    assert names == {b"runs", b"page\xff", b"table\xff"}
    assert b"runs\\udcff" in (tmp_path / "page\udcff").read_bytes()

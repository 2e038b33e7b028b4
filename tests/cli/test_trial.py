"""A training function of the user's own on the command line: one run, a sweep, its verdict."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.sweep.file.spec import read_spec
from tests.cli.test_sweep import gnbench, trained

STUDY = """
import random
import torch

def train(run):
    layer = run.norm_layer(16)
    noise = torch.rand(1).item() / 100
    better = 0.2 * isinstance(layer, torch.nn.GroupNorm)
    dice = 0.5 + better * run.settings["width"] + noise + random.random() / 1000
    run.log({"val/dice": dice})
    return {"dice": dice, "hd95": 1 / dice}
"""
SWEEP = """
name: shapes
method: grid
metric: {name: dice, goal: maximize}
parameters:
  trial: {value: "study:train"}
  norm: {values: [batch, group]}
  num_groups: {values: [4]}
  width: {values: [0, 1]}
  seed: {values: [0, 1, 2, 3, 4, 5]}
"""
VERDICTS = {0: "undecided", 1: "better"}


def write_study(folder):
    (folder / "study.py").write_text(STUDY)
    (folder / "shapes.yaml").write_text(SWEEP)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder in which the sweep of a trial has run to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    write_study(folder)
    return folder, gnbench("sweep", "shapes.yaml", "--workers", "2", cwd=folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, from which `study` is imported anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_study(tmp_path)
    yield tmp_path
    sys.modules.pop("study", None)


@pytest.fixture
def runs(swept, here):
    """The runs of the sweep, in the folder where the test stands."""
    shutil.copytree(swept[0] / "runs", here / "runs")
    return here / "runs"


def verdicts(told):
    return {
        int(width): verdict
        for width, verdict in re.findall(r"^\s*(\d) +group-g4 .* (\w+) *$", told, re.M)
    }


def test_a_folder_of_data_sets_that_no_trial_reads_is_refused(here, capsys, monkeypatch):
    monkeypatch.setenv("GNBENCH_DATA_DIR", "data")  # for other runs
    train = ["train", "--trial", "study:train", "--norm", "batch", "--set", "width=0", "--wandb"]
    assert run([*train, "disabled", "--data-dir", "data"]) == 2
    assert "--data-dir is not read by trial='study:train'" in capsys.readouterr().err
    assert run(["sweep", "shapes.yaml", "--dry-run", "--data-dir", "data"]) == 2
    assert "--data-dir is not read by trial='study:train'" in capsys.readouterr().err
    assert run([*train, "disabled"]) == 0


def test_a_sweep_of_a_trial_ends_in_a_ranking_by_its_metric(swept):
    folder, process = swept
    assert process.returncode == 0, process.stderr
    head, first = (line.split() for line in process.stdout.splitlines()[:2])
    assert head[:4] == ["rank", "arm", "width", "dice"]
    assert first[:3] == ["1", "group-g4", "1"]
    assert "24 runs trained in" in process.stdout
    assert re.search(r"\[24/24\] \S+  finished  dice 0\.\d{4}", process.stderr)
    result = json.loads(next((folder / "runs").glob("*/result.json")).read_text())
    assert result["config"]["trial"] == "study:train"
    assert result["history"][0].keys() == {"epoch", "val/dice"}


def test_typed_again_nothing_is_trained(runs, capsys):
    before = trained(runs)
    assert run(["sweep", "shapes.yaml", "--wandb", "disabled"]) == 0
    assert "0 runs trained in 0:00, 24 reused" in capsys.readouterr().out
    assert trained(runs) == before


def test_results_of_other_code_are_told_and_kept_apart(runs, capsys):
    (runs.parent / "study.py").write_text(STUDY.replace("0.2 *", "0.1 *"))
    spec = runs.parent / "shapes.yaml"
    spec.write_text(SWEEP.replace("4, 5]", "4, 5, 6]"))
    args = ["--executor", "local", "--workers", "1", "--wandb", "disabled"]
    process = gnbench("sweep", "shapes.yaml", *args, cwd=runs.parent)
    assert process.returncode == 0, process.stderr
    assert "24 results were made by other code than study.py@" in process.stderr
    assert run(["compare", "runs", "--json"]) == 0
    contrasts = json.loads(capsys.readouterr().out)["contrasts"]
    assert sorted(contrast["n_pairs"] for contrast in contrasts) == [1, 1, 6, 6]


def test_compare_answers_in_the_metric_that_the_sweep_goes_by(runs, capsys):
    assert run(["compare", "runs"]) == 0
    assert verdicts(capsys.readouterr().out) == VERDICTS
    assert run(["compare", "runs", "--metric", "hd95", "--goal", "minimize"]) == 0
    assert verdicts(capsys.readouterr().out) == VERDICTS
    assert run(["compare", "runs", "--metric", "hd95", "--goal", "maximize"]) == 0
    assert verdicts(capsys.readouterr().out) == VERDICTS | {1: "worse"}


def test_a_sweeps_goal_counts_against_what_a_name_tells(here, capsys):
    text = SWEEP.replace("dice, goal: maximize", "hd95, goal: minimize")
    (here / "shapes.yaml").write_text(text)
    args = ["sweep", "shapes.yaml", "--wandb", "disabled", "--executor", "local", "--workers", "1"]
    process = gnbench(*args, cwd=here)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[1].split()[:3] == ["1", "group-g4", "1"]
    assert run(["compare", "runs"]) == 0
    assert verdicts(capsys.readouterr().out) == VERDICTS


def test_a_setting_of_ones_own_is_an_arm_a_filter_and_a_claim(runs, capsys):
    assert run(["compare", "runs", "--arm", "width", "--where", "norm==group"]) == 0
    assert re.search(r"^\s*1 +6 .* better *$", capsys.readouterr().out, re.M)
    claim = ["--where", "width==1", "--claim", "group-g4 > batch"]
    assert run(["compare", "runs", *claim]) == 0
    assert capsys.readouterr().out.startswith("supported: group-g4 > batch")


def test_a_pack_of_it_answers_as_the_folder_does(runs, capsys):
    assert run(["pack", "runs", "-o", "runs.gnb"]) == 0
    capsys.readouterr()
    for words in ([], ["--where", "width==1"], ["--arm", "width", "--where", "norm==group"]):
        answers = []
        for place in ("runs", "runs.gnb"):
            assert run(["compare", place, "--json", *words]) == 0
            answers.append(capsys.readouterr().out)
        assert answers[0] == answers[1]


def test_status_show_and_report_tell_of_it(runs, capsys):
    assert run(["status", "runs"]) == 0
    assert "24 finished" in capsys.readouterr().out
    assert run(["show", str(next(runs.glob("group*width1*s3*")))]) == 0
    told = capsys.readouterr().out
    assert "trial=study:train, width=1" in told
    assert re.search(r"^  epoch +val/dice\n +1 +0\.7\d+$", told, re.M)
    assert "study.py@" in told
    assert run(["report", "runs", "--format", "md", "--out", "report.md"]) == 0
    report = (runs.parent / "report.md").read_text()
    assert "width" in report
    assert run(["report", "runs", "--out", "report.html"]) == 0
    page = (runs.parent / "report.html").read_text()
    assert "gainst batch size" not in page, "nobody knows of any"


def test_one_run_is_typed_with_settings_of_any_name(here, capsys):
    words = ["--norm", "group", "--groups", "8", "--set", "width=1", "--wandb", "disabled"]
    assert run(["train", "--trial", "study:train", *words, "--seed", "2"]) == 0
    told = capsys.readouterr()
    assert re.search(r"^  dice +0\.7\d+$", told.out, re.M)
    assert "torch, numpy and random are seeded with 2" in told.err
    assert re.search(r"^epoch +1  val/dice 0\.7", told.err, re.M)
    assert run(["train", "--trial", "study:train", *words, "--seed", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (here / "study.py").write_text(f"{STUDY}# changed\n")
    process = gnbench("train", "--trial", "study:train", *words, "--seed", "2", cwd=here)
    assert "was trained before; --force trains it again" in process.stderr
    assert "1 result was made by other code than study.py@" in process.stderr
    assert answer["config"] | {"width": 1, "num_groups": 8} == answer["config"]


def test_show_config_is_read_back_as_the_same_run(here, capsys):
    words = ["--set", "width=1", "--batch-size", "3", "--show-config"]
    assert run(["train", "--trial", "study:train", *words]) == 0
    told = capsys.readouterr().out
    (here / "mine.yaml").write_text(told)
    assert run(["train", "--config", "mine.yaml", "--show-config"]) == 0
    assert capsys.readouterr().out == told
    assert "epochs" not in told
    assert "batch_size: 3" in told


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (("study:train", "study:tarin"), "trial='study:tarin' cannot be imported: AttributeError"),
        (("study:train", "study"), "shapes.yaml:6 trial='study' is no function"),
        (('{value: "study:train"}', "{values: [a:b, c:d]}"), "shapes.yaml:6 trial is one function"),
        (("metric: {name: dice, goal: maximize}", ""), "has a trial and no metric"),
        ((", goal: maximize", ""), "metric dice has no goal, which to W&B means minimize"),
        (("dice, goal: maximize", "test/dice"), "would choose by the test set"),
        (("width:", "arm:"), "setting 'arm' is a word of gnbench's own"),
        (("values: [0, 1]", "values: [[0], [1]]"), "shapes.yaml:9 width"),
        (("[batch, group]", "[batch, grup]"), "shapes.yaml:7 norm: norm='grup' is unknown"),
        (("name: shapes", "trial: a:b"), "trial is there twice; keep one"),
    ],
)
def test_a_bad_sweep_of_a_trial_is_one_line_and_leaves_nothing(here, changed, complaint, capsys):
    (here / "shapes.yaml").write_text(SWEEP.replace(*changed))
    assert run(["sweep", "shapes.yaml", "--wandb", "disabled"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert complaint in told.err
    assert told.err.count("\n") == 1
    assert not (here / "runs").exists()


def test_a_question_may_hold_any_setting_as_the_arm(runs, capsys):
    question = runs.parent / "shapes.question.yaml"
    question.write_text("arm: width\nbaseline: '0'\n")
    assert run(["sweep", "shapes.yaml", "--wandb", "disabled"]) == 0
    assert run(["sweep", "shapes.yaml", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert run(["compare", "runs", "--json"]) == 0
    contrasts = json.loads(capsys.readouterr().out)["contrasts"]
    told = {(c["setting"]["norm"], c["arm"], c["baseline"], c["verdict"]) for c in contrasts}
    assert told == {("batch", "1", "0", "undecided"), ("group", "1", "0", "better")}
    assert {c["family"] for c in contrasts} == {"shapes"}
    assert run(["compare", "runs", "--arm", "norm"]) == 0
    assert verdicts(capsys.readouterr().out) == VERDICTS
    question.write_text("arm: widht\n")
    assert run(["sweep", "shapes.yaml", "--wandb", "disabled"]) == 2
    assert "shapes.question.yaml: arm='widht' is not swept; did you mean 'width'?" in (
        capsys.readouterr().err
    )


def test_arms_of_a_trial_are_not_tuned_by_a_metric_that_it_need_not_have(here, capsys):
    question = "tune: {settings: {lr: [0.1, 0.2]}, seeds: [1000]}\n"
    (here / "shapes.question.yaml").write_text(question)
    assert run(["sweep", "shapes.yaml", "--wandb", "disabled"]) == 2
    assert "tune chooses by val/accuracy, which study:train need not" in capsys.readouterr().err


def test_typed_lists_of_a_trial_are_refused_for_they_name_no_metric(here, capsys):
    words = ["--norm", "batch,group", "--set", "width=1", "--wandb", "disabled"]
    assert run(["sweep", "--trial", "study:train", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: trial='study:train' beside typed lists: nothing says")
    assert told.count("\n") == 1
    assert not (here / "runs").exists()


def test_the_trial_may_stand_above_the_parameters_or_be_typed(here, capsys):
    above = SWEEP.replace('  trial: {value: "study:train"}\n', "")
    for text, typed in ((f"trial: study:train\n{above}", []), (above, ["--trial", "study:train"])):
        (here / "shapes.yaml").write_text(text)
        assert run(["sweep", "shapes.yaml", *typed, "--dry-run", "--json"]) == 0
        raw = read_spec(here / "shapes.yaml", *typed[1:]).raw
        assert ("trial" in raw, raw["parameters"]["trial"]) == (False, {"value": "study:train"})
        plan = json.loads(capsys.readouterr().out)
        assert plan["runs"] == 24 or len(plan["runs"]) == 24


def test_a_run_that_failed_is_told_in_one_line(here, capsys):
    (here / "study.py").write_text("def train(run):\n    raise OSError('no masks')\n")
    assert run(["train", "--trial", "study:train", "--wandb", "disabled"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("error: trial='study:train' raised OSError: no masks; see ")
    assert "Traceback" not in "".join(told)


def test_what_a_result_was_made_to_say_is_text_when_the_run_is_typed_again(here, capsys):
    """A word in place of a number ended in a traceback; so did a number that is not there."""
    for name, words in (
        ("study:train", ["--trial", "study:train", "--set", "width=1"]),
        ("val/accuracy", ["--max-steps", "1", "--train-limit", "40", "--dataset", "mnist-5k"]),
    ):
        assert run(["train", *words, "--batch-size", "8", "--wandb", "disabled", "--out", "r"]) == 0
        for path in (here / "r").glob("*/result.json"):
            document = json.loads(path.read_text())
            document["summary"] = {"status": "finished", "dice": "\x1b[2Jx", "n": [1], name: None}
            path.write_text(json.dumps(document))
        capsys.readouterr()
        assert run(["train", *words, "--batch-size", "8", "--wandb", "disabled", "--out", "r"]) == 0
        told = capsys.readouterr().out
        assert "  dice           \\x1b[2Jx\n  n              [1]\n" in told


@pytest.mark.parametrize("command", ["dashboard", "publish"])
@pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # on import
def test_panels_on_wandb_draw_what_the_trial_measured_and_swept(swept, command, capsys):
    folder, _ = swept
    capsys.readouterr()
    assert run([command, str(folder / "runs"), "--dry-run"]) == 0
    spec = capsys.readouterr().out
    assert '"summary:dice"' in spec
    assert '"config:width.value"' in spec
    assert "accuracy" not in spec
    assert "batch_size" not in spec
    assert ('"val/dice"' in spec) == (command == "dashboard")  # what the runs logged

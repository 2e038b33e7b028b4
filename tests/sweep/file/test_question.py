"""The question beside a sweep file: read with its line, and out of the way of W&B's tools."""

from __future__ import annotations

import json
import re

import pytest

from groupnorm_bench.compare.question import Question
from groupnorm_bench.errors import SweepError
from groupnorm_bench.sweep.executors.wandb.sweep_config import compile_plan, describe_question
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.describe import count_contrasts
from groupnorm_bench.sweep.plan.plan import build_plan

FILE = """
method: grid
parameters:
  norm: {values: [none, batch, group]}
  batch_size: {values: [8, 32]}
  dataset: {value: mnist-5k}
"""


def spec_with(tmp_path, question, file=FILE):
    (tmp_path / "s.yaml").write_text(file)
    (tmp_path / "s.question.yaml").write_text(question)
    return read_spec(tmp_path / "s.yaml")


def test_a_sweep_without_one_has_none(tmp_path):
    (tmp_path / "s.yaml").write_text(FILE)
    assert read_spec(tmp_path / "s.yaml").question is None


@pytest.mark.parametrize(
    ("question", "contrasts"),
    [
        ("{margin: 0.2}", 4),
        ("{arms: [group-g8], baseline: none}", 2),
        ("{decide: mean}", 2),
        ("{decide: slope, arms: [group-g8]}", 1),
    ],
)
def test_the_plan_counts_the_contrasts_that_it_asks_for(tmp_path, question, contrasts):
    assert count_contrasts(build_plan(spec_with(tmp_path, question))) == contrasts


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("margin: 0.2\nalpha: 7\n", "s.question.yaml:2 alpha=7 is not between 0 and 1"),
        ("margim: 0.2\n", "s.question.yaml:1 unknown key 'margim' in question; did you mean"),
        ("alpha: 0.1\ntune: {}\n", "s.question.yaml:2 tune settings=None names none"),
        ("[1]", "s.question.yaml holds a list or one value"),
        ("", "s.question.yaml is empty"),
        ("first_look: 5\nmax_seeds: 2\n", "yaml:2 max_seeds=2 is less than first_look=5"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(tmp_path, question, message):
    with pytest.raises(SweepError, match=re.escape(message)):
        spec_with(tmp_path, question)


def test_inside_the_sweep_file_it_is_refused_with_the_place_for_it(tmp_path):
    with pytest.raises(SweepError, match=re.escape("write it into a file beside this one")):
        spec_with(tmp_path, "{}", FILE + "question: {margin: 0.1}\n")


def test_a_question_that_is_a_folder_or_a_dead_link_is_not_passed_over(tmp_path):
    (tmp_path / "s.yaml").write_text(FILE)
    (tmp_path / "s.question.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(SweepError, match=r"s\.question\.yaml: No such file"):
        read_spec(tmp_path / "s.yaml")


def test_wandb_is_told_it_in_the_description(tmp_path):
    asked = "{baseline: batch, margin: 0.2, arms: [group-g8]}"
    spec = spec_with(tmp_path, asked, "description: norms" + FILE)
    words, told = describe_question(spec).split("\n\nquestion: ")
    assert words == "norms"
    assert Question.from_mapping(json.loads(told)) == spec.question
    assert compile_plan(spec, build_plan(spec).runs)["description"].startswith("norms\n\nquest")

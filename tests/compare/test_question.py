"""The question block: what it may say, and what is refused by name."""

from __future__ import annotations

import json
import re

import pytest

from groupnorm_bench.compare.question import Question
from groupnorm_bench.errors import CompareError

WRITTEN = {
    "baseline": "batch",
    "arms": ["group-g8", "layer"],
    "metric": "val/accuracy",
    "margin": 0.2,
    "decide": "slope",
    "alpha": 0.01,
    "first_look": 8,
    "max_seeds": 40,
    "until_decided": True,
    "tune": {"settings": {"lr": [0.001, 0.003]}, "seeds": [1000, 1001]},
}


@pytest.mark.parametrize("written", [{}, WRITTEN, {"margin": 1.0}, {"arms": ["layer"]}])
def test_a_question_comes_back_from_json_as_it_was_written(written):
    question = Question.from_mapping(written)
    assert question.to_dict() == written
    assert Question.from_mapping(json.loads(json.dumps(question.to_dict()))) == question


REFUSED = [
    ({"base": "batch"}, "unknown key 'base' in question; did you mean 'baseline'?"),
    ({"alpha": 0}, "alpha=0 is not between 0 and 1"),
    ({"alpha": "x"}, "alpha=x is not between 0 and 1"),
    ({"margin": -1}, "margin=-1.0 is not a number from 0 on"),
    ({"margin": True}, "margin=True is not a number from 0 on"),
    ({"decide": "eech"}, "decide='eech' is unknown; did you mean 'each'?"),
    ({"first_look": 1}, "first_look=1 is not a number of pairs from 2 on"),
    ({"max_seeds": 2.5}, "max_seeds=2.5 is not a number of seeds"),
    ({"arms": "layer"}, "arms='layer' is no list of arms"),
    ({"arms": []}, "arms=[] is no list of arms"),
    ({"arms": [3]}, "arm=3 is not an arm's name"),
    ({"baseline": "layer", "arms": ["layer"]}, "baseline='layer' is among the arms"),
    ({"metric": 3}, "metric=3 is not a metric's name"),
    ({"until_decided": "yes"}, "until_decided='yes' is not true or false"),
    ({"tune": 3}, "tune=3 needs settings and seeds"),
    ({"tune": {"lr": [1]}}, "unknown key 'lr' in tune; use one of settings, seeds"),
    ({"tune": {"settings": {}, "seeds": [1]}}, "tune settings={} names none"),
    ({"tune": {"settings": {"lr": [1]}, "seeds": [1]}}, "tune lr=[1] is no choice"),
    ({"tune": {"settings": {"lr": [1, 2]}, "seeds": [-1]}}, "tune seeds=[-1] are no seeds"),
    ({"tune": {"settings": {"lr": [1, 2]}}}, "tune seeds=None are no seeds"),
]


@pytest.mark.parametrize(("written", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_by_name(written, message):
    with pytest.raises(CompareError, match=re.escape(message)):
        Question.from_mapping(written)

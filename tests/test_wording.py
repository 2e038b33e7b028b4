"""Values and amounts as a person reads them: the examples in `wording.py` hold."""

from __future__ import annotations

import doctest

import pytest

from groupnorm_bench import wording


def test_the_examples_hold():
    failed, tried = doctest.testmod(wording)
    assert (failed, tried) == (0, 7)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (99, "99 s"), (600, "10 min"), (36000, "10.0 h")]
)
def test_durations_are_as_a_person_says_them(seconds: float, text: str):
    assert wording.duration(seconds) == text

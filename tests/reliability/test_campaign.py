"""The crash campaign, sampled; in full: `python -m tests.reliability.campaign train --all`."""

import pytest

from tests.reliability import faults
from tests.reliability.campaign import run_campaign, summary

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(faults.compiler() is None, reason="there is no C compiler"),
]


@pytest.mark.parametrize(("what", "sample"), [("train", 40), ("sweep", 24)])
def test_after_a_fault_nothing_is_lost_or_trained_twice_or_left_over(what, sample):
    cases, references = run_campaign(what, sample=sample)
    assert len(cases) == sample
    bad = [str(case) for case in cases if case.problems]
    assert not bad, "\n".join([summary(what, cases, references), *bad])

"""The journal of a campaign: what it holds is not played again; other code begins anew."""

import json

import pytest

from tests.reliability.campaign import Case, Reference, Scene, _journaled
from tests.reliability.faults import Call, Fault
from tests.reliability.journal import Journal, fingerprint


def test_a_campaign_that_is_typed_again_goes_on(tmp_path):
    path = tmp_path / "deep" / "train.jsonl"
    journal = Journal(path, "train")
    journal.add("fresh:KILL@1", {"lost": []})
    journal.add("fresh:EIO+@2", {"lost": ["a is missing"]})
    with path.open("a") as file:
        file.write('{"name": "fresh:KI')  # stopped in the middle of a line
    again = Journal(path, "train")
    assert list(again.done) == ["fresh:KILL@1", "fresh:EIO+@2"]
    again.add("fresh:KILL@3", {"lost": []})
    assert [json.loads(line).get("name") for line in path.read_text().splitlines()] == [
        None, "fresh:KILL@1", "fresh:EIO+@2", "fresh:KILL@3",
    ]  # fmt: skip


def test_cases_of_other_code_or_of_another_command_are_not_taken_up(tmp_path):
    Journal(tmp_path / "journal", "train", code="1234")
    for what, code in (("train", "5678"), ("sync", "1234")):
        with pytest.raises(ValueError, match="other code; move it away"):
            Journal(tmp_path / "journal", what, code=code)
    assert len(fingerprint()) == 16


def test_a_case_in_the_journal_is_as_it_was_found(tmp_path):
    call = Call(1, 7, "write", tmp_path / "result.json", tmp_path)
    reference = Reference(Scene("fresh", ("train",)), tmp_path, [call], {}, set(), {})
    case = Case("fresh", Fault("TORN", 1), call, lost=["a"], told=["hangs"], reached=False)
    journal = Journal(tmp_path / "journal", "train")
    assert _journaled(reference, case.fault, journal) is None
    journal.add(case.name, case.verdict())
    assert _journaled(reference, case.fault, Journal(journal.path, "train")) == case


@pytest.mark.parametrize(("processes", "kinds"), [((7, 7), "KT"), ((7, 8), "CKT")])
def test_a_group_is_killed_where_several_processes_make_the_calls(tmp_path, processes, kinds):
    calls = [
        Call(i + 1, process, "write", tmp_path, tmp_path) for i, process in enumerate(processes)
    ]
    reference = Reference(Scene("fresh", ("train",)), tmp_path, calls, {}, set(), {})
    faults = reference.faults()
    assert "".join(sorted(f.kind[0] for f in faults if f.at == 2 and f.kind[0] != "E")) == kinds
    assert {fault.at for fault in faults[:2]} == {1, 2}  # every call before any has its second

"""Good neighbours: threads sleep where they wait, in `gnbench` and in its children."""

import os
import subprocess
import sys

import pytest

from groupnorm_bench.processors import available, wait_without_spinning

CHILD = """
import subprocess, sys
import groupnorm_bench.cli

app = sys.modules["groupnorm_bench.cli.app"]

def run(args):
    code = "import os; print(os.environ['OMP_WAIT_POLICY'])"
    subprocess.run([sys.executable, "-c", code], check=True)
    return 0

app.run = run
app.main()
"""


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_gnbench_and_its_children_do_not_spin_unless_the_user_wants_to(own):
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY",)}
    if own is not None:
        environment["OMP_WAIT_POLICY"] = own
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == (own or "PASSIVE")


def test_nothing_that_is_set_is_changed():
    environment = {"KMP_BLOCKTIME": "7"}
    wait_without_spinning(environment)
    assert environment == {"KMP_BLOCKTIME": "7", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_mask_of_processors_is_heeded():
    code = "from groupnorm_bench.processors import available; print(available())"
    mask = {min(os.sched_getaffinity(0))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, mask),
    )
    assert int(done.stdout) == 1 <= available()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="torch takes no more threads than that")
@pytest.mark.parametrize(
    ("asked", "told", "given"), [(None, None, 1), (2, None, 2), (None, "2", 2), (2, "1", 2)]
)
def test_a_cpu_quota_bounds_the_threads_that_nobody_asked_for(asked, told, given):
    code = (
        "import torch\nfrom groupnorm_bench import processors\n"
        "before = torch.get_num_threads()\nprocessors.available = lambda: 1\n"
        f"processors.give_torch_threads({asked})\nprint(torch.get_num_threads())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {} if told is None else {"OMP_NUM_THREADS": told}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) == given


def test_doctor_tells_of_processors_that_are_not_ours(monkeypatch):
    from groupnorm_bench.cli import doctor

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for ours, word in ((8, ""), (2, "may use 2 of them")):
        monkeypatch.setattr(doctor, "available", lambda ours=ours: ours)
        finding = doctor._threads(2)
        assert finding.found == "2 of 8 processors"
        assert word in finding.advice
        assert bool(finding.advice) == (ours < 8)

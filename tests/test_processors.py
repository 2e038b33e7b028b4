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

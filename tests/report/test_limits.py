"""What a report of 2,000 runs x 20 epochs may cost."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.run_folders import arms, make_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_report_of_two_thousand_runs_holds_its_limits(tmp_path: Path):
    folders = make_runs(
        tmp_path / "runs",
        arms=arms(),
        batch_sizes=(2, 4, 8, 16, 32),
        seeds=8,
        lrs=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        epochs=20,
        dataset="mnist",
    )
    assert len(folders) == 2_000
    page = tmp_path / "page.html"
    code = (
        "import resource, sys; from groupnorm_bench.cli.app import run; "
        f"assert run(['report', {str(tmp_path / 'runs')!r}, '--out', {str(page)!r}]) == 0; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kilobytes = int(done.stdout.split()[-1])
    assert seconds < 20  # of one processor: the machine may have other work
    assert kilobytes < 1.5e6
    assert page.stat().st_size < 15e6

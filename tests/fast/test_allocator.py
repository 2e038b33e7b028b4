"""Memory is kept from step to step."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from groupnorm_bench.fast import allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10 * 2**20)  # 40 MB: glibc's own threshold never grows beyond 32
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{first}
faults()
print(faults())
"""


def faults_of_ten_steps(first: str) -> int:
    command = [sys.executable, "-c", STEPS.format(first=first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's allocator")
def test_what_a_step_frees_the_next_one_finds_without_page_faults():
    kept, given_back = faults_of_ten_steps("allocator.keep_freed()"), faults_of_ten_steps("")
    assert kept < 20 <= 200 <= given_back  # 20 pages of 2 MB a tensor, 10,000 of 4 kB


def test_other_systems_are_left_alone(monkeypatch):
    from groupnorm_bench.fast import allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    allocator.keep_freed()

"""Memory is kept from step to step."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from groupnorm_bench import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tensors = [torch.ones(2**21) for _ in range(4)]  # 8 MB each
        del tensors
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
    assert faults_of_ten_steps("memory.keep_freed()") < 1_000 < faults_of_ten_steps("")


def test_other_systems_are_left_alone(monkeypatch):
    from groupnorm_bench import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed()

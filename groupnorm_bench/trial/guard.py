"""What a function of the user's own may leave changed, put back: the next run is not to feel it."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

from groupnorm_bench.tracking.options import Say
from groupnorm_bench.training.build import seeded


@contextlib.contextmanager
def guarded(seed: int, what: str, say: Say) -> Iterator[None]:
    """Seed torch, numpy and random; afterwards say what the body left otherwise, and mend it.

    What it prints goes to stderr; a process that it forked ends where the body ends.

    Args:
        seed: of the run.
        what: the function's name, for messages.
        say: called with a line for whatever has an effect on the results.
    """
    with stdout_on_stderr(), _working_folder(what, say), _torch_state(), seeded(seed):
        with _process():
            yield
        _tell_of_seeds(seed, what, say)
    _tell_of_memory(what, say)


@contextlib.contextmanager
def _process() -> Iterator[None]:
    """End a forked child of the body here: it would write the parent's run folder."""
    ours = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != ours:
            os._exit(0)


@contextlib.contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """Send what the body and its processes print to stderr: stdout is the command's answer."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _working_folder(what: str, say: Say) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY)
    try:
        yield
    finally:
        try:
            left = not os.path.samestat(os.stat("."), os.fstat(before))
        except OSError:  # it is gone
            left = True
        if left:
            os.fchdir(before)
            say(f"{what} changed the working directory; changed back")
        os.close(before)


@contextlib.contextmanager
def _torch_state() -> Iterator[None]:
    """Put back what torch keeps for the whole process."""
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    device, cudnn = torch.get_default_device(), torch.backends.cudnn
    cudnn_modes = cudnn.benchmark, cudnn.deterministic
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        cudnn.benchmark, cudnn.deterministic = cudnn_modes
        if torch.are_deterministic_algorithms_enabled() != is_deterministic:  # imports a lot
            torch.use_deterministic_algorithms(is_deterministic)


def _tell_of_seeds(seed: int, what: str, say: Say) -> None:
    import torch

    torch_seed = torch.initial_seed()
    if torch_seed != seed:
        say(
            f"{what} seeded torch anew, with {torch_seed} where the run's seed is {seed}: unless "
            "that follows from run.seed, seeds are no repeats"
        )


def _tell_of_memory(what: str, say: Say) -> None:
    """Free what the function let go of on a GPU; tell of what it did not."""
    import torch

    if not torch.cuda.is_initialized():
        return
    gc.collect()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_allocated() / 2**20
    if left >= 1:
        say(f"{what} left {left:,.0f} MB on the GPU, which the next run will lack")

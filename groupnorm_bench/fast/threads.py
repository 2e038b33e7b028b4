"""Threads of our own, which share what compiled loops do.

torch's own threads spin for some milliseconds after each operation, on the cores that ours need
then: both at once are slower than one. So torch runs on one thread where ours share.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch

from groupnorm_bench.fast.compiler import kernels

MIN_SHARED_BATCH = 16
"""Images of a batch from which threads are faster than one, torch's as ours
(docs/performance.md)."""
_MAX_THREADS = 4
"""Threads that share a batch at most: they are handed their parts one after the other, and more
than two were not measured."""
_WINDOW, _REST = 0.1, 1.0
"""Seconds over which it is seen whether helpers pay, and for which they rest if not."""
_LEAST, _STEP = 0.25, 0.8
"""The least part that a helper is given, of an equal one, and how it gets there."""
_MUCH, _LITTLE = 0.2, 0.05
"""Waiting for helpers, as a fraction of our own part: they get less from there on, or more."""


def for_batches(batch_size: int) -> contextlib.AbstractContextManager[None]:
    """Return the context in which batches of this size run: `sharing` where that is faster.

    Else on one thread, torch's operations too: so no bit depends on the number of threads.
    """
    return sharing(_MAX_THREADS if batch_size >= MIN_SHARED_BATCH else 1)


@contextlib.contextmanager
def sharing(max_threads: int = _MAX_THREADS) -> Iterator[None]:
    """Have threads of ours share what `share` is given, and torch use one.

    They are as many as torch had, and `max_threads` at most.
    """
    num_threads = torch.get_num_threads()
    before = len(_helpers)
    try:
        torch.set_num_threads(1)
        for _ in range(min(num_threads, max_threads) - 1):
            _helpers.append(_Helper())
        yield
    finally:
        torch.set_num_threads(num_threads)
        while len(_helpers) > before:
            _helpers.pop().stop()


class _Helper:
    """A thread that runs what it is handed, and one that keeps a core awake for it.

    Waking a core that has gone idle takes longer than some loops, and a training step hands out
    work 6 to 10 times: the second thread counts, at the lowest priority, while nothing is to do.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        self._flags = np.zeros(2, np.int64)  # stop; counts
        self._worker = Thread(target=self._work, daemon=True)
        self._waker = Thread(target=self._stay_awake, daemon=True)
        if hasattr(os, "SCHED_IDLE"):
            self._waker.start()
        self._worker.start()
        self.leave()

    def leave(self) -> None:
        """Keep off the core of the calling thread, which is the one that hands out work.

        Where something keeps the other core awake, though at the lowest priority, Linux wakes the
        helper on ours, for 0.1 s and longer: steps took nearly twice as long (docs/performance.md).
        """
        if not hasattr(os, "sched_setaffinity"):
            return
        with contextlib.suppress(OSError):  # no /proc, or forbidden here: the system chooses
            elsewhere = os.sched_getaffinity(0) - {_core()}
            for thread in (self._worker, self._waker):
                if elsewhere and thread.native_id is not None:
                    os.sched_setaffinity(thread.native_id, elsewhere)

    def hand(self, job: Callable[[], Any]) -> None:
        self._jobs.put(job)

    def outcome(self) -> tuple[Any, Exception | None]:
        """Wait for what the job handed last returned or raised."""
        return self._outcomes.get()

    def stop(self) -> None:
        self._jobs.put(None)
        self._worker.join()
        self._flags[0] = 1
        if self._waker.ident is not None and self._schedule(0):
            self._waker.join()  # else it ends by itself, when the lowest priority has its turn

    def _work(self) -> None:
        torch.set_num_threads(1)
        if self._waker.ident is not None:
            self._lower_waker()
        while (job := self._jobs.get()) is not None:
            try:
                self._outcomes.put((job(), None))
            except Exception as error:  # raised again where the result is waited for
                self._outcomes.put((None, error))

    def _lower_waker(self) -> None:
        """Give it the lowest priority once it counts, and so holds no lock of the interpreter.

        One that had it earlier could be left waiting for its turn, beside busy processes, with
        that lock: for up to a second, and this whole process with it.
        """
        while self._flags[1] == 0 and self._waker.is_alive():
            time.sleep(0.0005)
        if not self._schedule(os.SCHED_IDLE):
            self._flags[0] = 1  # forbidden here: at its usual priority it would hold up others

    def _schedule(self, policy: int) -> bool:
        """Return whether the waker could be given this policy; 0 is the usual one."""
        assert self._waker.native_id is not None
        try:
            os.sched_setscheduler(self._waker.native_id, policy, os.sched_param(0))
        except OSError:
            return False
        return True

    def _stay_awake(self) -> None:
        kernels().stay_awake(self._flags, 1)


def _core() -> int:
    """Return the number of the processor that the calling thread is on, on Linux."""
    stat = Path("/proc/thread-self/stat").read_text()
    return int(stat.rpartition(")")[2].split()[36])  # proc(5)


class _Watch:
    """How much helpers do: less where somebody else keeps their cores busy, and holds us up.

    A helper beside a busy process has half a core. It gets the smaller part that it ends as soon
    as we end ours; where even the least of it takes longer than it would here, a training goes on
    alone, and looks again every second. Its bits stay the same.
    """

    def __init__(self) -> None:
        self._own = self._waited = self._resumes = 0.0
        self._part = 1.0  # that a helper does, of an equal one

    def helpers(self) -> list[_Helper]:
        """Return the helpers to hand parts to."""
        return _helpers if time.perf_counter() >= self._resumes else []

    def cut(self, total: int, num_helpers: int) -> list[int]:
        """Return where ranges of `total` end, ours first; none is empty."""
        each = max(int(self._part * total / (num_helpers + 1)), 1)
        return [0, *(total - each * i for i in range(num_helpers, -1, -1))]

    def account(self, own: float, waited: float, helpers: Sequence[_Helper]) -> None:
        """Count the seconds of our own part of some work, and those waited for the helpers."""
        self._own += own
        self._waited += waited
        if self._own + self._waited <= _WINDOW:
            return
        theirs = self._part * len(helpers) / (len(helpers) + 1)
        is_much = self._waited > _MUCH * self._own
        if is_much:  # it may be us who is on their core
            for helper in helpers:
                helper.leave()
        if self._waited < _LITTLE * self._own:
            self._part = min(self._part / _STEP, 1.0)
        elif self._part > _LEAST and is_much:
            self._part = max(self._part * _STEP, _LEAST)
        elif self._part == _LEAST and self._waited > self._own * theirs / (1 - theirs):
            self._resumes = time.perf_counter() + _REST
        self._own = self._waited = 0.0


_helpers: list[_Helper] = []
_watch = _Watch()


def share(
    function: Callable[..., Any], length: int, *arguments: Any, num_parts: int | None = None
) -> list[Any]:
    """Return the results of function(*arguments, first, last) over parts of range(length).

    A part for each thread within `sharing`, else a single one; or `num_parts`, whoever does them,
    or as many as `length`.
    """
    total = length if num_parts is None else min(num_parts, length)
    helpers = _watch.helpers()[: max(total - 1, 0)] if _helpers else []
    if not helpers and num_parts is None:
        return [function(*arguments, 0, length)]
    ranges = list(itertools.pairwise(_watch.cut(total, len(helpers))))
    shares = [[each] for each in ranges]
    if num_parts is not None:
        parts = list(itertools.pairwise(length * i // total for i in range(total + 1)))
        shares = [parts[first:last] for first, last in ranges]
    if not helpers:
        return _do(function, arguments, shares[0])
    jobs = [partial(_do, function, arguments, parts) for parts in shares]
    for helper, job in zip(helpers, jobs[1:], strict=True):
        helper.hand(job)
    started = time.perf_counter()
    try:
        results = jobs[0]()
    finally:
        done = time.perf_counter()
        outcomes = [helper.outcome() for helper in helpers]  # of all, also after an error
    _watch.account(done - started, time.perf_counter() - done, helpers)
    for result, error in outcomes:
        if error is not None:
            raise error
        results += result
    return results


def _do(
    function: Callable[..., Any], arguments: tuple[Any, ...], parts: list[tuple[int, int]]
) -> list[Any]:
    return [function(*arguments, first, last) for first, last in parts]

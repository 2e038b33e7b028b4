"""Threads of our own, which share a batch: compiled loops, and products of matrices.

torch's own threads spin for some milliseconds after each operation, on the cores that ours need
then: both at once are slower than one. So torch runs on one thread where ours share.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

MIN_SHARED_BATCH = 16
"""Images of a batch from which our own threads are faster than torch's (docs/performance.md)."""
MAX_THREADS = 4
"""Threads that share a batch at most: they are handed their parts one after the other, and more
than two were not measured."""


def for_batches(use_loops: bool, batch_size: int) -> contextlib.AbstractContextManager[None]:
    """Return the context in which batches of this size run: `sharing` where that is faster."""
    fits = use_loops and batch_size >= MIN_SHARED_BATCH
    return sharing() if fits else contextlib.nullcontext()


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Have threads of ours share what `share` and `multiply` are given, and torch use one."""
    num_threads = torch.get_num_threads()
    before = len(_helpers)
    try:
        torch.set_num_threads(1)
        for _ in range(min(num_threads, MAX_THREADS) - 1):
            _helpers.append(_Helper())
        yield
    finally:
        torch.set_num_threads(num_threads)
        while len(_helpers) > before:
            _helpers.pop().stop()


class _Helper:
    """A thread that runs what it is handed, and one that keeps a core awake for it.

    Waking a core that has gone idle takes longer than some loops, and a training step hands out
    work some 15 times: the second thread counts, at the lowest priority, while nothing is to do.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        self._flags = np.zeros(2, np.int64)
        self._threads = [Thread(target=self._work, daemon=True)]
        if hasattr(os, "SCHED_IDLE"):
            self._threads.append(Thread(target=self._stay_awake, daemon=True))
        for thread in self._threads:
            thread.start()

    def hand(self, job: Callable[[], Any]) -> None:
        self._jobs.put(job)

    def outcome(self) -> tuple[Any, Exception | None]:
        """Wait for what the job handed last returned or raised."""
        return self._outcomes.get()

    def stop(self) -> None:
        self._jobs.put(None)
        self._flags[0] = 1
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)
        while (job := self._jobs.get()) is not None:
            try:
                self._outcomes.put((job(), None))
            except Exception as error:  # raised again where the result is waited for
                self._outcomes.put((None, error))

    def _stay_awake(self) -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError:  # forbidden here: at its usual priority it would hold up others
            return
        from groupnorm_bench.fast.kernels import stay_awake

        stay_awake(self._flags, 1)


_helpers: list[_Helper] = []


def share(function: Callable[..., Any], length: int, *arguments: Any) -> list[Any]:
    """Return the results of function(*arguments, first, last) over parts of range(length).

    One part for each thread within `sharing`, else a single one.
    """
    helpers = _helpers[: max(length - 1, 0)]
    parts = len(helpers) + 1
    bounds = [length * i // parts for i in range(parts + 1)]
    for helper, (first, last) in zip(helpers, itertools.pairwise(bounds[1:]), strict=True):
        helper.hand(partial(function, *arguments, first, last))
    try:
        results = [function(*arguments, 0, bounds[1])]
    finally:
        outcomes = [helper.outcome() for helper in helpers]  # of all, also after an error
    for result, error in outcomes:
        if error is not None:
            raise error
        results.append(result)
    return results


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right for batches of matrices; the batch is shared."""
    product = left.new_empty(len(left), left.shape[1], right.shape[2])
    share(_multiply, len(left), left, right, product)
    return product


def _multiply(left: Tensor, right: Tensor, product: Tensor, first: int, last: int) -> None:
    torch.bmm(left[first:last], right[first:last], out=product[first:last])

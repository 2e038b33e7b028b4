"""Threads of our own: they share a batch, change nothing, and end."""

import os
import threading
import time

import pytest
import torch
from torch import nn

from groupnorm_bench.fast import blocks, compiler, convolution, threads
from groupnorm_bench.fast.chain import Chain


@pytest.fixture(autouse=True)
def prepared():
    assert compiler.prepare(compiler.kernels().KINDS) == ("compile on", True)


@pytest.fixture
def three_threads(monkeypatch):
    """Three threads with equal parts, however busy this machine is or was."""

    class Watch(threads._Watch):
        def account(self, own, waited, helpers):
            pass

    monkeypatch.setattr(threads, "_watch", Watch())
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_share_a_batch_and_change_nothing(three_threads):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(32, 64, 5, padding=2), nn.GroupNorm(8, 64)
    images = torch.randn(threads.MIN_SHARED_BATCH, 32, 14, 14)
    num_before = threading.active_count()
    grads = []
    for batch_size in (threads.MIN_SHARED_BATCH - 1, threads.MIN_SHARED_BATCH):
        with threads.for_batches(batch_size):
            workers = threads.share(lambda first, last: threading.get_ident(), len(images))
            assert len(set(workers)) == len(workers) == (3 if grads else 1)
            assert torch.get_num_threads() == 1
            inputs = images.clone().requires_grad_()
            chain = Chain(inputs)
            assert chain.add(convolution.link(conv, rounds=False))
            assert chain.add(blocks.link(norm))
            pooled = chain.run()
            grads.append(torch.autograd.grad(pooled.square().sum(), [inputs, *conv.parameters()]))
        assert torch.get_num_threads() == 3
        assert threading.active_count() == num_before
    for alone, shared in zip(*grads, strict=True):
        torch.testing.assert_close(alone, shared, rtol=0, atol=1e-6 * alone.abs().max().item())


def test_a_part_is_never_empty_and_its_error_is_raised(three_threads):
    def first_of(first, last):
        if first == 1:
            raise ArithmeticError("in a helper")
        return first, last

    with threads.sharing():
        assert threads.share(lambda first, last: (first, last), 2) == [(0, 1), (1, 2)]
        assert threads.share(lambda first, last: (first, last), 1) == [(0, 1)]
        with pytest.raises(ArithmeticError, match="in a helper"):
            threads.share(first_of, 3)
        with pytest.raises(ZeroDivisionError):
            threads.share(lambda first, last: 1 // first, 3)
        assert threads.share(lambda first, last: (first, last), 6) == [(0, 2), (2, 4), (4, 6)]


def test_partial_sums_are_the_same_on_any_number_of_threads(three_threads):
    def parts(length):
        return threads.share(lambda first, last: (first, last), length, num_parts=4)

    for length in (2, 3, 10):
        alone = parts(length)
        assert len(alone) == min(4, length)
        with threads.sharing():
            assert parts(length) == alone


def test_helpers_that_are_waited_for_do_less_then_rest_and_come_back(three_threads, monkeypatch):
    watch = threads._Watch()
    monkeypatch.setattr(threads, "_watch", watch)
    monkeypatch.setattr(threads, "_REST", 60.0)
    with threads.sharing():
        assert watch.cut(60, 2) == [0, 20, 40, 60]
        watch.account(0.2, 0.03, threads._helpers)  # neither much nor little
        assert watch.cut(60, 2) == [0, 20, 40, 60]
        watch.account(0.2, 0.1, threads._helpers)
        assert watch.cut(60, 2) == [0, 28, 44, 60]
        watch.account(0.2, 0.005, threads._helpers)  # they end before we do
        assert watch.cut(60, 2) == [0, 20, 40, 60]
        for _ in range(7):
            assert len(watch.helpers()) == 2
            watch.account(0.1, 0.3, threads._helpers)
        assert watch.cut(60, 2) == [0, 50, 55, 60]
        watch.account(0.2, 0.035, threads._helpers)  # pays: alone it would have taken 0.24
        assert len(watch.helpers()) == 2
        watch.account(0.2, 0.045, threads._helpers)
        assert watch.helpers() == []
        assert threads.share(lambda first, last: (first, last), 6) == [(0, 6)]
        watch._resumes = 0.0  # as a second later
        assert len(watch.helpers()) == 2


def test_what_helpers_do_is_never_nothing(three_threads, monkeypatch):
    monkeypatch.setattr(threads._watch, "_part", threads._LEAST)
    with threads.sharing():
        for length in (1, 2, 3, 5, 40):
            parts = threads.share(lambda first, last: (first, last), length)
            assert [a for a, _ in parts] + [length] == [0] + [b for _, b in parts]
            assert all(first < last for first, last in parts)
            assert len(parts) == min(length, 3)
        numbered = threads.share(lambda first, last: (first, last), 40, num_parts=4)
        assert numbered == [(0, 10), (10, 20), (20, 30), (30, 40)]


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there is no other core",
)
def test_helpers_keep_off_the_core_that_hands_out_work_and_look_again(three_threads, monkeypatch):
    watch = threads._Watch()
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    monkeypatch.setattr(threads, "_core", lambda: core)
    with threads.sharing():
        ids = [each._worker.native_id for each in threads._helpers]
        ids += [each._waker.native_id for each in threads._helpers if each._waker.ident]
        assert all(os.sched_getaffinity(each) == allowed - {core} for each in ids)
        core = max(allowed)
        watch.account(0.2, 0.03, threads._helpers)  # little is waited for
        assert all(core in os.sched_getaffinity(each) for each in ids)
        watch.account(0.2, 0.1, threads._helpers)
        assert all(os.sched_getaffinity(each) == allowed - {core} for each in ids)
    assert os.sched_getaffinity(0) == allowed


def test_where_nobody_tells_the_core_helpers_do_their_part_all_the_same(three_threads, monkeypatch):
    def fail():
        raise FileNotFoundError("/proc/thread-self/stat")

    monkeypatch.setattr(threads, "_core", fail)
    with threads.sharing():
        assert len(threads.share(lambda first, last: (first, last), 6)) == 3


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle priority")
def test_what_keeps_a_core_awake_has_the_lowest_priority_only_while_it_holds_no_lock(three_threads):
    began = []

    class Helper(threads._Helper):
        def _stay_awake(self):
            began.append(os.sched_getscheduler(0))
            super()._stay_awake()

    helper = Helper()
    deadline = time.monotonic() + 20
    while os.sched_getscheduler(helper._waker.native_id) != os.SCHED_IDLE:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert helper._flags[1] > 0
    assert began == [os.SCHED_OTHER]
    helper.stop()
    while helper._waker.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)

"""The command's side of Slurm: submits arrays, hears their tasks, answers for every run.

Slurm places and ends tasks; which runs a task trains was written down before it began, so no node
has to agree with another about anything but a run folder's claim. What the tasks tell is read from
files, and what they have trained from the run folders, so the command may be closed and typed
again: it finds its arrays by their names in the queue, and hears them from their first word.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from groupnorm_bench.errors import ConfigError, RunFolderError
from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EngineOptions, SlurmOptions
from groupnorm_bench.sweep.executors.protocol import (
    Ended,
    Event,
    Held,
    Judge,
    Lost,
    RunStream,
    StopAsked,
    Stopped,
)
from groupnorm_bench.sweep.executors.slurm.batch import Batch, Order, batches, new_batch
from groupnorm_bench.sweep.executors.slurm.journal import ASKED, DONE, Tail, Told, append
from groupnorm_bench.sweep.executors.slurm.options import cpus_asked
from groupnorm_bench.sweep.executors.slurm.queue import SlurmQueue, SlurmRefused, check_commands
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.tracking.options import Say
from groupnorm_bench.wording import count

_TICK, _LONG_TICK = 0.1, 2.0
"""Seconds between two looks at what tasks tell: the least and the most."""
_TICK_PER_TASK = 0.01
"""Seconds of it for each task, since each look opens a file of each."""
_RETRY_SECONDS = 15.0
"""Seconds between two tries to submit what Slurm did not take."""
_SETTLES = 1.0
"""Seconds after which what counts a user's jobs and what lists them have told of the same."""
_LATE_SECONDS = 90.0
"""How long a result that was told may take to be seen; a network file system remembers a while."""
_LEAVE_SECONDS = 15.0
"""How long a task that has ended its last run may take to close its workers."""
_STOP_SECONDS = 120.0
"""How long tasks may take to end once they were cancelled; a site's `KillWait` is 30 s."""


@dataclass(slots=True)
class _Task:
    """A task as this command knows it."""

    batch: Batch
    number: int
    open: dict[str, TrainConfig]
    """Runs of it that this command has drawn and not answered for."""
    tail: Tail
    submitted: float = math.inf
    """When, on the monotonic clock; never so far if infinite."""
    others: dict[str, TrainConfig] = field(default_factory=dict)
    """Runs of it that this command has not drawn, where an earlier one has submitted it."""
    is_done: bool = False
    """It has been through all its runs."""
    began: set[str] = field(default_factory=set)
    """Runs that it has taken up and not said to have left."""
    left: set[str] = field(default_factory=set)
    """Runs that it has stopped half-way, with a checkpoint."""
    advanced: set[str] = field(default_factory=set)
    """Runs of which it has done a step or an end."""
    furthered: set[str] = field(default_factory=set)
    """Those of them that it has brought further than any task before it."""
    ended: dict[str, tuple[Told, int, float]] = field(default_factory=dict)
    """Runs that it has ended, whose result is yet to be seen here; their slot, and since when."""

    @property
    def key(self) -> tuple[str, int]:
        return self.batch.name, self.number


@dataclass(slots=True)
class _Part:
    """Tasks in a row that are yet to be submitted, as one array."""

    batch: Batch
    first: int
    count: int


class SlurmExecutor:
    """Trains runs by arrays of jobs, `slots` at a time if Slurm has room for as many.

    Args:
        plan: whether its runs may be pruned or depend on one another; the runs come by `submit`.
        options: how.
        say: told of jobs submitted, cut and cancelled.

    Raises:
        ConfigError: Slurm's commands are not here.
    """

    def __init__(self, plan: Plan | None, options: EngineOptions, say: Say) -> None:
        check_commands()
        self.slots, self.source = options.slots, None
        self._options, self._say = options, say
        self._slurm = options.slurm or SlurmOptions()
        cpus = cpus_asked(options.threads * self._slurm.workers, self._slurm.sbatch)
        self._asked = (*cpus, *self._slurm.sbatch)
        spec = None if plan is None else plan.spec
        self._asks = spec is None or spec.early_terminate is not None
        self._is_search = spec is not None and spec.method == "bayes"
        self._queue = SlurmQueue()
        self._tasks: dict[tuple[str, int], _Task] = {}
        self._earlier: dict[str, _Task] = {}
        """By run: tasks of arrays that a closed command has left."""
        self._parts: deque[_Part] = deque()
        self._retry_at = 0.0
        self._took_nothing = False
        """Whether the last submission was refused though the queue had nothing of this user's."""
        self._furthest: dict[str, float] = {}
        """By run: the last step that any task has told of."""
        self._slot_of: dict[str, int] = {}
        self._said: set[str] = set()
        self._over: set[tuple[str, int]] = set()
        """Tasks that have ended, though the last look at the queue may still show them."""
        self._batches: dict[str, Batch] = {}
        """Those whose claim is ours, by name."""
        self._is_kept = False
        """Whether what is in the queue is to go on when this command ends."""
        self._claims = contextlib.ExitStack()

    def submit(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        """See `Executor.submit`. A run that was not begun when its task ended is `Stopped`."""
        with self._claims:
            try:
                self._find_earlier()
                yield from self._work(runs, judge, should_stop)
            finally:
                self._close()

    def _work(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        more = True
        while True:
            if should_stop():
                yield from self._stop(judge)
                return
            if more:
                drawn, more = self._draw(runs)
                self._take_up(drawn)
            self._submit_waiting()
            yield from self._hear(judge)
            if not more and not self._open():
                yield from self._see_off(judge)
                return
            self._tell_what_waits()
            time.sleep(min(max(_TICK, _TICK_PER_TASK * len(self._tasks)), _LONG_TICK))

    def _see_off(self, judge: Judge) -> Iterator[Event]:
        """Wait a moment for tasks that have nothing left to do, so that none is in the queue."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        ours = {task.key for task in self._tasks.values() if not self._has_others(task)}
        while ours & self._tasks.keys() and time.monotonic() < deadline:
            time.sleep(_TICK)
            yield from self._hear(judge)

    def _has_others(self, task: _Task) -> bool:
        """Return whether a task has runs to do that this command did not draw."""
        folders = (RunFolder.of(self._options.runs_dir, run) for run in task.others.values())
        return any(folder.read_settled() is None for folder in folders)

    def _open(self) -> int:
        return sum(len(task.open) for task in self._tasks.values())

    def _draw(self, runs: RunStream) -> tuple[list[TrainConfig], bool]:
        """Return the runs to be had now, and whether there may be more.

        All of a grid's at once, for one array; of a search that learns from its results, one a
        slot.
        """
        drawn: list[TrainConfig] = []
        room = max(self.slots - self._open(), 0) if self._is_search else math.inf
        while len(drawn) < room:
            try:
                run = next(runs)
            except StopIteration:
                return drawn, False
            if run is None:
                break
            drawn.append(run)
        return drawn, True

    # -- arrays --

    def _find_earlier(self) -> None:
        """Find the arrays that a closed command has left in the queue; remove those that are over.

        An array that another command hears at this moment is let alone.
        """
        left = list(batches(self._options.runs_dir))
        if not left:
            return
        self._queue.look()
        if self._queue.problem is not None:
            raise ConfigError(f"squeue: {self._queue.problem}")
        for batch in left:
            numbers = [number for name, number in self._queue.tasks if name == batch.name]
            claim = contextlib.ExitStack()
            try:
                claim.enter_context(batch.claim())
                slices = {number: batch.runs_of(number) for number in numbers}
            except RunFolderError:  # another command's, or damaged
                claim.close()
                continue
            if not numbers:
                batch.remove()
                claim.close()
                continue
            self._claims.enter_context(claim)
            self._batches[batch.name] = batch
            for number, runs in slices.items():
                tail, since = Tail(batch.said(number)), self._queue.looked
                others = {run.name: run for run in runs}
                task = _Task(batch, number, {}, tail, submitted=since, others=others)
                self._earlier |= {run.name: task for run in runs}

    def _take_up(self, runs: Sequence[TrainConfig]) -> None:
        """See to it that these runs are in the queue."""
        fresh, found = [], set()
        for run in runs:
            task = self._earlier.pop(run.name, None)
            if task is None:
                fresh.append(run)
                continue
            task.open[run.name] = task.others.pop(run.name)
            self._tasks[task.key] = task
            found.add(task.key)
        if found:
            jobs = {self._queue.tasks[key].job for key in found if key in self._queue.tasks}
            self._say(
                f"Slurm job {', '.join(sorted(jobs))} of an earlier call goes on: "
                f"{count(len(runs) - len(fresh), 'run')}"
            )
        if fresh:
            self._make_batch(fresh)

    def _make_batch(self, runs: Sequence[TrainConfig]) -> None:
        workers = self._slurm.workers
        num_tasks = min(math.ceil(self.slots / workers), math.ceil(len(runs) / workers))
        batch = new_batch(self._options.runs_dir)
        self._claims.enter_context(batch.claim())
        self._batches[batch.name] = batch
        options = replace(self._options, slots=workers, devices=(), slurm=None)
        batch.write(Order(options=options, tasks=num_tasks, asks=self._asks), runs)
        for number in range(num_tasks):
            part = {run.name: run for run in runs[number::num_tasks]}
            task = _Task(batch, number, part, Tail(batch.said(number)))
            self._tasks[task.key] = task
        self._parts.append(_Part(batch, 0, num_tasks))

    def _submit_waiting(self) -> None:
        """Submit what is not in the queue yet; an array too large for it is cut in two.

        Raises:
            ConfigError: Slurm refuses the options, or, twice in a row, takes nothing although it
                has nothing of this user's.
        """
        while self._parts and time.monotonic() >= self._retry_at:
            part = self._parts[0]
            try:
                job = self._queue.submit(
                    part.batch.name, part.batch.script, part.first, part.count, self._asked
                )
            except SlurmRefused as error:
                taken = self._taken_all_the_same(part, error)
                if taken is None:
                    self._make_way(part, error)
                    continue
                job = taken
            self._parts.popleft()
            self._took_nothing = False
            now = time.monotonic()
            runs = 0
            for number in range(part.first, part.first + part.count):
                task = self._tasks[part.batch.name, number]
                task.submitted = now
                runs += len(task.open)
            self._say(
                f"Slurm job {job}: {count(runs, 'run')} in {count(part.count, 'task')}, claimed by "
                f"{part.batch.claim_kind}, logs in {part.batch.path}"
            )

    def _taken_all_the_same(self, part: _Part, error: SlurmRefused) -> str | None:
        """Return the job of an array that is in the queue, though `sbatch` got no answer in time.

        Submitted again it would be there twice, and `scancel` would be told of one.
        """
        if not error.may_pass:
            return None
        self._queue.look(now=True)
        queued = self._queue.tasks.get((part.batch.name, part.first))
        return None if queued is None else queued.job

    def _make_way(self, part: _Part, error: SlurmRefused) -> None:
        """Cut an array that Slurm did not take, or wait until it takes one."""
        passes = error.is_too_large or error.may_pass
        if passes and part.count > 1:
            half = math.ceil(part.count / 2)
            self._parts.popleft()
            self._parts.appendleft(_Part(part.batch, part.first + half, part.count - half))
            self._parts.appendleft(_Part(part.batch, part.first, half))
            self._say_once(f"sbatch: {error}; the array is cut")
            return
        is_final = error.is_too_large or not error.may_pass
        if not is_final and self._takes_nothing():
            is_final = self._took_nothing
            self._took_nothing = True
            if not is_final:  # what filled the queue may have ended since: once more
                self._retry_at = time.monotonic() + _SETTLES
                return
        if is_final:
            raise ConfigError(f"sbatch: {error}; see --slurm {','.join(self._slurm.sbatch)!r}")
        self._took_nothing = False
        self._say_once(f"sbatch: {error}; trying again every {_RETRY_SECONDS:.0f} s")
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _takes_nothing(self) -> bool:
        """Return whether waiting is in vain: what was refused is not for want of room."""
        try:
            return self._queue.is_idle()
        except SlurmRefused:  # nothing to be had from it now; it is said when it is looked at
            return not any(math.isfinite(task.submitted) for task in self._tasks.values())

    # -- what tasks tell --

    def _hear(self, judge: Judge, *, stopping: bool = False) -> Iterator[Event]:
        """Yield what has happened since, and answer for the runs of tasks that have ended."""
        self._queue.look()
        if self._queue.problem is not None:
            self._say_once(f"squeue: {self._queue.problem}; still waiting")
        for task in list(self._tasks.values()):
            for line in task.tail.news():
                yield from self._take(task, line, judge)
            yield from self._see_results(task)
            if task.is_done or self._is_gone(task):
                yield from self._close_task(task, stopping=stopping)

    def _is_gone(self, task: _Task) -> bool:
        """Return whether a look at the queue after its submission did not show a task."""
        return self._queue.looked > task.submitted and task.key not in self._queue.tasks

    def _take(self, task: _Task, line: Told, judge: Judge) -> Iterator[Event]:
        if line.what == DONE:
            task.is_done = True
            return
        run = task.open.get(line.run)
        if run is None:
            return
        if line.what == "Started":
            task.left.discard(run.name)
            task.began.add(run.name)
            self._seat(run)
        elif line.what in ("Progress", "Ended"):
            task.advanced.add(run.name)
            step = line.fields.get("step", math.inf)
            if step > self._furthest.get(run.name, -1):
                self._furthest[run.name] = step
                task.furthered.add(run.name)
        if line.what == ASKED:
            row = line.fields["row"]
            prune = judge(run, row)
            append(task.batch.told(task.number), run=run.name, epoch=row["epoch"], prune=prune)
        elif line.what == "Ended":
            slot = self._slot_of.pop(run.name, 0)  # free for the next
            task.ended[run.name] = (line, slot, time.monotonic())
        elif line.what == "Stopped":
            task.left.add(run.name)
            task.began.discard(run.name)
        event = line.event(run, self._slot_of.get(run.name, 0))
        if isinstance(event, Lost | Held):
            yield from self._answer(task, event)
        elif event is not None:
            yield event

    def _seat(self, run: TrainConfig) -> None:
        """Give a run the first free line of the live table."""
        taken = set(self._slot_of.values())
        free = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        self._slot_of.setdefault(run.name, free)

    def _answer(self, task: _Task, event: Event) -> Iterator[Event]:
        """Yield the last event of a run, and forget the run."""
        name = event.run.name
        del task.open[name]
        task.began.discard(name)
        self._slot_of.pop(name, None)
        yield event

    def _see_results(self, task: _Task) -> Iterator[Event]:
        """Yield the ends of runs whose results are to be seen here by now."""
        for name, (line, slot, since) in list(task.ended.items()):
            run = task.open[name]
            result = RunFolder.of(self._options.runs_dir, run).read_if_whole()
            if result is not None and result.status == line.fields["status"]:
                seconds, trained = line.fields["seconds"], line.fields["trained"]
                yield from self._answer(task, Ended(run, slot, result, seconds, trained))
            elif time.monotonic() - since > _LATE_SECONDS:
                yield from self._answer(task, Lost(run, slot, "its result cannot be read here"))
            else:
                continue
            del task.ended[name]

    def _close_task(self, task: _Task, *, stopping: bool) -> Iterator[Event]:
        """Answer for the runs that a task which has ended leaves; results are waited for.

        A run that it was at when it ended may be why it did. One that it stopped, or never came
        to, is drawn again without blame, unless the task did nothing at all.
        """
        if task.ended:
            return
        words = task.batch.last_words(task.number)
        last = words.rpartition("\n")[2] or "no word in its log"
        blamed = bool(task.began & task.open.keys())
        for name, run in list(task.open.items()):
            slot = self._slot_of.get(name, 0)
            result = RunFolder.of(self._options.runs_dir, run).read_settled()
            event: Event = Stopped(run, slot)
            if result is not None:
                event = Ended(run, slot, result, 0.0, name in task.advanced)
            elif stopping:
                pass
            elif name in task.began:
                event = Lost(run, slot, f"its Slurm task ended without it: {last}", words)
            elif name in task.left and name not in task.furthered:
                event = Lost(run, slot, "its Slurm task was ended before a new step of it", words)
            elif not (task.advanced or blamed or name in task.left):
                event = Lost(run, slot, f"its Slurm task ended before it began: {last}", words)
            yield from self._answer(task, event)
        del self._tasks[task.key]
        self._over.add(task.key)
        self._remove_if_over(task.batch)

    def _remove_if_over(self, batch: Batch) -> None:
        """Remove a batch's folder, unless some task of it may yet write there."""
        live = {*self._tasks, *self._queue.tasks} - self._over
        if not any(name == batch.name for name, _ in live):
            batch.remove()

    def _tell_what_waits(self) -> None:
        """Say once why nothing has begun, where Slurm gives a reason."""
        ours = [self._queue.tasks[key] for key in self._tasks if key in self._queue.tasks]
        if ours and all(queued.state == "PENDING" for queued in ours):
            reasons = sorted({queued.reason for queued in ours if queued.reason != "None"})
            if reasons:
                self._say_once(f"Slurm: {count(len(ours), 'task')} waiting ({', '.join(reasons)})")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    # -- the end --

    def _jobs(self) -> list[str]:
        """Return the arrays of ours that are in the queue, as of the last look."""
        names = {name for name, _ in self._tasks}
        live = [task for key, task in self._queue.tasks.items() if key not in self._over]
        return sorted({task.job for task in live if task.batch in names})

    def _stop(self, judge: Judge) -> Iterator[Event]:
        """Cancel what is in the queue and wait for it, or leave it there, as the user says."""
        self._parts.clear()
        for task in list(self._tasks.values()):
            if math.isinf(task.submitted):
                yield from self._close_task(task, stopping=True)
        deadline = time.monotonic() + _STOP_SECONDS
        self._cancel()
        while self._tasks and not self._is_kept and time.monotonic() < deadline:
            yield from self._hear(judge, stopping=True)
            time.sleep(_TICK)
        for task in list(self._tasks.values()):
            for run in list(task.open.values()):
                yield from self._answer(task, Stopped(run, self._slot_of.get(run.name, 0)))

    def _cancel(self) -> None:
        """Have `scancel` end what is in the queue, if the user agrees; say what becomes of it."""
        self._queue.look(now=True)
        jobs = self._jobs()
        if not jobs:
            return
        numbers = " ".join(jobs)
        if self._slurm.may_cancel(f"scancel {numbers}?"):
            self._say(f"scancel {numbers}: its runs checkpoint and end")
            try:
                self._queue.cancel(jobs)
                return
            except SlurmRefused as error:
                self._say(f"scancel: {error}")
        self._is_kept = True
        self._say(
            f"Slurm job {numbers} goes on; the same command shows it again, scancel {numbers} "
            "ends it"
        )

    def _close(self) -> None:
        """End what is in the queue at once, unless it is to go on; remove what nobody needs."""
        if self._is_kept:
            return
        if any(task.open for task in self._tasks.values()):
            self._queue.look(now=True)
            with contextlib.suppress(SlurmRefused):  # then the time limit ends them
                self._queue.cancel(self._jobs())
        unsubmitted = {task.key for task in self._tasks.values() if math.isinf(task.submitted)}
        self._over |= unsubmitted
        for batch in self._batches.values():
            self._remove_if_over(batch)

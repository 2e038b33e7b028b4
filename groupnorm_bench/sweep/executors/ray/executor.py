"""The Ray executor: an actor per slot, wherever Ray places it; this process keeps the folders.

Ray places and fences; retries are the scheduler's, so Ray's own are off. No disk is shared: a run's
files travel to its actor and come home from it, and are written here, whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import groupnorm_bench
from groupnorm_bench.errors import ConfigError, RunFolderError, one_line
from groupnorm_bench.files import scratch_folder
from groupnorm_bench.runs import SENT_COMMIT, RunFolder, source_commit
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.sweep.executors import SHARED_TRIAL, EngineOptions
from groupnorm_bench.sweep.executors.local.shared import data_file, pack_data
from groupnorm_bench.sweep.executors.local.worker import STOP, Asked
from groupnorm_bench.sweep.executors.protocol import (
    Ended,
    Event,
    Held,
    Judge,
    Lost,
    Progress,
    RunStream,
    Said,
    Started,
    StopAsked,
    Stopped,
)
from groupnorm_bench.sweep.executors.ray.cluster import connected
from groupnorm_bench.sweep.executors.ray.luggage import OWN_MODULES, pack_code
from groupnorm_bench.sweep.executors.ray.trainer import SCRATCH, Trainer, TrainerSetup
from groupnorm_bench.sweep.executors.ray.travel import (
    FolderNews,
    FolderWatcher,
    apply_news,
    drop_stale_wandb,
)
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.tracking.options import Say

_TICK = 0.2
"""Seconds between looks at a request to stop, and for new runs, when all is quiet."""
_REPORT_EVERY, _REPORTS_PER_SECOND = 0.2, 40
"""Seconds between two batches of one actor; batches of all of them in a second, at most."""
_CAPACITY_EVERY = 2.0
"""Seconds between looks at the cluster: nodes that joined, nodes that drain."""
_SAY_WAITING = 15.0
"""Seconds without a single actor after which that is said."""
_GRACE = 45.0
"""Seconds an actor has to stop its run and bring it home; its worker has 30."""
_FEW_SECONDS = 10.0
"""That actors have to end by themselves, before they are killed."""
_FAILED_STARTS = 3
"""Actors in a row that die before they are there, and then it is no use."""


@dataclass(slots=True)
class _Slot:
    """A place for runs: an actor, there or asked for, and the run it is at."""

    number: int
    actor: Any
    placed: Any
    """Ray's promise that it is there; None once it is."""
    node: str = ""
    run: TrainConfig | None = None
    stream: Any = None
    claim: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    folder: RunFolder | None = None
    """Its run's, claimed."""
    epochs: int = 0
    """Epochs of its run that came home in this attempt, beyond those of earlier ones."""
    told: bool = False
    """Whether its run was asked to stop."""
    held: set[str] = field(default_factory=set)
    """Data sets that it has."""


class RayExecutor:
    """Trains runs by Ray actors, one a slot.

    Args:
        plan: what may be trained; its norms and networks of the user's own go along.
        options: how. With `auto_slots` there are as many slots as the cluster has room for.
        say: told where the cluster has no room.

    Raises:
        ConfigError: Ray is not installed, or the cluster is out of reach or lacks what is asked.
    """

    def __init__(self, plan: Plan | None, options: EngineOptions, say: Say) -> None:
        self.source, self._options, self._say = None, options, say
        self._slots: dict[int, _Slot] = {}
        self._data: dict[str, Any] = {}
        self._furthest: dict[str, int] = {}
        """By run: the last step of the epochs that came home in any attempt."""
        self._failed_starts = 0
        self._looked = self._asked = time.monotonic()
        self._draining: frozenset[str] = frozenset()
        self._stop_deadline: float | None = None
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            with scratch_folder(SCRATCH) as scratch:  # it has gone to the nodes when we are in
                modules = (
                    [] if options.ray_address is None else pack_code(plan, options.trial, scratch)
                )
                self._has_own = len(modules) > 1
                self._ray = opening.enter_context(connected(options.ray_address, modules))
            self._needs = self._resources()
            self.slots = self._count_slots()
            self._open = opening.pop_all()

    def submit(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        """See `Executor.submit`."""
        with self._open:
            try:
                yield from self._work_off(runs, judge, should_stop)
            finally:
                self._close()

    def _work_off(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        more = True
        while True:
            if should_stop():
                more = False
                yield from self._wind_down()
            elif more:
                self._look_at_cluster()
                for event in self._feed(runs):
                    if event is None:
                        more = False
                    else:
                        yield event
            if not (more or self._busy()):
                return
            yield from self._collect(judge)

    def _busy(self) -> list[_Slot]:
        return [slot for slot in self._slots.values() if slot.run is not None]

    def _resources(self) -> dict[str, float]:
        """Return what an actor asks of its node.

        Raises:
            ConfigError: the cluster has no GPU, and one was asked for.
        """
        options = self._options
        if options.ray_address is None:  # our own Ray: its slots are ours to count
            return {"num_cpus": 0}
        total = self._ray.cluster_resources()
        needs = {"num_cpus": float(options.threads)}
        if options.device == "cuda" and not total.get("GPU"):
            raise ConfigError(
                f"device='cuda': the cluster at {options.ray_address} has no GPU; leave the option "
                "out, or start Ray where there is one"
            )
        if options.device in ("auto", "cuda") and total.get("GPU"):
            needs["num_gpus"] = 1 / options.per_device
        return needs

    def _count_slots(self) -> int:
        """Return how many runs are to be trained at a time.

        Raises:
            ConfigError: no node has room for a single one.
        """
        options = self._options
        if options.ray_address is None:
            return options.slots
        room = self._room()
        if room == 0:
            gpu = f" and {self._needs['num_gpus']:.2g} GPU" if "num_gpus" in self._needs else ""
            raise ConfigError(
                f"threads={options.threads}: no node of the cluster at {options.ray_address} has "
                f"{options.threads} CPUs{gpu} for a worker; set a smaller --threads"
            )
        if options.auto_slots:
            return min(options.slots, room)
        if options.slots > room:
            self._say(
                f"the cluster has room for {room} of {options.slots} workers; the others wait for "
                "nodes that join"
            )
        return options.slots

    def _room(self) -> int:
        """Return how many actors fit on the nodes that are there, whoever else uses them."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"] and node["NodeID"] not in self._draining:
                has = node["Resources"]
                fits = [int(has.get("CPU", 0) / self._needs["num_cpus"])]
                if "num_gpus" in self._needs:
                    fits.append(int(has.get("GPU", 0) / self._needs["num_gpus"] + 1e-6))
                room += min(fits)
        return room

    def _look_at_cluster(self) -> None:
        """Ask for an actor where a slot has none; leave nodes that drain, use those that joined."""
        now = time.monotonic()
        if self._options.ray_address is not None and now - self._looked >= _CAPACITY_EVERY:
            self._looked = now
            self._draining = self._find_draining()
            if self._options.auto_slots:
                self.slots = max(self.slots, min(self._options.slots, self._room()))
        for slot in list(self._slots.values()):
            if slot.run is None and slot.node in self._draining:
                self._retire(slot)
        for number in range(self.slots):
            if number not in self._slots:
                self._slots[number] = self._ask_for(number)
        nobody = all(slot.placed is not None for slot in self._slots.values())
        if self._options.ray_address is not None and nobody and now - self._asked >= _SAY_WAITING:
            self._asked = now + 3600
            self._say("waiting for Ray to place a worker: the cluster is in use")

    def _find_draining(self) -> frozenset[str]:
        from ray._private.state import state

        return frozenset(state.get_draining_nodes())

    def _ask_for(self, number: int) -> _Slot:
        options = self._options
        devices = options.devices
        own = dataclasses.replace(
            options,
            slots=1,
            environment=(),
            devices=(devices[number % len(devices)],) if devices else (),
        )
        setup = TrainerSetup(
            options=own,
            report_every=max(_REPORT_EVERY, self.slots / _REPORTS_PER_SECOND),
            environment={**dict(options.environment), SENT_COMMIT: commit_here() or ""},
            argv=tuple(sys.argv),
            folder=os.getcwd() if options.ray_address is None else None,
            own_modules=OWN_MODULES if self._has_own else "",
        )
        actor = (
            self._ray.remote(Trainer)
            .options(
                **self._needs,
                max_concurrency=4,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
            .remote(setup)
        )
        return _Slot(number, actor, actor.ready.remote())

    def _feed(self, runs: RunStream) -> Iterator[Event | None]:
        """Give a run to every free slot; yield None once there are no more."""
        for slot in list(self._slots.values()):
            if slot.placed is not None or slot.run is not None:
                continue
            try:
                run = next(runs)
            except StopIteration:
                yield None
                return
            if run is None:
                return
            yield from self._begin(slot, run)

    def _begin(self, slot: _Slot, run: TrainConfig) -> Iterator[Event]:
        folder = self._folder(run)
        claim = contextlib.ExitStack()
        try:
            claim.enter_context(folder.claim())
        except RunFolderError as error:
            yield _unwritten(slot.number, folder, run, error)
            return
        settled = folder.read_settled()
        if settled is not None:
            claim.close()
            yield Ended(run, slot.number, settled, 0.0, trained=False)
            return
        try:
            files = FolderWatcher(folder.path).news()
            name, data = self._data_for(slot, run)
        except Exception as error:  # a data set of the user's own raises anything
            claim.close()
            yield Lost(run, slot.number, one_line(error))
            return
        slot.run, slot.claim, slot.epochs, slot.told = run, claim, 0, False
        slot.folder = folder
        train = slot.actor.train.options(num_returns="streaming")
        slot.stream = train.remote(run, files, name, data)

    def _data_for(self, slot: _Slot, run: TrainConfig) -> tuple[str, Any]:
        """Return the file of a run's data and Ray's handle of it; "" where none is to travel."""
        needs_none = self._options.trial != SHARED_TRIAL or isinstance(run, OwnConfig)
        if needs_none or run.dataset in slot.held:
            return "", None
        if run.dataset not in self._data:
            import numpy as np

            content = pack_data(run.dataset, self._options.data_dir)
            self._data[run.dataset] = self._ray.put(np.frombuffer(content, dtype=np.uint8))
        slot.held.add(run.dataset)
        return data_file(run.dataset), self._data[run.dataset]

    def _folder(self, run: TrainConfig) -> RunFolder:
        return RunFolder.of(self._options.runs_dir, run)

    def _collect(self, judge: Judge) -> Iterator[Event]:
        """Yield what the actors have said, waiting a tick at most."""
        waiting = [s.stream for s in self._busy()]
        waiting += [s.placed for s in self._slots.values() if s.placed is not None]
        if not waiting:
            time.sleep(_TICK)
            return
        ready, _ = self._ray.wait(waiting, timeout=_TICK)
        if ready and len(waiting) > 1:
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for slot in list(self._slots.values()):
            if any(each is slot.placed for each in ready):
                self._welcome(slot)
            elif any(each is slot.stream for each in ready):
                yield from self._hear(slot, judge)

    def _welcome(self, slot: _Slot) -> None:
        """Take an actor that is there.

        Raises:
            ConfigError: actors cannot be started.
        """
        try:
            slot.node, slot.placed = self._ray.get(slot.placed), None
            self._failed_starts = 0
        except self._ray.exceptions.RayError as error:
            self._retire(slot)
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise ConfigError(
                    f"executor=ray: workers do not start: {last_line(error)}"
                ) from error

    def _hear(self, slot: _Slot, judge: Judge) -> Iterator[Event]:
        """Yield what one actor has said."""
        run = slot.run
        assert run is not None
        try:
            messages = self._ray.get(next(slot.stream))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            yield from self._lose(slot, run, error)
            return
        for message in messages:
            if isinstance(message, Asked):
                slot.actor.tell.remote(judge(run, message.row))
            elif isinstance(message, FolderNews):
                assert slot.folder is not None
                try:
                    slot.folder.check_claim()
                    apply_news(slot.folder, message)
                    drop_stale_wandb(slot.folder, message)
                except RunFolderError as error:
                    self._retire(slot)
                    yield _unwritten(slot.number, slot.folder, run, error)
                    return
            else:
                event: Event = dataclasses.replace(message, slot=slot.number)
                if isinstance(event, Progress):
                    slot.epochs += self._is_news(event)
                elif not isinstance(event, Started | Said):
                    slot.claim.close()
                    slot.run = slot.stream = None
                yield event

    def _is_news(self, progress: Progress) -> bool:
        """Return whether this is the end of an epoch that no attempt at its run has reached yet."""
        name, step = progress.run.name, progress.step
        if progress.row is None or step <= self._furthest.get(name, -1):
            return False
        self._furthest[name] = step
        return True

    def _lose(self, slot: _Slot, run: TrainConfig, error: BaseException) -> Iterator[Event]:
        """Answer for the run of an actor that has died.

        Where a new epoch of it came home, the run has not come to nothing: it goes on from there,
        and no attempt is counted. One that ends its node at the same place again does not for ever.
        """
        self._retire(slot)
        if self._stop_deadline is not None:
            yield Stopped(run, slot.number)
            return
        if isinstance(error, self._ray.exceptions.RayActorError):
            with_node = " with its node" if "node has died" in str(error) else ""
            reason = f"its Ray actor died{with_node}"
        else:
            reason = f"its Ray actor failed: {last_line(error)}"
        if slot.epochs and not isinstance(error, self._ray.exceptions.RayTaskError):
            yield Said(run, slot.number, f"{run.name}: {reason}; it goes on from its checkpoint")
            yield Stopped(run, slot.number)
        else:
            yield Lost(run, slot.number, reason, str(error))

    def _retire(self, slot: _Slot) -> None:
        """Forget a slot, let go of its run's folder, and end its actor."""
        del self._slots[slot.number]
        slot.claim.close()
        self._ray.kill(slot.actor)

    def _wind_down(self) -> Iterator[Event]:
        """Ask busy actors to stop, once; kill those that do not answer."""
        now = time.monotonic()
        if self._stop_deadline is None:
            self._stop_deadline = now + _GRACE
        for slot in list(self._slots.values()):
            if slot.run is None:
                continue
            if not slot.told:
                slot.told = True
                slot.actor.tell.remote(STOP)
            if now > self._stop_deadline:
                self._retire(slot)
                yield Stopped(slot.run, slot.number)

    def _close(self) -> None:
        """End every actor: idle ones by themselves, the rest are killed."""
        idle = [s.actor.close.remote() for s in self._slots.values() if not (s.run or s.placed)]
        if idle:
            self._ray.wait(idle, num_returns=len(idle), timeout=_FEW_SECONDS)
        for slot in list(self._slots.values()):
            self._retire(slot)


def _unwritten(slot: int, folder: RunFolder, run: TrainConfig, error: RunFolderError) -> Event:
    """Return how a run ended whose folder cannot be claimed or written."""
    return Held(run, slot) if folder.is_claimed() else Lost(run, slot, one_line(error))


def commit_here() -> str | None:
    """Return the commit of the checkout that this process runs from, if it is one."""
    return source_commit(Path(groupnorm_bench.__file__).parent.parent)


def last_line(error: BaseException) -> str:
    """Return the last line of a text as long as Ray's errors are."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]

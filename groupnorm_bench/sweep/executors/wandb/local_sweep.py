"""A sweep by our own scheduler, shown by W&B as one sweep."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from groupnorm_bench.errors import RunFolderError, SweepError, TrackingError
from groupnorm_bench.sweep.executors.wandb.sweep_config import (
    MAX_LISTED,
    compile_plan,
    compile_search,
)
from groupnorm_bench.sweep.plan.describe import count_contrasts
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.tracking.agent_pool import SweepGoneError, read_sweep
from groupnorm_bench.tracking.options import Say, TrackingOptions
from groupnorm_bench.tracking.sweeps import SweepRecord, known_record, make_sweep


def wandb_config_of(plan: Plan) -> dict[str, object]:
    """Return the W&B sweep config of a plan.

    Raises:
        SweepError: the plan is too large for W&B.
    """
    if plan.spec.method == "grid":
        return compile_plan(plan.spec, plan.runs)
    cap = None if plan.spec.run_cap == plan.num_runs else plan.num_runs
    return compile_search(plan.spec, plan.base, cap)


def record_of(plan: Plan, config: dict[str, object]) -> SweepRecord:
    """Return a sweep's record before its first run: its runs, and what it is to answer."""
    question = plan.spec.question
    return SweepRecord(
        name=plan.spec.name,
        config=config,
        runs=tuple(run.name for run in plan.runs),
        question=question.to_dict() if question else {},
        contrasts=count_contrasts(plan) or 0,
        file=str(plan.spec.path),
        tunes=plan.spec.tunes,
    )


def keep_question(plan: Plan, runs_dir: Path, note: Say, *, is_tuned: bool = True) -> None:
    """Write down what a grid is to answer, before its first run, for `compare` and `report`.

    A grid of more than `MAX_LISTED` runs is left out. Where the folder has a record of the sweep,
    only its question and its family become those of now; that they were others is said.

    Args:
        plan: the sweep.
        runs_dir: the folder of run folders.
        note: told that the question has changed.
        is_tuned: false while its settings are being tuned: which runs it has is not known yet.

    Raises:
        RunFolderError: the record cannot be written.
    """
    if plan.spec.method != "grid" or plan.num_runs > MAX_LISTED:
        return
    fresh = record_of(plan, {})
    if not is_tuned:
        fresh = fresh.replace(runs=())
    path = fresh.path_in(runs_dir)
    if not os.path.lexists(path):
        fresh.write(runs_dir)
        return
    known = _read(path)
    if known is None:
        return  # whoever needs it sets it aside, and says so
    if known.question != fresh.question:
        note(
            f"the question of {plan.spec.name} has changed since its runs began, from "
            f"{json.dumps(known.question)}: a verdict is worth what was asked beforehand"
        )
    same = known.question.get("tune") == fresh.question.get("tune")  # else they are others
    runs = tuple(dict.fromkeys([*(known.runs if same else ()), *fresh.runs]))
    told = {"question": fresh.question, "contrasts": fresh.contrasts, "file": fresh.file}
    now = known.replace(runs=runs, tunes=fresh.tunes, **told)
    if now != known:
        now.write(runs_dir)


def add_runs(plan: Plan, runs_dir: Path, names: Iterable[str]) -> None:
    """Name further runs in a sweep's record: those that were added until it was decided.

    Raises:
        RunFolderError: the record cannot be written.
    """
    known = _read(record_of(plan, {}).path_in(runs_dir))
    if known is None:
        return
    runs = tuple(dict.fromkeys([*known.runs, *names]))
    if runs != known.runs:
        known.replace(runs=runs).write(runs_dir)


def _read(path: Path) -> SweepRecord | None:
    try:
        return SweepRecord.read(path)
    except RunFolderError:
        return None


def _address(record: SweepRecord) -> str:
    """Return the address of a sweep's page, its path where W&B does not tell."""
    try:
        return read_sweep(record.path_on_wandb).url
    except TrackingError:
        return record.path_on_wandb


class LocalSweep:
    """The record of a local sweep, from which `gnbench sync` makes a W&B sweep.

    Online, the sweep is made at once, and its runs are attached to it.

    Args:
        plan: what the sweep will do.
        runs_dir: the folder of run folders.
        tracking: where the runs go; its mode is resolved, not `auto`.
        say: told the sweep's address, or that W&B refused it.
    """

    def __init__(self, plan: Plan, runs_dir: Path, tracking: TrackingOptions, say: Say) -> None:
        self._runs_dir, self._tracking, self._say = runs_dir, tracking, say
        try:
            config = wandb_config_of(plan)
        except SweepError:
            self._record = None  # W&B could not show so many; the runs stand alone there
            return
        fresh = record_of(plan, config)
        known = known_record(fresh, runs_dir, say)
        self._record = fresh if known.wandb.get("executor") == "wandb" else known

    def begin(self) -> TrackingOptions:
        """Write the record; online, make the sweep. Return the options for its runs.

        Raises:
            RunFolderError: the record cannot be written.
        """
        if self._record is None:
            return self._tracking
        if self._tracking.mode == "online":
            self._attach(self._record)
        self._record.write(self._runs_dir)
        return dataclasses.replace(self._tracking, sweep_id=self._record.wandb.get("sweep_id"))

    def _attach(self, record: SweepRecord) -> None:
        try:
            if "sweep_id" in record.wandb:
                read_sweep(record.path_on_wandb)
            else:
                record = self._make(record)
        except SweepGoneError as error:
            self._say(f"{error} any more; making it anew")
            record = self._make(record.replace(wandb={}))
        except TrackingError as error:
            self._say(f"W&B made no sweep ({error}); its runs have job type {record.name}")
            return
        self._record = record
        self._say(f"W&B sweep: {_address(record)}")

    def _make(self, record: SweepRecord) -> SweepRecord:
        project, entity = self._tracking.project, self._tracking.entity
        record = make_sweep(record, self._runs_dir, project=project, entity=entity)
        return record.replace(wandb=record.wandb | {"executor": "local"})

    def end(self, names: Iterable[str], *, is_done: bool) -> None:
        """Add the runs that a search chose; where all is done, tell W&B that the sweep is over.

        Raises:
            RunFolderError: the record cannot be written.
        """
        record = self._record
        if record is None:
            return
        runs = tuple(dict.fromkeys([*record.runs, *names]))
        record.replace(runs=runs).write(self._runs_dir)
        if is_done and self._tracking.mode == "online" and "sweep_id" in record.wandb:
            record.end_on_wandb(self._say)

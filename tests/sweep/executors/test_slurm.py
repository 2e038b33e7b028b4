"""Slurm's odd answers, by stand-ins of its commands; a real one is in `test_real_slurm.py`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.sweep.executors import EngineOptions, SlurmOptions
from groupnorm_bench.sweep.executors.protocol import Ended, Lost, Progress, Started, Stopped
from groupnorm_bench.sweep.executors.slurm import batch as slurm_batch
from groupnorm_bench.sweep.executors.slurm import executor as slurm_executor
from groupnorm_bench.sweep.executors.slurm.batch import HOME, Batch, Order, batches
from groupnorm_bench.sweep.executors.slurm.journal import Journal
from groupnorm_bench.sweep.executors.slurm.options import sbatch_options
from groupnorm_bench.sweep.executors.slurm.queue import SlurmQueue, SlurmRefused
from groupnorm_bench.sweep.executors.slurm.task import Answers
from groupnorm_bench.sweep.scheduler import Retried, Scheduler
from groupnorm_bench.tracking.options import TrackingOptions
from tests.support.command_line import COMMAND
from tests.support.sweeping import ListSource, begun, make_engine, seeds, sweep

SWEEP = """
method: grid
parameters:
  norm: {values: [none, batch, group]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  max_steps: {value: 2}
"""


@pytest.fixture
def commands(slurm_stand_ins):
    return slurm_stand_ins


def slurm(runs, runs_dir, trial="sleeper", slots=2, **options):
    """Sweep on the stand-ins; nothing of Slurm's may be left in the runs folder."""
    outcome, events, _ = sweep(runs, runs_dir, trial, slots=slots, engine="slurm", **options)
    assert not (runs_dir / HOME).exists()
    return outcome, events


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", ()),
        ("partition=gpu,gres=gpu:1,time=02:00:00", "--partition=gpu --gres=gpu:1 --time=02:00:00"),
        ("partition=a,b,nodelist=n[1-3,5],exclusive", "--partition=a,b --nodelist=n[1-3,5] --exc"),
        ("--mem=4G, requeue ,comment=a=b c", "--mem=4G --requeue --comment=a=b c"),
    ],
)
def test_options_of_sbatch_are_passed_on_as_they_are(text, arguments):
    assert " ".join(sbatch_options(text)).startswith(arguments or "")
    assert all(option.startswith("--") for option in sbatch_options(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", "'gpu' is no option of sbatch; write name=value"),
        ("exclusive,gpu", "'gpu' is no option of sbatch"),
        ("p=gpu", "'p=gpu' is no long option of sbatch"),
        ("array=0-9", "use --jobs; leave array out"),
        ("arr=0-9", "use --jobs; leave arr out"),
        ("signal=USR1", "tasks checkpoint 60 s before their limit; leave signal out"),
        ("mem=1\n#SBATCH --x", "no long option of sbatch"),
    ],
)
def test_what_is_no_option_or_is_set_here_is_refused(text, message):
    with pytest.raises(ConfigError, match=message.replace("--", ".*")):
        sbatch_options(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slurm", "mem=1G"], "slurm=mem=1G does nothing without --executor slurm"),
        (["--jobs", "4"], "jobs=4 does nothing without --executor slurm"),
        (["--executor", "slurm", "--slurm", "gpu"], "slurm='gpu': 'gpu' is no option of sbatch"),
        (["--executor", "slurm"], "executor=slurm needs sbatch, which is not on PATH; type this"),
    ],
)
def test_bad_options_and_no_slurm_are_one_line_and_exit_2(
    tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "s.yaml").write_text(SWEEP)
    assert run(["sweep", "s.yaml", "--wandb", "disabled", "--quiet", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_what_slurm_refuses_is_one_line_in_its_own_words(tmp_path, commands, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands.tell("refuse", "Batch job submission failed: Invalid partition name specified")
    (tmp_path / "s.yaml").write_text(SWEEP)
    typed = ["--executor", "slurm", "--slurm", "partition=gpy", "--wandb", "disabled", "--quiet"]
    assert run(["sweep", "s.yaml", *typed]) == 2
    assert capsys.readouterr().err == (
        "error: sbatch: Batch job submission failed: Invalid partition name specified; see --slurm "
        "'--partition=gpy'\n"
    )
    assert not (tmp_path / "runs" / HOME).exists()


def test_one_array_is_submitted_as_it_was_asked(tmp_path, commands, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    asked = SlurmOptions(sbatch=("--partition=gpu",))
    outcome, _ = slurm(seeds(5), tmp_path, slots=3, slurm=asked)
    assert outcome.count("finished") == 5
    (arguments,) = commands.submitted()
    assert {"--partition=gpu", "--array=0-2", "--signal=B:TERM@60"} <= set(arguments)
    assert "WANDB_API_KEY" not in json.loads((commands.state / "environment").read_text())
    assert set(begun(tmp_path).values()) == {1}


def test_a_task_trains_several_runs_at_a_time(tmp_path, commands):
    outcome, events = slurm(seeds(6), tmp_path, slots=4, slurm=SlurmOptions(workers=2))
    assert outcome.count("finished") == 6
    assert "--array=0-1" in commands.submitted()[0]
    assert {e.slot for e in events if isinstance(e, Started)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"threads": 1}, []),
        ({"threads": 2}, ["--cpus-per-task=2"]),
        ({"threads": 2, "slurm": SlurmOptions(workers=3)}, ["--cpus-per-task=6"]),
        ({"threads": 2, "slurm": SlurmOptions(sbatch=("--cpus-per-t=4",))}, ["--cpus-per-t=4"]),
    ],
)
def test_a_task_has_the_cpus_that_its_threads_take(tmp_path, commands, options, arguments):
    slurm(seeds(1), tmp_path, slots=1, **options)
    (submitted,) = commands.submitted()
    assert [argument for argument in submitted if argument.startswith("--cpus")] == arguments


def test_a_task_imports_nothing_from_the_working_directory_by_chance(tmp_path, monkeypatch):
    """An empty part of PYTHONPATH is the working directory, in front of the standard library."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PYTHONSAFEPATH $PYTHONPATH"\n')
    python.chmod(0o755)
    monkeypatch.setattr(slurm_batch.sys, "executable", str(python))
    monkeypatch.setattr(slurm_batch.site, "getsitepackages", list)
    package = os.path.dirname(os.path.dirname(slurm_batch.groupnorm_bench.__file__))
    told = []
    for given in (None, "", "/a b:/c"):
        monkeypatch.delenv("PYTHONPATH", raising=False)
        if given is not None:
            monkeypatch.setenv("PYTHONPATH", given)
        command = ["/bin/sh", "-c", slurm_batch._script_of(tmp_path), "sh", "0"]
        told.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told == [f"1 {package}\n", f"1 {package}\n", f"1 {package}:/a b:/c\n"]


def test_what_a_user_sets_for_commands_typed_by_hand_changes_nothing(commands, monkeypatch):
    names = {"SQUEUE_STATES", "SCANCEL_INTERACTIVE", "SBATCH_WAIT", "SBATCH_ACCOUNT"}
    for name in names:
        monkeypatch.setenv(name, "1")
    commands.tell("hold")
    SlurmQueue().submit("0123abcd", commands.state / "task.sh", 0, 1, [])
    seen = json.loads((commands.state / "environment").read_text())
    assert names.intersection(seen) == {"SBATCH_ACCOUNT"}


def test_an_array_that_is_there_though_sbatch_timed_out_is_not_submitted_again(
    tmp_path, commands, monkeypatch, capsys
):
    taken = SlurmQueue.submit

    def late(*arguments):
        taken(*arguments)
        raise SlurmRefused("Batch job submission failed: Socket timed out on send/recv operation")

    monkeypatch.setattr(SlurmQueue, "submit", late)
    commands.tell("hold")
    looks = iter([False, False, True])
    engine = make_engine(tmp_path, engine="slurm", slots=2)
    Scheduler(ListSource(seeds(3)), engine, tmp_path, should_stop=lambda: next(looks, True)).run()
    assert "Slurm job 1: 3 runs in 2 tasks" in capsys.readouterr().out
    assert [call[0] for call in commands.calls] == ["sbatch", "scancel"]


def test_an_array_beyond_the_sites_limit_is_cut(tmp_path, commands, capsys):
    commands.tell("max_array", 2)
    outcome, _ = slurm(seeds(5), tmp_path, slots=5)
    assert outcome.count("finished") == 5
    assert set(begun(tmp_path).values()) == {1}
    taken = [a for call in commands.submitted() for a in call if a.startswith("--array")]
    assert taken == ["--array=0-4", "--array=0-2", "--array=0-1", "--array=0-0", "--array=0-1"]
    words = "sbatch: Batch job submission failed: Invalid job array specification; the array is cut"
    assert capsys.readouterr().out.count(words) == 1


def test_a_full_queue_is_waited_for(tmp_path, commands, monkeypatch, capsys):
    monkeypatch.setattr(slurm_executor, "_RETRY_SECONDS", 0.2)
    commands.tell("max_jobs", 2)
    outcome, _ = slurm(seeds(3), tmp_path, slots=3)
    assert outcome.count("finished") == 3
    assert (
        "job submit limit, user's size and/or time limits); trying again" in capsys.readouterr().out
    )


def test_jobs_that_end_just_after_a_refusal_explain_it(tmp_path, commands, monkeypatch):
    """The queue was full when Slurm refused, and empty a moment later, when it was looked at."""
    monkeypatch.setattr(slurm_executor, "_RETRY_SECONDS", 0.2)
    looks = iter([True, False])
    is_idle = SlurmQueue.is_idle
    monkeypatch.setattr(SlurmQueue, "is_idle", lambda queue: next(looks, is_idle(queue)))
    commands.tell("max_jobs", 2)
    outcome, _ = slurm(seeds(3), tmp_path, slots=3)
    assert outcome.count("finished") == 3
    assert next(looks, "none is left") in (False, "none is left")  # it was refused, and looked


def test_a_limit_that_nothing_in_the_queue_explains_is_a_refusal(tmp_path, commands):
    commands.tell("max_jobs", "0")
    with pytest.raises(ConfigError, match=r"QOSMaxSubmitJobPerUserLimit.*violates"):
        slurm(seeds(3), tmp_path)
    assert not (tmp_path / HOME).exists()


def test_why_nothing_begins_is_said_and_stopping_cancels_it(tmp_path, commands, capsys):
    commands.tell("hold", "QOSMaxGRESPerUser")
    events = []
    looked = time.monotonic()
    Scheduler(
        ListSource(seeds(3)),
        make_engine(tmp_path, engine="slurm", slots=2),
        tmp_path,
        should_stop=lambda: time.monotonic() - looked > 3,
        watch=events.append,
    ).run()
    assert [type(event) for event in events] == [Stopped] * 3
    said = capsys.readouterr().out
    assert "Slurm: 2 tasks waiting (QOSMaxGRESPerUser)" in said
    assert "scancel 1: its runs checkpoint and end" in said
    assert commands.calls[-1] == ["scancel", "1"]
    assert not (tmp_path / HOME).exists()


def test_a_queue_that_does_not_answer_loses_nothing(tmp_path, commands, capsys):
    commands.tell("squeue_down")
    outcome, events = slurm(seeds(4), tmp_path)
    assert outcome.count("finished") == 4
    assert not any(isinstance(event, Retried) for event in events)
    assert "slurm_load_jobs error: Unable to contact slurm controller" in capsys.readouterr().out


def test_a_killed_task_costs_the_run_it_was_at_a_try_and_the_others_none(tmp_path, commands):
    engine = make_engine(tmp_path, "waiting", "slurm", slots=1)
    events = []

    def watch(event):
        events.append(event)
        if isinstance(event, Started) and len(events) == 1:
            os.killpg(commands.live()[0], signal.SIGKILL)
            (tmp_path / "go").touch()

    outcome = Scheduler(ListSource(seeds(3)), engine, tmp_path, watch=watch).run()
    assert outcome.count("finished") == 3
    (retried,) = [event for event in events if isinstance(event, Retried)]
    assert retried.run == seeds(3)[0]
    assert retried.reason.startswith("its Slurm task ended without it: ")
    assert sum(isinstance(event, Stopped) for event in events) == 2
    assert len(commands.submitted()) == 2


def test_a_run_that_no_task_brings_further_is_not_submitted_for_ever(tmp_path, commands):
    engine, (run,) = make_engine(tmp_path, engine="slurm", slots=1), seeds(1)
    ends = []
    for step in (3, 5, 5, 4, 6):
        engine._make_batch([run])
        (task,) = engine._tasks.values()
        journal = Journal(task.batch.said(0))
        for event in (Started(run, 0), Progress(run, 0, step, None), Stopped(run, 0)):
            journal.write(event)
        for line in task.tail.news():
            list(engine._take(task, line, None))
        ends += engine._close_task(task, stopping=False)
    assert [type(end) for end in ends] == [Stopped, Stopped, Lost, Lost, Stopped]


def test_a_task_that_ends_before_it_begins_is_a_failure_with_its_last_words(
    tmp_path, commands, monkeypatch
):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    outcome, _ = slurm(seeds(2), tmp_path, slots=1)
    assert [f.attempts for f in outcome.failures] == [2, 2]
    assert "its Slurm task ended before it began: " in outcome.failures[0].reason
    assert "/no/such/python: not found" in outcome.failures[0].reason


def test_failures_in_a_row_cancel_what_is_in_the_queue(tmp_path, commands):
    runs = [seeds(3)[2].replace(lr=lr) for lr in (0.1, 0.2, 0.3, 0.4, 0.5)]
    outcome, _, _ = sweep(runs, tmp_path, "troubled", slots=1, max_failures=2, engine="slurm")
    assert outcome.gave_up
    failed = [failure.run.lr for failure in outcome.failures]
    assert failed[:2] == [0.1, 0.2]
    assert len(failed) < len(runs)  # an array hears of the cancelling a run or so later
    assert "ValueError: no good" in outcome.failures[0].traceback
    assert commands.calls[-1][0] == "scancel"
    until(lambda: not commands.live())


def typed(tmp_path, *options):
    command = [*COMMAND, "sweep", "s.yaml", "--executor", "slurm", "--jobs", "2", "--wandb"]
    return subprocess.Popen(
        [*command, "disabled", *options],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_closed_and_typed_again_it_hears_the_array_that_goes_on(tmp_path, commands, number):
    (tmp_path / "s.yaml").write_text(SWEEP)
    with typed(tmp_path) as first:
        until(commands.live)
        time.sleep(0.5)
        first.send_signal(number)
        said, _ = first.communicate()
    assert ("goes on; the same command shows it again" in said) == (number == signal.SIGHUP)
    again = typed(tmp_path)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    # Fewer than three where this machine was slow to begin the second command.
    assert re.search(r"Slurm job 1 of an earlier call goes on: [1-3] run", said)
    assert len(commands.submitted()) == 1
    assert re.search(r"3 runs trained|1 run trained .* 2 reused|2 runs trained .* 1 reused", said)
    assert not (tmp_path / "runs" / HOME).exists()


@pytest.mark.slow
def test_stopped_without_a_terminal_it_says_what_it_cancels_and_all_can_go_on(tmp_path, commands):
    (tmp_path / "s.yaml").write_text(SWEEP.replace("max_steps: {value: 2}", "epochs: {value: 900}"))
    with typed(tmp_path) as process:
        until(lambda: list((tmp_path / "runs").glob("*/checkpoint.pt")), seconds=120)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "scancel 1: its runs checkpoint and end" in said
    assert not commands.live()
    assert not any(RunFolder(p).is_claimed() for p in (tmp_path / "runs").glob("*-*"))


def test_kept_jobs_go_on_and_every_run_is_answered(tmp_path, commands, capsys):
    asked = []
    keep = SlurmOptions(may_cancel=lambda question: bool(asked.append(question)))
    engine = make_engine(tmp_path, "waiting", "slurm", slots=2, slurm=keep)
    engine._asks = False  # with nobody to answer it would wait
    started = []
    watch = [lambda event: started.append(event) if isinstance(event, Started) else None]
    stop = lambda: len(started) >= 2  # noqa: E731
    outcome = Scheduler(
        ListSource(seeds(4)), engine, tmp_path, should_stop=stop, watch=watch[0]
    ).run()
    assert outcome.stopped
    assert asked == ["scancel 1?"]
    assert len(commands.live()) == 2
    threading.Timer(3, (tmp_path / "go").touch).start()  # once the second has looked
    again, _, _ = sweep(seeds(4), tmp_path, "waiting", engine="slurm")
    assert again.count("finished") + len(again.reused) == 4
    assert len(commands.submitted()) == 1
    assert "Slurm job 1 of an earlier call goes on" in capsys.readouterr().out


def test_the_array_of_a_command_at_work_is_let_alone(tmp_path, commands):
    (tmp_path / "go").touch()
    engine = make_engine(tmp_path, "sleeper", "slurm", slots=1)
    engine._asks = False  # it is not heard while the other sweep is at work
    events = engine.submit(iter(seeds(2)), lambda run, row: False, lambda: False)
    first = next(events)
    outcome, _, _ = sweep(seeds(2), tmp_path, engine="slurm", slots=1)
    assert len(outcome.results) + len(outcome.reused) == 2
    rest = [first, *events]
    assert sum(isinstance(event, Ended) for event in rest) >= 1
    assert set(begun(tmp_path).values()) == {1}
    assert list(batches(tmp_path)) == []


def test_what_tasks_are_told_is_what_was_meant(tmp_path):
    tracking = TrackingOptions(mode="offline", project="p", tags=("a",), sweep_id="s")
    options = EngineOptions(
        runs_dir=tmp_path, data_dir=tmp_path, tracking=tracking, slots=3, threads=2, trial="a:b"
    )
    own = OwnConfig(trial="mine:train", norm="group", num_groups=4, own=(("depth", 3), ("c", "x")))
    runs = [*seeds(4), own, TrainConfig(group_size=8, lr=1 / 3, dataset="mnist-5k")]
    batch = Batch(tmp_path / "batch")
    batch.path.mkdir()
    batch.write(Order(options=options, tasks=2, asks=False), runs)
    assert batch.read() == Order(options=options, tasks=2, asks=False)
    assert [batch.runs_of(0), batch.runs_of(1)] == [runs[0::2], runs[1::2]]


def test_with_nobody_to_answer_no_run_is_pruned(tmp_path, monkeypatch):
    from groupnorm_bench.sweep.executors.slurm import task

    monkeypatch.setattr(task, "_PATIENCE", 0.3)
    batch = Batch(tmp_path)
    answers = Answers(batch, 0, Journal(batch.said(0)), lambda: False)
    (run,) = seeds(1)
    assert answers(run, {"epoch": 1}) is False
    before = time.monotonic()
    assert answers(run, {"epoch": 2}) is False  # not waited for a second time
    assert time.monotonic() - before < 0.2
    told = [json.loads(line) for line in batch.said(0).read_text().splitlines()]
    assert [line["row"] for line in told] == [{"epoch": 1}, {"epoch": 2}]

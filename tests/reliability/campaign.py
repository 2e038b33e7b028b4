"""The crash campaign: a fault at each call that changes the runs folder, then the command again.

    python -m tests.reliability.campaign train|sweep|sync [--all | --rounds 2 | --only NAME]
                                                          [--journal FILE]

A scene is a runs folder as a command may find it, and the command. It is run once in peace, which
tells how many calls there are and what should come out; then once for each fault at each call.
After a fault nothing that was settled may be lost or changed, undone work may not exit 0, and an
error is one line with a remedy. Then the same command without a fault must end with exactly what
the undisturbed one left, having trained no epoch whose checkpoint or result was there. With a
journal, a campaign that was stopped goes on where it was when it is typed again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.reliability import faults
from tests.reliability.faults import DEATHS, ERRORS, Fault
from tests.reliability.journal import Journal
from tests.reliability.zygote import HUNG, Done, Zygote
from tests.support.wandb_server import API_KEY, WandbServer

SECONDS = 240
"""By the clock, after which a command hangs: a sync may take a minute where others work, too."""
TIMES = ("perf/", "train_seconds", "images_per_second", "peak_memory_mb", "seconds")
SETTLED = ("finished", "diverged", "pruned")
SETTINGS = ("--dataset", "mnist-5k", "--train-limit", "64", "--batch_size", "32", "--epochs", "2")
TRAIN = ("train", "--norm", "none", *SETTINGS, "--out", "runs", "--wandb", "disabled")
SWEEP_FILE = """
name: faults
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, group]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  epochs: {value: 2}
"""
SWEEP = (
    *("sweep", "sweep.yaml", "--out", "runs", "--wandb", "disabled", "--workers", "1"),
    *("--seeds", "1", "--json"),
)
OFFLINE = ("offline" if word == "disabled" else word for word in SWEEP)
SYNC = ("sync", "runs")
NEIGHBOUR = ("train", "--norm", "batch", *SETTINGS, "--out", "runs", "--wandb", "disabled")


@dataclass(frozen=True, slots=True)
class Scene:
    """A runs folder as a command may find it, and the command."""

    name: str
    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    """Commands that make the folder."""
    cut: str = ""
    """The last of them is killed at the first call whose path has this in it, and see `skip`."""
    skip: int = 0
    """How many such calls go well before that."""
    retrains: bool = False
    """The command trains what is settled, since it was told to."""
    uploads: bool = False
    """The command talks to a W&B server: one of its own for each case."""


SCENES = {
    "train": (
        Scene("fresh", TRAIN),
        Scene("half-done", TRAIN, before=(NEIGHBOUR, TRAIN), cut="/.checkpoint.pt", skip=1),
        Scene("forced", (*TRAIN, "--force"), before=(TRAIN,), retrains=True),
    ),
    "sweep": (
        Scene("fresh", SWEEP),
        Scene("half-done", SWEEP, before=(NEIGHBOUR, TRAIN), cut="/.checkpoint.pt", skip=1),
    ),
    "sync": (Scene("offline", SYNC, before=(tuple(OFFLINE),), uploads=True),),
}


@dataclass(slots=True)
class Place:
    """A temporary folder in which a case happens."""

    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    server: WandbServer | None = None

    def environment(self, fault: Fault | None = None) -> dict[str, str]:
        told = faults.bare_environment(self.path / "home")
        told["WANDB_BASE_URL"] = self.server.url if self.server else "http://127.0.0.1:9"
        if self.server:
            told |= {"WANDB_API_KEY": API_KEY, "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        told["NUMBA_CACHE_DIR"] = os.environ.get("NUMBA_CACHE_DIR", str(self.path / "numba"))
        return told | faults.environment(self.runs, self.path, fault)

    def results(self) -> dict[str, dict[str, Any]]:
        """Return by folder what each `result.json` says; a torn one says that it is torn."""
        found = {}
        for path in sorted(self.runs.glob("*/result.json")):
            try:
                found[path.parent.name] = json.loads(path.read_bytes())
            except ValueError:
                found[path.parent.name] = {"status": "torn"}
        return found

    def settled(self) -> dict[str, tuple[bytes, bytes]]:
        """Return by folder the bytes of each settled result and of its hits."""
        kept = {}
        for name, result in self.results().items():
            if result["status"] in SETTLED:
                folder = self.runs / name
                hits = folder / "test_hits.npy"
                content = hits.read_bytes() if hits.exists() else b""
                kept[name] = ((folder / "result.json").read_bytes(), content)
        return kept

    def tree(self) -> set[str]:
        """Return the paths under the runs folder, less what W&B keeps in a run's folder."""
        return {
            str(path.relative_to(self.runs))
            for path in self.runs.rglob("*")
            if "wandb" not in path.relative_to(self.runs).parts[1:]
        }

    def scratch(self) -> list[str]:
        """Return what is left in the folder of temporary files; W&B's own programs leave some."""
        names = sorted(path.name for path in (self.path / "home" / "tmp").iterdir())
        return [name for name in names if self.server is None or name.startswith("gnbench")]

    def epochs(self) -> Counter[str]:
        """Return by folder how many epochs its checkpoint holds."""
        import torch

        held: Counter[str] = Counter()
        for path in self.runs.glob("*/checkpoint.pt"):
            with contextlib.suppress(Exception):
                held[path.parent.name] = len(torch.load(path, weights_only=True)["history"])
        return held

    def checkpoints(self) -> Counter[str]:
        """Return by folder how many checkpoints the last command put in place."""
        return Counter(
            call.path.parent.name
            for call in faults.calls(self.path)
            if call.name == "rename" and call.path.name == "checkpoint.pt"
        )


def essence(place: Place) -> dict[str, Any]:
    """Return what the runs folder holds but for times, places and W&B's ids."""

    def lasting(row: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if not key.startswith(TIMES)}

    hits = {name: content for name, (_, content) in place.settled().items()}
    return {
        name: {
            "config": result["config"],
            "status": result["status"],
            "history": [lasting(row) for row in result["history"]],
            "summary": lasting(result["summary"]),
            "hits": hits.get(name),
        }
        for name, result in place.results().items()
        if result["status"] != "torn"
    }


@dataclass(slots=True)
class Reference:
    """What a scene's command does when nothing goes wrong."""

    scene: Scene
    template: Path
    calls: list[faults.Call]
    essence: dict[str, Any]
    tree: set[str]
    checkpoints: Counter[str]

    def faults(self) -> list[Fault]:
        """Return every fault at every call, in rounds: each has one at every call that has so many.

        The first has a death at each call, the second an error, the third a death again. A write
        can be torn, the others cannot; to kill the process group is to kill the process where one
        process makes every call.
        """
        alone = len({call.process for call in self.calls}) == 1
        chance = random.Random(self.scene.name)
        rounds: dict[int, list[Fault]] = {}
        for call in self.calls:
            apart = {"TORN": call.name == "write", "CUT": not alone}
            deaths = [Fault(kind, call.number) for kind in DEATHS if apart.get(kind, True)]
            kinds = itertools.product(ERRORS, (False, True))
            errors = [Fault(kind, call.number, stays) for kind, stays in kinds]
            for drawn in (deaths, errors):
                chance.shuffle(drawn)
            pairs = itertools.zip_longest(deaths, errors)
            alternating = (fault for pair in pairs for fault in pair if fault)
            for number, fault in enumerate(alternating):
                rounds.setdefault(number, []).append(fault)
        return [fault for number in sorted(rounds) for fault in rounds[number]]


def prepare(scene: Scene, zygote: Zygote, folder: Path) -> Reference:
    """Make a scene's folder once, and run its command in peace.

    Raises:
        AssertionError: even that goes wrong.
    """
    place = Place(folder / scene.name)
    place.path.mkdir(parents=True)
    (place.path / "sweep.yaml").write_text(SWEEP_FILE)
    for number, command in enumerate(scene.before):
        fault = None
        if scene.cut and number == len(scene.before) - 1:
            fault = _cut(scene, command, zygote, place)
        done = _run(zygote, command, place, fault)
        assert done.code == (-9 if fault else 0), done.err
    template = folder / f"{scene.name}.template"
    shutil.copytree(place.path, template, symlinks=True)
    with served(scene, place):
        done = _run(zygote, scene.command, place)
        assert done.code == 0, done.err
        assert not (lacking := lacking_on_server(place)), lacking
    counted = faults.calls(place.path)
    assert [call.number for call in counted] == list(range(1, len(counted) + 1))
    return Reference(scene, template, counted, essence(place), place.tree(), place.checkpoints())


def _run(zygote: Zygote, command: Sequence[str], place: Place, fault: Fault | None = None) -> Done:
    env = place.environment(fault)
    return zygote.run(command, cwd=place.path, env=env, seconds=SECONDS)


@contextlib.contextmanager
def served(scene: Scene, place: Place) -> Iterator[None]:
    """Have a W&B server of its own for a place whose command needs one."""
    if not scene.uploads:
        yield
        return
    with WandbServer(place.path / "server.sqlite") as place.server:
        yield
    place.server = None


def lacking_on_server(place: Place) -> list[str]:
    """Return what the server lacks of the runs folder, none where there is no server."""
    if place.server is None:
        return []
    found = {row["display_name"]: row for row in place.server.runs()}
    problems = []
    for name, result in place.results().items():
        row = found.get(name)
        if row is None or row["state"] != "finished":
            problems.append(f"{name} is {'missing' if row is None else row['state']} on W&B")
            continue
        epochs = {line.get("epoch") for line in row["history"]} - {None}
        if epochs != {line["epoch"] for line in result["history"]}:
            problems.append(f"{name} has the epochs {sorted(epochs)} on W&B")
        if row["summary"].get("test/accuracy") != result["summary"]["test/accuracy"]:
            problems.append(f"{name} has no test/accuracy on W&B")
    return problems


def double_on_server(place: Place) -> list[str]:
    """Return what is on the server more than once."""
    if place.server is None:
        return []
    runs, sweeps = place.server.runs(), place.server.store.all("SELECT * FROM sweeps")
    problems = [f"{len(runs)} runs on W&B"] if len(runs) != len(place.results()) else []
    if len(sweeps) != 1:
        problems.append(f"{len(sweeps)} sweeps on W&B")
    elif outside := [row["display_name"] for row in runs if row["sweep"] != sweeps[0]["name"]]:
        problems.append(f"{outside} not in the sweep")
    return problems


def _cut(scene: Scene, command: Sequence[str], zygote: Zygote, place: Place) -> Fault:
    """Return the fault that leaves the folder as `scene` has it, found on a copy of it."""
    trial = Place(place.path.with_suffix(".trial"))
    shutil.copytree(place.path, trial.path, symlinks=True)
    _run(zygote, command, trial)
    found = [call.number for call in faults.calls(trial.path) if scene.cut in str(call.path)]
    shutil.rmtree(trial.path)
    opened = [n for n in found if n - 1 not in found]  # a file's open, write, fsync in a row
    return Fault("KILL", opened[scene.skip])


@dataclass(slots=True)
class Case:
    """A fault in a scene, and what was wrong after it."""

    scene: str
    fault: Fault
    call: faults.Call
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """Exit codes and messages."""
    reached: bool = True
    """The command came to the call; one that ended before had nothing go wrong."""

    @property
    def name(self) -> str:
        return f"{self.scene}:{self.fault}"

    @property
    def problems(self) -> list[str]:
        return [*self.lost, *self.twice, *self.left, *self.told]

    def __str__(self) -> str:
        where = f"{self.call.name} {'/'.join(self.call.path.parts[-2:])}"
        return f"{self.name} ({where}): " + "; ".join(self.problems)

    def verdict(self) -> dict[str, Any]:
        """Return what was found, for a journal."""
        found = asdict(self)
        return {key: found[key] for key in ("lost", "twice", "left", "told", "reached")}


def play(reference: Reference, fault: Fault, zygote: Zygote, folder: Path) -> Case:
    """Play a case in `folder` and judge it."""
    scene = reference.scene
    case = Case(scene.name, fault, reference.calls[fault.at - 1])
    place = Place(folder)
    shutil.copytree(reference.template, folder, symlinks=True)
    before = place.settled()
    with served(scene, place):
        done = _run(zygote, scene.command, place, fault)
        case.reached = faults.count(place.path) >= fault.at
        if not wait_for_processes(done.session):
            case.left.append("processes outlive the command")
        _judge_fault(case, reference, place, done, before)
        kept, epochs = place.settled(), place.epochs()
        done = _run(zygote, scene.command, place)
        _judge_repeat(case, reference, place, done, kept, epochs)
        case.lost += lacking_on_server(place)
        case.twice += double_on_server(place)
    if not wait_for_processes(done.session):
        case.left.append("processes outlive the second command")
    return case


def _judge_fault(
    case: Case,
    reference: Reference,
    place: Place,
    done: Done,
    before: dict[str, tuple[bytes, bytes]],
) -> None:
    if done.code == HUNG:
        case.told.append("hangs")
    if "Traceback" in done.err:
        case.told.append("a traceback: " + done.err.strip().splitlines()[-1])
    now = essence(place)
    whole = now == reference.essence and not lacking_on_server(place)
    if done.code == 0 and not whole:
        case.told.append("exit 0 with work undone")
    if done.code not in (0, HUNG) and not (done.code == -9 and case.fault.kind in DEATHS):
        _judge_error(case, done)
    if not reference.scene.retrains:
        after = place.settled()
        case.lost += [f"{name} was settled" for name in before if after.get(name) != before[name]]
    for name, told in now.items():
        if told["status"] in SETTLED and told != reference.essence.get(name):
            case.lost.append(f"{name} is settled with another result")


def _judge_error(case: Case, done: Done) -> None:
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    if done.code not in (2, 3):
        case.told.append(f"exit code {done.code}")
    if len(errors) != 1:
        case.told.append(f"{len(errors)} error lines")
    elif ";" not in errors[0]:
        case.told.append(f"no remedy: {errors[0]}")


def _judge_repeat(
    case: Case,
    reference: Reference,
    place: Place,
    done: Done,
    kept: dict[str, tuple[bytes, bytes]],
    epochs: Counter[str],
) -> None:
    if done.code != 0:
        last = (done.err.strip().splitlines() or ["nothing"])[-1]
        case.told.append(f"the second command ends with {done.code}: {last}")
    if "Traceback" in done.err:
        case.told.append("a traceback of the second command")
    now = essence(place)
    for name, told in reference.essence.items():
        if now.get(name) != told:
            case.lost.append(f"{name} is not what an undisturbed command leaves")
    trained = place.checkpoints()
    if not reference.scene.retrains:
        after = place.settled()
        for name, content in kept.items():
            if after.get(name) != content:
                case.lost.append(f"{name} was settled and is changed")
        for name in trained:
            if name in kept:
                case.twice.append(f"{name} was settled and is trained again")
            # A run of two epochs in all; those that its checkpoint holds are done.
            elif trained[name] > 2 - epochs[name]:
                case.twice.append(f"{name}: {epochs[name]} epochs done, {trained[name]} trained")
    aside = {"result.1.json", "result.2.json"} if reference.scene.retrains else set()
    extra = {path for path in place.tree() - reference.tree if Path(path).name not in aside}
    case.left += [f"{path} too many" for path in sorted(extra)]
    case.lost += [f"{path} is missing" for path in sorted(reference.tree - place.tree())]
    case.left += [f"{name} in the temporary folder" for name in place.scratch()]


def processes(session: int) -> list[int]:
    """Return the processes that are left of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(words[3]) == session and words[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_for_processes(session: int, seconds: float = 15) -> bool:
    """Wait until nothing is left of a session; end what does not end, and return False then."""
    deadline = time.monotonic() + seconds
    while left := processes(session):
        if time.monotonic() > deadline:
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, 9)
            return False
        time.sleep(0.02)
    return True


def chosen(
    references: Sequence[Reference],
    sample: int | None = None,
    only: str | None = None,
    rounds: int | None = None,
) -> list[tuple[Reference, Fault]]:
    """Return the cases to play: all, some rounds of them, `sample` of them, or the one named."""
    if rounds is not None:
        return [(r, f) for r in references for f in r.faults()[: rounds * len(r.calls)]]
    cases = [(reference, fault) for reference in references for fault in reference.faults()]
    if only is not None:
        return [(r, f) for r, f in cases if f"{r.scene.name}:{f}" == only]
    if sample is not None and sample < len(cases):
        return random.Random(0).sample(cases, sample)
    return cases


def run_campaign(
    what: str,
    *,
    sample: int | None = None,
    only: str | None = None,
    rounds: int | None = None,
    jobs: int = 2,
    say: Callable[[str], None] = lambda line: None,
    journal: Journal | None = None,
) -> tuple[list[Case], list[Reference]]:
    """Play the campaign of a command; return its cases and the undisturbed runs.

    Cases that the journal holds are taken from it.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
        zygotes = [stack.enter_context(Zygote()) for _ in range(jobs)]
        references = [prepare(scene, zygotes[0], folder) for scene in SCENES[what]]
        for reference in references:
            say(f"{what} {reference.scene.name}: {len(reference.calls)} calls")
        cases = chosen(references, sample, only, rounds)
        done = [case for pair in cases if (case := _journaled(*pair, journal))]
        known = {case.name for case in done}
        waiting = [(r, f) for r, f in cases if f"{r.scene.name}:{f}" not in known]
        if done:
            say(f"{len(done)} of {len(cases)} are in the journal")
        for case in _play_all(waiting, zygotes, folder, say):
            done.append(case)
            if journal:
                journal.add(case.name, case.verdict())
            if len(done) % 10 == 0:
                say(f"{len(done)} of {len(cases)}")
    return done, references


def _journaled(reference: Reference, fault: Fault, journal: Journal | None) -> Case | None:
    case = Case(reference.scene.name, fault, reference.calls[fault.at - 1])
    found = journal.done.get(case.name) if journal else None
    if found is None:
        return None
    for key in case.verdict():
        setattr(case, key, found[key])
    return case


def _play_all(
    cases: Sequence[tuple[Reference, Fault]],
    zygotes: Sequence[Zygote],
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[Case]:
    waiting = iter(enumerate(cases))
    lock, ended = threading.Lock(), queue.SimpleQueue[Case | BaseException | None]()

    def work(zygote: Zygote) -> None:
        try:
            while True:
                with lock:
                    number, (reference, fault) = next(waiting, (0, (None, None)))
                if reference is None or fault is None:
                    return
                place = folder / f"case-{number}"
                ended.put(play(reference, fault, zygote, place))
                shutil.rmtree(place, ignore_errors=True)
        except BaseException as error:
            ended.put(error)
        finally:
            ended.put(None)

    threads = [threading.Thread(target=work, args=(zygote,), daemon=True) for zygote in zygotes]
    for thread in threads:
        thread.start()
    for _ in threads:
        while (case := ended.get()) is not None:
            if isinstance(case, BaseException):
                raise case
            if case.problems:
                say(str(case))
            yield case
    for thread in threads:
        thread.join()


def summary(what: str, cases: Sequence[Case], references: Sequence[Reference]) -> str:
    """Return the line that a campaign ends with."""
    calls = sum(len(reference.calls) for reference in references)
    counts = {
        "lost": sum(bool(case.lost) for case in cases),
        "trained twice": sum(bool(case.twice) for case in cases),
        "left over": sum(bool(case.left) for case in cases),
        "wrongly told": sum(bool(case.told) for case in cases),
    }
    told = ", ".join(f"{number} {word}" for word, number in counts.items())
    met = {(case.scene, case.fault.at) for case in cases if case.reached}
    missed = sum(not case.reached for case in cases)
    return (
        f"{what}: {calls} calls, a fault at {len(met)} of them, {len(cases)} faults, {missed} of "
        f"them not reached: {told}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=sorted(SCENES))
    parser.add_argument("--all", action="store_true", help="every fault at every call")
    parser.add_argument("--rounds", type=int, help="so many faults at every call")
    parser.add_argument("--sample", type=int, default=30, help="faults drawn (default 30)")
    parser.add_argument("--only", help="one case, as `fresh:KILL@17`")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--journal", type=Path, help="go on with what this file holds")
    options = parser.parse_args()
    try:
        journal = Journal(options.journal, options.what) if options.journal else None
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the scratch folder goes
    started = time.monotonic()
    cases, references = run_campaign(
        options.what,
        sample=None if options.all else options.sample,
        only=options.only,
        rounds=options.rounds,
        jobs=options.jobs,
        say=lambda line: print(line, flush=True),
        journal=journal,
    )
    print(summary(options.what, cases, references), f"in {time.monotonic() - started:.0f} s")
    sys.exit(any(case.problems for case in cases))


if __name__ == "__main__":
    main()

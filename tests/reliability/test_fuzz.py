"""The fuzzer: no traceback, no exit code that is not documented, no hang, no write elsewhere."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.reliability import faults, fuzz
from tests.reliability.zygote import HUNG, Zygote

pytestmark = pytest.mark.skipif(faults.compiler() is None, reason="there is no C compiler")

SECONDS = 10
"""Of processor time; a machine that others use too may take longer by the clock."""
QUICK = 6
CODES = {
    "train": {0, 2, 3},
    "compare": {0, 2, 4, 5},
    "sweep": {0, 2},
    "report": {0, 2},
    "status": {0, 2},
    "show": {0, 2},
    "sync": {0, 2},
}
MAY_WRITE = {
    "train": ("work/runs", "work/data"),
    "report": ("work/report.html",),
}


@pytest.fixture(scope="module")
def zygote():
    with Zygote() as running:
        yield running


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "template"
    fuzz.build(folder / "work")
    return folder


_numbers = itertools.count()


def snapshot(folder: Path) -> dict[str, object]:
    """Return what stands for the content of everything under a folder."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        told = path.lstat()
        content: object = None
        if stat.S_ISREG(told.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(told.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(folder))] = (stat.S_IFMT(told.st_mode), content)
    return found


def judge(
    zygote: Zygote,
    template: Path,
    change: fuzz.Change,
    command: tuple[str, ...],
    *,
    may_refuse: bool = True,
) -> None:
    """Make the change in a copy of the folder, run the command, and fail on what it must not do."""
    folder = template.parent / f"case-{next(_numbers)}"
    shutil.copytree(template, folder, symlinks=True)
    try:
        work = folder / "work"
        change.make(work)
        before = snapshot(folder)
        environment = faults.bare_environment(folder.with_name(f"{folder.name}-home"))
        environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9"}
        if command[0] == "train":
            command = (*command, "--wandb=disabled")
        done = zygote.run(command, cwd=work, env=environment, seconds=12 * SECONDS)
        shown = f"gnbench {' '.join(command)!r:.500} after {change!r}:\n{done.err[-3000:]}"
        assert done.code != HUNG, f"hangs: {shown}"
        assert done.seconds < SECONDS, f"takes {done.seconds:.0f} s: {shown}"
        assert "Traceback" not in done.err, shown
        assert done.code in CODES[command[0]], f"exit {done.code}: {shown}"
        assert may_refuse or done.code != 2, shown
        if done.code == 2:
            errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1, shown
        assert "\x1b" not in done.out + done.err, f"control characters: {shown}"
        (work / "stdout.txt").unlink()
        (work / "stderr.txt").unlink()
        allowed = MAY_WRITE.get(command[0], ())
        if any(word.startswith(tuple(f"{name}=" for name in fuzz.PLACES)) for word in command):
            allowed = ("work/",)  # where the user said
        after = snapshot(folder)
        written = {name for name in before | after if before.get(name) != after.get(name)}
        elsewhere = sorted(name for name in written if not name.startswith(allowed or ("\0",)))
        assert not elsewhere, f"writes {elsewhere}: {shown}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(f"{folder.name}-home"), ignore_errors=True)


def _cases(strategy: st.SearchStrategy, commands: tuple[tuple[str, ...], ...]):
    return st.tuples(strategy, st.sampled_from(commands))


KINDS = {
    "results": _cases(fuzz.run_changes(), fuzz.READERS),
    "sweep-files": _cases(fuzz.sweep_changes(), fuzz.SWEEPS),
    "checkpoints": _cases(fuzz.train_changes(), fuzz.TRAINS),
    "options": st.tuples(fuzz.NOTHING, fuzz.options()),
}


def check(kind: str, examples: int, zygote: Zygote, template: Path) -> None:
    @settings(  # unshrunk: a case takes 0.1 to 1 s, and says itself what was changed
        max_examples=examples,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(KINDS[kind])
    def fuzzed(case):
        judge(zygote, template, *case)

    fuzzed()


@pytest.mark.parametrize("command", [*fuzz.READERS, *fuzz.SWEEPS, *fuzz.TRAINS], ids=" ".join)
def test_what_is_changed_works_unchanged(command, zygote, template):
    """Else every case would be refused for the same reason, and find nothing."""
    judge(zygote, template, fuzz.UNCHANGED, command, may_refuse=False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_wrote_never_ends_in_a_traceback_or_a_hang(kind, zygote, template):
    check(kind, QUICK, zygote, template)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "examples"),
    [("results", 900), ("sweep-files", 400), ("checkpoints", 200), ("options", 500)],
)
def test_2000_cases_of_it(kind, examples, zygote, template):
    check(kind, examples, zygote, template)

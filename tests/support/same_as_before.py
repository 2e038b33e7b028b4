"""Whether two checkouts give the same answers on the same run folders, byte for byte.

    python tests/support/same_as_before.py --before DIR --after DIR --runs RUNS [--sweep FILE]...

Every command runs twice, once with each checkout's package, on a copy of RUNS of its own; exit
code, stdout and the files written are compared. Times and versions are masked, and so are the
fields in `ALLOWED`; what was masked and did differ is printed. `sync` goes to the tests' W&B
server, one for each checkout. Exits with 1 where anything else differs.

RUNS is best made by the older checkout: a sweep with W&B offline, some runs diverged, some pruned.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from groupnorm_bench.settings.fields import SETTINGS  # noqa: E402
from tests.support.wandb_server import API_KEY, WandbServer  # noqa: E402

TIMES = re.compile(
    r"^(seconds|.*_seconds|images_per_second|perf/.*|peak_memory_mb|started|_runtime|_timestamp"
    r"|(step_)?seconds_per_.*|estimate.*)$"
)
"""Keys whose values are of the clock and the machine, never of the product."""

_VERDICTS = (
    *("contrasts", "aggregates", "groups", "question", "rule", "notes", "common"),
    *("seeds_needed", "smallest_p", "sentence", "outcome"),
)
ALLOWED: dict[str, str] = {
    "version": "the package's own",
    "commit": "the checkout's",
    "val/num_images": "new: how many images an accuracy is of is written down, no longer guessed",
    "test/num_images": "new: as above",
    "timed_on": "new: speeds of several machines stand apart",
    "questions": "new: what the sweeps in a folder asked",
    **dict.fromkeys(_VERDICTS, "other verdicts since: they hold whenever they are read"),
    **{name: "new: a setting, at its default" for name, spec in SETTINGS.items() if spec.is_new},
}
"""Keys that may differ, or be there on one side only, and why."""

ROUNDING = 0.02
"""How far numbers of a run trained anew may lie apart: the steps are computed another way since."""

NEW_RUNS = """\
name: new
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [batch, group]}
  num_groups: {value: 8}
  batch_size: {value: 16}
  max_steps: {value: 12}
  train_limit: {value: 320}
  dataset: {value: mnist-5k}
  seed: {values: [100, 101]}
"""


@dataclass
class Case:
    """One command line, and what it leaves that is to be the same."""

    args: list[str]
    files: list[str] = field(default_factory=list)
    results_of: str = ""
    """Folders of runs matching this, trained anew, are compared by their `result.json` and hits."""


@dataclass
class Side:
    """One checkout at work, in a folder of its own that has the same names as the other's."""

    checkout: Path
    home: Path
    server: WandbServer

    def run(self, case: Case) -> dict[str, str]:
        """Return everything that the command gave, by name, as text."""
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("WANDB_", "GNBENCH_", "PYTHON"))
        }
        data = self.home / "data"
        data.mkdir(exist_ok=True)
        (data / ".fetch-mnist.failed").touch()  # no test tries the network
        env |= {
            "PYTHONPATH": str(self.checkout),
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "GNBENCH_DATA_DIR": "../data",
            "WANDB_BASE_URL": self.server.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
        }
        done = subprocess.run(
            [sys.executable, "-c", "from groupnorm_bench.cli import main; main()", *case.args],
            cwd=self.home / "work",
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=1800,
            check=False,
        )
        given = {"exit code": str(done.returncode), "stdout": done.stdout}
        if done.returncode:
            given["stderr"] = done.stderr
        for name in case.files:
            path = self.home / "work" / name
            given[name] = path.read_bytes().decode() if path.exists() else "(not written)"
        for folder in sorted((self.home / "work").glob(case.results_of)) if case.results_of else ():
            given[f"{folder.name}: result"] = (folder / "result.json").read_text()
            right = int(np.unpackbits(np.load(folder / "test_hits.npy")).sum())
            given[f"{folder.name}: hits"] = json.dumps({"right, in 100": right / 100})
        if case.args[0] == "sync" and "--dry-run" not in case.args:
            # sorted: W&B's client sends maps in whatever order
            given["the server's runs"] = json.dumps(self._uploaded(), indent=1, sort_keys=True)
        return given

    def _uploaded(self) -> list[dict[str, Any]]:
        keys = ("display_name", "config", "history", "summary", "state", "group", "tags")
        runs = [{key: run.get(key) for key in keys} for run in self.server.runs()]
        return sorted(runs, key=json.dumps)


def cases(runs: Path, sweeps: list[str]) -> Iterator[Case]:
    """Yield the command lines; `runs` and the sweep files lie in the working directory."""
    told = [json.loads(path.read_text()) for path in sorted(runs.glob("*/result.json"))]
    for status in ("finished", "diverged", "pruned"):
        for result in [run for run in told if run["status"] == status][:2]:
            settings = [f"{key}={value}" for key, value in result["config"].items() if value]
            sets = [part for setting in settings for part in ("--set", setting)]
            yield Case(["train", "--out", "runs", "--json", "--wandb", "offline", *sets])
    for name in (*sweeps, "new.yaml"):
        yield Case(["sweep", name, "--out", "runs", "--dry-run", "--json"])
    for name in sweeps:
        yield Case(["sweep", name, "--out", "runs", "--json", "--wandb", "disabled"])
    for options in (
        ["--json"],
        ["--json", "--metric", "val/accuracy", "--alpha", "0.1"],
        ["--json", "--baseline", "none", "--margin", "2"],
        ["--json", "--where", "norm!=none"],
        ["--json", "--choose", "num_groups"],
        ["--json", "--claim", "group-g8 > batch"],
        ["--json", "--metric", "images_per_second"],
        ["--format", "csv"],
        ["--format", "md"],
        [],
    ):
        yield Case(["compare", "runs", *options])
    yield Case(["report", "runs", "--out", "a.html", "--json"], ["a.html"])
    yield Case(["report", "runs", "--out", "a.md", "--format", "md"], ["a.md"])
    yield Case(["status", "runs", "--json"])
    yield Case(["status", "runs"])
    yield Case(["sync", "runs", "--dry-run", "--json"])
    yield Case(["dashboard", "runs", "--dry-run"])
    yield Case(["norms", "--json"])
    yield Case(["sync", "some", "--json", "-q"])
    new = ["--wandb", "disabled", "--json", "-q"]
    tiny = ["--max-steps", "12", "--train-limit", "320", "--dataset", "mnist-5k"]
    yield Case(["train", "--out", "mine", *tiny, *new], results_of="mine/*")
    yield Case(["sweep", "new.yaml", "--out", "new", "--workers", "1", *new], results_of="new/*")


class Masks:
    """What was masked, and differed."""

    def __init__(self) -> None:
        self.differed: set[str] = set()
        self.rounded = 0

    def of(self, before: str, after: str, *, is_trained: bool = False) -> tuple[str, str]:
        """Return both texts without what may differ."""
        try:
            sides = [json.loads(before), json.loads(after)]
        except ValueError:
            return self._masked_text(before), self._masked_text(after)
        self._mask(*sides, is_trained)
        texts = [json.dumps(side, indent=1) for side in sides]
        return texts[0], texts[1]

    def _mask(self, before: Any, after: Any, is_trained: bool) -> None:
        if isinstance(before, dict) and isinstance(after, dict):
            for key in {*before, *after}:
                one, other = before.get(key), after.get(key)
                if is_trained and one != other and _are_close(one, other):
                    before[key], self.rounded = other, self.rounded + 1
                if not (key in ALLOWED or TIMES.match(key)):
                    self._mask(one, other, is_trained)
                    continue
                if before.get(key) != after.get(key):
                    self.differed.add(key)
                before.pop(key, None)
                after.pop(key, None)
        elif isinstance(before, list) and isinstance(after, list):
            for pair in zip(before, after, strict=False):
                self._mask(*pair, is_trained)

    def _masked_text(self, text: str) -> str:
        text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( UTC|[+]00:00)?", "TIME", text)
        return re.sub(r"\b[0-9a-f]{40}\b", "COMMIT", text)


def _are_close(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, float | int) for value in (one, other))
    return numbers and math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)


def prepare(side: Side, runs: Path, sweeps: list[Path]) -> None:
    """Copy what the commands work on."""
    work = side.home / "work"
    work.mkdir(parents=True)
    shutil.copytree(runs, work / "runs", symlinks=True)
    offline = sorted(p for p in runs.glob("*") if any((p / "wandb").glob("*/*.wandb")))
    (work / "some").mkdir()
    for folder in offline[:: max(1, len(offline) // 4)][:4]:
        shutil.copytree(folder, work / "some" / folder.name, symlinks=True)
    for path in sweeps:
        shutil.copy(path, work / path.name)
    (work / "new.yaml").write_text(NEW_RUNS)


def compare(sides: list[Side], case: Case, masks: Masks, show: Callable[[str], None]) -> bool:
    """Run one case on both sides; return whether nothing differs but what may."""
    before, after = (side.run(case) for side in sides)
    differing = []
    for name in {**before, **after}:
        texts = (given.get(name, "(missing)") for given in (before, after))
        one, other = masks.of(*texts, is_trained=bool(case.results_of))
        if one != other:
            lines = difflib.unified_diff(
                one.splitlines(), other.splitlines(), f"before: {name}", f"after: {name}", n=1
            )
            differing.append("\n".join(line[:300] for line in list(lines)[:40]))
    show(f"{'DIFFERS' if differing else 'same   '}  gnbench {' '.join(case.args)[:120]}")
    for text in differing:
        show(text)
    return not differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="the older checkout")
    parser.add_argument("--after", type=Path, default=ROOT, help="the newer one; this one")
    parser.add_argument("--runs", type=Path, required=True, help="folder of run folders")
    parser.add_argument("--sweep", type=Path, action="append", default=[], help="a sweep file")
    parser.add_argument("--only", default="", help="only commands that begin so")
    options = parser.parse_args()
    masks, count, same = Masks(), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        homes = [Path(scratch) / name for name in ("before", "after")]
        checkouts = [options.before.resolve(), options.after.resolve()]
        with (
            WandbServer(Path(scratch) / "before.sqlite") as first,
            WandbServer(Path(scratch) / "after.sqlite") as second,
        ):
            sides = [Side(*parts) for parts in zip(checkouts, homes, (first, second), strict=True)]
            for side in sides:
                prepare(side, options.runs, options.sweep)
            for case in cases(options.runs, [path.name for path in options.sweep]):
                if case.args[0].startswith(options.only):
                    count += 1
                    same += compare(sides, case, masks, lambda line: print(line, flush=True))
    print(f"\n{same} of {count} commands give the same")
    print("masked, and different: " + (", ".join(sorted(masks.differed)) or "nothing"))
    for key in sorted(masks.differed & ALLOWED.keys()):
        print(f"  {key}: {ALLOWED[key]}")
    print(f"numbers of runs trained anew that differ by rounding: {masks.rounded}")
    return int(same < count)


if __name__ == "__main__":
    sys.exit(main())

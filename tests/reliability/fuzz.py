"""What the fuzzer changes: results, hits, checkpoints, records, sweep files and options.

A case is a folder like a user's, one thing in it made wrong, and a command over it. Every case is
drawn by hypothesis, the same ones each time.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

from groupnorm_bench.settings.config import TrainConfig
from tests.support.run_folders import make_runs

SMALL = {"dataset": "mnist-5k", "train_limit": 64, "epochs": 1}
TRAIN_SMALL = ("--dataset", "mnist-5k", "--train-limit", "64", "--epochs", "1")
SWEEP = {
    "name": "fuzzed",
    "method": "random",
    "metric": {"name": "val/accuracy", "goal": "maximize"},
    "run_cap": 6,
    "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2},
    "parameters": {
        "norm": {"values": ["batch", "group"]},
        "num_groups": {"values": [4, 8]},
        "lr": {"distribution": "q_log_uniform_values", "min": 1e-4, "max": 1e-2, "q": 1e-4},
        "seed": {"values": [0, 1]},
        "dataset": {"value": "mnist-5k"},
        "train_limit": {"value": 64},
        "epochs": {"value": 1},
        "batch_size": {"value": 8},
    },
    "command": ["${env}", "gnbench", "train", "${args}"],
}
CONFIG = {"norm": "group", "num_groups": 8, "batch_size": 32, "lr": 1e-3, "optimizer": "adam"}

_HUGE = "9" * 5_000
TEXTS = (
    *("", " ", "x", "yes", "no", "null", "nan", "inf", "1e400", "-1", "0", "1e-5", "0x10"),
    *("../../outside", "..", "/", "/dev/null", "/dev/zero", "*", "?[a]", "runs", "a" * 300),
    *("\x1b[31mred\x1b[0m", "a\nb", "a\tb", "|<script>alert(1)</script>|", "=1+1", "{{7*7}}"),
    *("\ud800", "\u202eevil", "\U0001f600", "a=b", "a/b", "a:b", "%s%n", "${env}", "--help"),
    *(_HUGE, "0x" + "f" * 5_000, "1" + "0" * 400 + ".0"),
)
NUMBERS = (
    *(0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.0, -0.5, 1e-320, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
)
scalars = st.one_of(
    *(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(TEXTS)),
    *(st.integers(), st.floats(), st.text(max_size=8)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(TEXTS[:30]), inner, max_size=3)
    ),
    max_leaves=5,
)


def nested(depth: int) -> str:
    """Return JSON and YAML text of `depth` lists in each other."""
    return "[" * depth + "]" * depth


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one file, by a path under the folder; shown by hypothesis when it fails."""

    file: str
    what: str
    make: Callable[[Path], None]

    def __repr__(self) -> str:
        return f"{self.what} of {self.file}"


def build(folder: Path) -> None:
    """Make the folder that every case starts from."""
    runs = folder / "runs"
    arms = ({"norm": "batch"}, {"norm": "group", "num_groups": 8})
    make_runs(runs, arms=arms, seeds=3, epochs=2)
    record = {
        "name": "fuzzed",
        "config": SWEEP,
        "runs": sorted(path.name for path in runs.iterdir()),
        "wandb": {},
    }
    (runs / "fuzzed.sweep.json").write_text(json.dumps(record))
    unfinished = runs / TrainConfig.from_mapping(SMALL).name
    unfinished.mkdir()
    (unfinished / "lock").touch()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "a-file").write_text("a file\n")
    outside = folder.parent / "outside"
    outside.mkdir(parents=True)
    (outside / "precious").write_text("do not touch\n")


def _names(pattern: str) -> list[str]:
    """Return the files of the folder that a pattern stands for; they are the same in every case."""
    arms = [{"norm": "batch"}, {"norm": "group", "num_groups": 8}]
    runs = [
        TrainConfig.from_mapping({**arm, "batch_size": 8, "epochs": 2, "dataset": "mnist-5k"} | s)
        for arm in arms
        for s in ({"seed": 0}, {"seed": 1}, {"seed": 2})
    ]
    return [pattern.format(run.name) for run in runs]


def _paths(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value in a document."""
    items: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    found = [path] if path else []
    for key, value in items:
        found += _paths(value, (*path, key))
    return found


def _set(document: Any, path: tuple[Any, ...], value: Any, delete: bool) -> None:
    for key in path[:-1]:
        document = document[key]
    if delete:
        del document[path[-1]]
    else:
        document[path[-1]] = value


@st.composite
def changed_document(draw: st.DrawFn, file: str, *, as_yaml: bool = False) -> Change:
    """Change one or two values of a JSON or YAML file."""
    edits = draw(
        st.lists(
            st.tuples(st.integers(0, 10**6), values, st.sampled_from("ssssdk"), st.text("ab*/|=")),
            min_size=1,
            max_size=2,
        )
    )

    def make(folder: Path) -> None:
        path = folder / file
        document = yaml.safe_load(path.read_text()) if as_yaml else json.loads(path.read_text())
        for pick, value, how, key in edits:
            ways = _paths(document)
            way = ways[pick % len(ways)]
            if how == "k" and isinstance(way[-1], str):  # a key that nobody knows
                way = (*way[:-1], key)
            _set(document, way, value, how == "d")
        if as_yaml:
            text = yaml.dump(document, allow_unicode=True, sort_keys=False)
        else:
            text = json.dumps(document)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))

    return Change(file, f"edits {edits!r:.400}", make)


@st.composite
def changed_bytes(draw: st.DrawFn, file: str) -> Change:
    """Cut, alter or replace a file's bytes, or put something else in its place."""
    how = draw(
        st.sampled_from(
            [
                *("cut", "flip", "empty", "noise", "nested", "huge", "latin", "folder"),
                *("link", "fifo", "zero", "dangling", "loop", "other"),
            ]
        )
    )
    at = draw(st.integers(0, 4_000))
    noise = draw(st.binary(max_size=40))

    def make(folder: Path) -> None:
        path = folder / file
        content = path.read_bytes()
        at_most = at % (len(content) + 1)
        replaced: dict[str, bytes] = {
            "cut": content[:at_most],
            "flip": content[:at_most] + noise + content[at_most + len(noise) :],
            "empty": b"",
            "noise": noise,
            "nested": nested(20_000).encode(),
            "huge": b'{"config": ' + b"9" * 6_000 + b"}",
            "latin": content + "\n# \xe9\n".encode("latin-1"),
            "other": _other(path).read_bytes() if how == "other" else b"",
        }
        path.unlink()
        if how in replaced:
            path.write_bytes(replaced[how])
        elif how == "folder":
            path.mkdir()
        elif how == "fifo":
            os.mkfifo(path)
        else:
            targets = {
                "link": folder.parent / "outside" / "precious",
                "zero": Path("/dev/zero"),
                "dangling": folder.parent / "outside" / "made",
                "loop": path,
            }
            path.symlink_to(targets[how])

    return Change(file, f"{how} at {at} {noise!r}", make)


def _other(path: Path) -> Path:
    """Return another run's file of the same name; the file itself where there is none."""
    return next((p for p in sorted(path.parent.parent.glob(f"*/{path.name}")) if p != path), path)


_ARRAYS: dict[str, Callable[[], Any]] = {
    "floats": lambda: np.zeros(125),
    "long": lambda: np.zeros(10**6, np.uint8),
    "none": lambda: np.zeros(0, np.uint8),
    "two": lambda: np.zeros((5, 25), np.uint8),
    "scalar": lambda: np.uint8(3),
    "objects": lambda: np.array([{"a": 1}], dtype=object),
    "record": lambda: np.zeros(125, dtype=[("a", "u1")]),
}


@st.composite
def changed_hits(draw: st.DrawFn, file: str) -> Change:
    """Put another array, or a header that promises one of a petabyte, into `test_hits.npy`."""
    kind = draw(st.sampled_from([*_ARRAYS, "promise", "zip"]))

    def make(folder: Path) -> None:
        buffer = io.BytesIO()
        if kind == "zip":
            np.savez(buffer, a=np.zeros(3))
        elif kind == "promise":
            header = {"descr": "|u1", "fortran_order": False, "shape": (10**15,)}
            np.lib.format.write_array_header_1_0(buffer, header)
        else:
            np.save(buffer, _ARRAYS[kind](), allow_pickle=True)
        (folder / file).write_bytes(buffer.getvalue())

    return Change(file, kind, make)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ../outside/made",)


@st.composite
def changed_checkpoint(draw: st.DrawFn) -> Change:
    """Put something that is no checkpoint of this run into `checkpoint.pt`."""
    kind = draw(st.sampled_from(("bomb", "torch-bomb", "state", "noise", "cut")))
    state = draw(values)
    noise = draw(st.binary(max_size=200))
    file = f"runs/{TrainConfig.from_mapping(SMALL).name}/checkpoint.pt"

    def make(folder: Path) -> None:
        import torch

        buffer = io.BytesIO()
        if kind == "bomb":
            buffer.write(pickle.dumps(_Bomb()))
        elif kind == "noise":
            buffer.write(noise)
        else:
            torch.save(_Bomb() if kind == "torch-bomb" else state, buffer)
        content = buffer.getvalue()
        (folder / file).write_bytes(content[: len(content) // 2] if kind == "cut" else content)

    return Change(file, f"{kind} {state!r:.200}", make)


def _record_changes() -> st.SearchStrategy[Change]:
    record = "runs/fuzzed.sweep.json"
    return st.one_of(changed_document(record), changed_bytes(record))


def run_changes() -> st.SearchStrategy[Change]:
    """Return changes of what a run folder holds."""
    results, hits = _names("runs/{}/result.json"), _names("runs/{}/test_hits.npy")
    return st.one_of(
        st.sampled_from(results).flatmap(changed_document),
        st.sampled_from(results).flatmap(changed_document),
        st.sampled_from(results).flatmap(changed_bytes),
        st.sampled_from(hits).flatmap(changed_hits),
        st.sampled_from(hits).flatmap(changed_bytes),
        _record_changes(),
    )


def sweep_changes() -> st.SearchStrategy[Change]:
    """Return changes of the sweep file."""
    whole = changed_document("sweep.yaml", as_yaml=True)
    return st.one_of(whole, whole, changed_bytes("sweep.yaml"))


def train_changes() -> st.SearchStrategy[Change]:
    """Return changes of what `train` reads: a checkpoint, a file of settings."""
    return st.one_of(
        changed_checkpoint(),
        changed_document("config.yaml", as_yaml=True),
        changed_bytes("config.yaml"),
    )


UNCHANGED = Change("", "no change", lambda folder: None)
NOTHING = st.just(UNCHANGED)

READERS: tuple[tuple[str, ...], ...] = (
    ("compare", "runs"),
    ("compare", "runs", "--format", "csv"),
    ("compare", "runs", "--format", "md"),
    ("compare", "runs", "--json"),
    ("compare", "runs", "--claim", "group-g8 > batch"),
    ("status", "runs"),
    ("status", "runs", "--json"),
    ("status", "runs", "--runs"),
    ("show", f"runs/{_names('{}')[0]}"),
    ("report", "runs", "--out", "report.html"),
    ("report", "runs", "--format", "md"),
    ("sync", "runs", "--dry-run"),
    ("sync", "runs", "--dry-run", "--json"),
    ("sweep", "sweep.yaml", "--dry-run", "--json"),
)
SWEEPS = (("sweep", "sweep.yaml", "--dry-run"), ("sweep", "sweep.yaml", "--dry-run", "--json"))
TRAINS = (
    ("train", *TRAIN_SMALL),
    ("train", "--config", "config.yaml", *TRAIN_SMALL),
)
_ENDLESS = ("--epochs", "--max-steps", "--run-cap")
"""A huge number is a fair wish here; the command would not come to its end."""
PLACES = ("--out", "--figures", "--data-dir", "--runs-csv", "--save")
"""The command is to write there, wherever that is."""
_LEFT_OUT = ("--help", "--version", "--open", "--watch", "--yes", "--install-completion")
_WORDS = (*TEXTS, "a-file", "runs", "sweep.yaml", "missing/deep/file", "../outside/precious")


@st.composite
def options(draw: st.DrawFn) -> tuple[str, ...]:
    """Return a command with one or two of its own options given strange values."""
    from typer.main import get_command

    import groupnorm_bench.cli  # noqa: F401  # every command is there
    from groupnorm_bench.cli.app import app

    base = draw(
        st.sampled_from([c for c in (*READERS, *SWEEPS, *TRAINS) if c[0] not in ("status", "show")])
    )
    known = get_command(app).commands[base[0]].params  # type: ignore[attr-defined]
    takes = [
        parameter.opts[0]
        for parameter in known
        if parameter.opts[0].startswith("--")
        and parameter.opts[0] not in _LEFT_OUT
        and not getattr(parameter, "is_flag", False)
    ]
    typed: list[str] = []
    for name in draw(st.lists(st.sampled_from(takes), min_size=1, max_size=2)):
        word = draw(st.one_of(st.sampled_from(_WORDS), st.text(max_size=6)))
        if name in PLACES and ("../" in word or word.startswith("/")):
            word = "a-file/x"
        if name in _ENDLESS and word.strip().isdigit() and len(word) < 100:
            word = "-" + word
        typed.append(f"{name}={word}".replace("\0", ""))
    return (*base, *typed)

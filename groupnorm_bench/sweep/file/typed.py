"""A sweep that was typed, as lists of values, and no file: written as one all the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.files import write_atomic
from groupnorm_bench.sweep.file.spec import SweepSpec, read_spec

DEFAULT_SEEDS = 3
_PLAIN = re.compile(r"-?[\w.]+(-[\w.]+)*")
_YAML_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"))


def as_yaml(lists: Mapping[str, Sequence[str]], fixed: Mapping[str, str], seeds: int | None) -> str:
    """Return the W&B sweep file that typed lists stand for: their grid, each with every seed.

    Args:
        lists: settings with several values.
        fixed: settings with one.
        seeds: how many, from 0 on; `DEFAULT_SEEDS` if None.
    """
    swept = [name for name in lists if name != "seed"] or list(lists)
    lines = [
        "# Made by gnbench sweep from typed lists; a W&B sweep file, to be edited.",
        f"name: {'-'.join(swept)}",
        "project: groupnorm-bench",
        "program: gnbench",
        'command: [gnbench, train, "${args}"]',
        "method: grid",
        "metric: {name: val/accuracy, goal: maximize}",
        "parameters:",
    ]
    for name, values in lists.items():
        lines.append(f"  {name}: {{values: [{', '.join(map(_scalar, values))}]}}")
    for name, value in fixed.items():
        lines.append(f"  {name}: {{value: {_scalar(value)}}}")
    if "seed" not in lists and "seed" not in fixed:
        numbers = range(DEFAULT_SEEDS if seeds is None else seeds)
        lines.append(f"  seed: {{values: [{', '.join(map(str, numbers))}]}}")
    return "\n".join(lines) + "\n"


def mapping_as_yaml(sweep: Mapping[str, Any]) -> str:
    """Return the file of a sweep that was written in Python, as `wandb.sweep` takes it.

    Raises:
        SweepError: it holds what YAML has no word for.
    """
    try:
        return yaml.safe_dump(dict(sweep), sort_keys=False, allow_unicode=True)
    except yaml.representer.RepresenterError as error:
        what = error.args[-1]
        raise SweepError(
            f"as typed: {what!r} is no value of a sweep; write a number, a text, a list or a dict"
        ) from error


def keep_typed(path: Path, text: str, *, is_ours: bool = True) -> None:
    """Write the file of a sweep that was typed.

    Args:
        path: where `spec_of_text` has it.
        text: its content.
        is_ours: the path is our own choice, in the folder of runs, and may be there already.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        if is_ours:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not (is_ours and path.exists()):
            write_atomic(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def spec_of_text(text: str, path: Path | None, folder: Path) -> SweepSpec:
    """Read a sweep that is in no file yet.

    Args:
        text: the file's content.
        path: where it will be; a name of its own in `folder` if None.

    Raises:
        SweepError: a value is not valid.
    """
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "sweep.yaml"
        draft.write_text(text, encoding="utf-8")
        try:
            spec = read_spec(draft)
        except SweepError as error:
            raise SweepError(_unplaced(str(error), draft)) from error
    name = f"{spec.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    axes = tuple(
        dataclasses.replace(axis, where=_unplaced(axis.where, draft)) for axis in spec.axes
    )
    return dataclasses.replace(spec, path=path or folder / name, axes=axes)


def _unplaced(message: str, draft: Path) -> str:
    """Return a message without a file and line that nobody can look at."""
    return re.sub(re.escape(str(draft)) + r"(:\d+)?,? ?", "as typed: ", message)


def _scalar(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps(value)

"""The code that goes along to nodes: this package, and the modules of the user's own.

Never the working directory as it is: no runs, no repository, no data, no W&B files.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import groupnorm_bench
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.own import is_own
from groupnorm_bench.sweep.plan.plan import Plan

OWN_MODULES = "gnbench_own_modules"
"""The package that holds the user's modules on a node."""
_MAX_BYTES = 32 * 2**20
"""Of the user's modules; some Rays refuse 100 MiB."""
_LEFT_OUT = frozenset({"runs", "wandb", "data", "__pycache__", "node_modules", "venv"})


def pack_code(plan: Plan | None, trial: str, scratch: Path) -> list[str]:
    """Return the folders of code that nodes need, as Ray's `py_modules` takes them.

    Args:
        plan: what may be trained; a norm, a network or a trial of one's own names a module.
        trial: what trains it.
        scratch: where a copy of the user's modules is made.

    Raises:
        ConfigError: the user's modules are too large to be sent.
    """
    names = {trial}
    if plan is not None:
        names |= {*_texts(dataclasses.asdict(plan.base)), *_texts(plan.spec.raw)}
    modules = {own_module(name) for name in names if is_own(name)} - {groupnorm_bench.__name__}
    own = scratch / OWN_MODULES
    for module in sorted(modules):
        _copy_module(module, own)
    ours = str(Path(groupnorm_bench.__file__).parent)
    return [ours, str(own)] if own.exists() else [ours]


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested dictionaries and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def own_module(name: str) -> str:
    """Return the top-level module of a function's dotted name.

    >>> own_module("lab.norms:make")
    'lab'
    """
    return name.partition(":")[0].partition(".")[0]


def _copy_module(name: str, own: Path) -> None:
    """Copy a package, or a file and those beside it that it may import; an installed one stays."""
    found = _find(name)
    if found is None or "site-packages" in found.parts:
        return
    own.mkdir(exist_ok=True)
    if found.is_dir():
        files = [path for path in _walk(found) if path.is_file()]
        root = found.parent
    else:
        files = sorted(found.parent.glob("*.py"))
        root = found.parent
    size = sum(path.stat().st_size for path in files)
    if size > _MAX_BYTES:
        raise ConfigError(
            f"executor=ray would send {size / 2**20:,.0f} MiB of {found} to the nodes; move what "
            f"is no code out of it, {_MAX_BYTES // 2**20} MiB at most"
        )
    for path in files:
        target = own / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _find(name: str) -> Path | None:
    """Return the folder or the file of a top-level module, without importing it."""
    here = Path(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec is not None and spec.origin and spec.origin.endswith(".py"):
        return Path(spec.origin)
    for path in (here / name, here / f"{name}.py"):
        if path.exists():
            return path
    return None


def _walk(folder: Path) -> Iterable[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = [f for f in sorted(folders) if f not in _LEFT_OUT and not f.startswith(".")]
        yield from (Path(at) / name for name in sorted(names) if not name.startswith("."))

"""Packages that can be called: `sweep`, `compare` and `report` are folders and functions at once.

`from groupnorm_bench import sweep` must give the same object whatever was imported before, and
Python puts a sub-package over any name of its parent as soon as something imports from it. So the
package itself is what is called, and there is one object only.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any


class CallablePackage(types.ModuleType):
    """A package whose call is that of one of its functions, loaded on the first one."""

    _home: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function_of(self)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function_of(self))


def _function_of(package: CallablePackage) -> Callable[..., Any]:
    module, _, function = package._home.partition(":")
    return getattr(importlib.import_module(f"{package.__name__}.{module}"), function)


def make_callable(package: str, home: str) -> None:
    """Make a call of a package one of its function's: a line of the package's `__init__`.

    Args:
        package: its `__name__`.
        home: `module:function` in it.
    """
    module = sys.modules[package]
    module.__class__ = CallablePackage
    module._home = home  # type: ignore[attr-defined]

"""A function of the user's own, named `package.module:function`, imported when it is needed."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Return whether a name is spelled as a function of the user's own is.

    >>> [is_own(name) for name in ("my_norms:make", "lab.nets:make", "group", "lab..nets:make")]
    [True, True, False, False]
    """
    return _NAME.fullmatch(name) is not None


def own_function(name: str) -> Callable[..., Any]:
    """Import `package.module:function`, from the working directory too.

    The working directory comes last: a `random.py` that lies there is not the standard library's.

    Raises:
        ImportError, AttributeError: there is none of that name; besides, whatever the module raises
            while it is imported, `SystemExit` included.
    """
    module, _, function = name.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name == module and module.endswith(".py"):
            name = f"{module.removesuffix('.py')}:{function}"
            raise ImportError(f"it is named without .py: {name}") from error
        raise

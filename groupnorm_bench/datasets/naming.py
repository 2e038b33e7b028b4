"""How data of one's own are named: `folder:DIR`, `npz:FILE`, `package.module:load`. Loads nothing.

What a run keeps is the name with its content's hash behind it, `npz:faces.npz@0a1b2c3d4e5f`, so
that other content under the same name is another data set wherever runs are compared.
"""

from __future__ import annotations

import re

from groupnorm_bench.own import is_own

FOLDER, NPZ = "folder:", "npz:"
FORMS = ("folder:DIR", "npz:FILE", "package.module:load")
HASH_DIGITS = 12
_MARK = re.compile(rf"(.+)@([0-9a-f]{{{HASH_DIGITS}}})", re.S)


def is_own_data(name: str) -> bool:
    """Return whether a name stands for data of one's own.

    >>> [is_own_data(name) for name in ("npz:a.npz", "folder:x@0a1b2c3d4e5f", "lab.data:load")]
    [True, True, True]
    >>> is_own_data("mnist"), is_own_data("npz:")
    (False, False)
    """
    plain, _ = split_name(name)
    if not plain.isprintable():
        return False
    return any(len(plain) > len(k) and plain.startswith(k) for k in (FOLDER, NPZ)) or is_own(plain)


def is_function(name: str) -> bool:
    """Return whether a name of one's own data stands for a function, and for no file."""
    return not name.startswith((FOLDER, NPZ))


def split_name(name: str) -> tuple[str, str | None]:
    """Return a name and the hash of the content that it is bound to, if it is.

    >>> split_name("npz:a.npz@0a1b2c3d4e5f"), split_name("npz:a.npz")
    (('npz:a.npz', '0a1b2c3d4e5f'), ('npz:a.npz', None))
    """
    found = _MARK.fullmatch(name)
    return (found[1], found[2]) if found else (name, None)


def short_name(name: str) -> str:
    """Return what a run's folder calls its data: the last part of the path, and the hash.

    >>> short_name("npz:/home/me/faces.npz@0a1b2c3d4e5f"), short_name("lab.data:load")
    ('faces-0a1b2c3d4e5f', 'lab.data.load')
    """
    plain, content = split_name(name)
    if is_function(plain):
        stem = plain.replace(":", ".")
    else:
        path = plain.partition(":")[2].rstrip("/")
        stem = path.rpartition("/")[2].removesuffix(".npz") or "data"
    return stem[-40:] + (f"-{content}" if content else "")

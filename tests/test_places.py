"""A home that cannot be written: libraries keep their things elsewhere, and say nothing of it."""

import os
import shutil
import subprocess
import sys

import pytest

LIBRARIES = """
import os, sys
from groupnorm_bench import places
places.ensure_home()
import matplotlib
print(matplotlib.get_cachedir(), os.environ["WANDB_CACHE_DIR"], os.environ["WANDB_DATA_DIR"])
"""


def test_libraries_are_quiet_where_the_home_is_read_only(tmp_path):
    """In a mount namespace of its own, where the home is a read-only tmpfs."""
    space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    home, kept = tmp_path / "home", tmp_path / "kept"
    home.mkdir()
    kept.mkdir()
    mount = f"mount -t tmpfs -o ro none {home}"
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    if subprocess.run([*space, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets us mount nothing")
    hidden = ("XDG_", "WANDB_", "MPL")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    done = subprocess.run(
        [*space, f'{mount}; exec "$0" -c "$1"', sys.executable, LIBRARIES],
        env=environment | {"HOME": str(home), "TMPDIR": str(kept)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    (own,) = os.listdir(kept)
    assert own.startswith("gnbench-home-")
    assert done.stdout.split() == [str(kept / own)] * 3

"""Compiling: only what is needed, ahead, once; a damaged cache is made anew, and said."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groupnorm_bench import fast
from groupnorm_bench.fast import compiler
from groupnorm_bench.settings.config import TrainConfig

PREPARE = """
import json, sys
from groupnorm_bench.fast import compiler
line, _ = compiler.prepare(["none"])
kernels = compiler.kernels()
compiled = [name for name in kernels.SIGNATURES if getattr(kernels, name).signatures]
hits = sum(getattr(kernels, name).stats.cache_hits.total() for name in compiled)
print(json.dumps([line, compiled, hits, "torch" in sys.modules]))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "loops"))
    return tmp_path / "loops"


def prepared(before: str = "") -> list:
    done = subprocess.run(
        [sys.executable, "-c", before + PREPARE],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    return json.loads(done.stdout)


def test_a_kind_is_compiled_alone_once_and_a_damaged_cache_is_made_anew(cache):
    names = ["relu_pool", "relu_unpool"]
    assert prepared() == ["compile on", names, 0, False]
    assert prepared() == ["compile on", names, 2, False]
    for index in cache.rglob("*.nbi"):
        index.write_bytes(b"")
    line = "compile on: the cache of loops was damaged, and is made anew"
    assert prepared() == [line, names, 0, False]
    assert prepared() == ["compile on", names, 2, False]
    for data in cache.rglob("*.nbc"):
        data.write_bytes(data.read_bytes()[:100])
    assert prepared()[0] == line
    assert prepared() == ["compile on", names, 2, False]
    next(cache.rglob("none-*.ready")).unlink()  # as if another source had made what is there
    assert prepared() == ["compile on", names, 0, False]


def test_loops_that_a_process_has_are_not_called_damaged_when_their_files_go(cache):
    """The next process says so, once, and compiles them."""
    again = """
import os
from pathlib import Path
from groupnorm_bench.fast import compiler
assert compiler.prepare(["none"]) == ("compile on", True)
for code in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc"):
    code.unlink()
"""
    assert prepared(again)[0] == "compile on"
    assert prepared()[0].endswith("damaged, and is made anew")
    assert prepared()[0] == "compile on"


def test_loops_whose_source_was_written_again_are_told_apart(tmp_path, monkeypatch):
    """As an installation of the same version writes it: Numba compiles them anew by itself."""
    package = Path(compiler.__file__).parent
    shutil.copytree(package / "kernels", tmp_path / "kernels")
    shutil.copy2(package / "vectors.py", tmp_path)
    monkeypatch.setattr(compiler, "__file__", str(tmp_path / "compiler.py"))
    digest = compiler._digest.__wrapped__
    before = digest()
    assert digest() == before
    os.utime(tmp_path / "kernels/norms.py", (1, 1))
    assert digest() != before


ELSEWHERE = """
import os
os.environ |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
from groupnorm_bench.fast import compiler
compiler._processor = lambda: "another"
"""


def test_machines_of_a_shared_home_keep_the_loops_of_their_own_processors(cache):
    names = ["relu_pool", "relu_unpool"]
    assert prepared() == ["compile on", names, 0, False]
    assert prepared(ELSEWHERE) == ["compile on", names, 0, False]
    assert prepared() == ["compile on", names, 2, False]
    assert prepared(ELSEWHERE) == ["compile on", names, 2, False]


def test_compiling_ahead_imports_nothing_from_the_working_directory(cache, tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiler, "_is_whole", lambda kind: None if kind == "none" else True)
    monkeypatch.setattr(compiler, "CONVOLUTIONS", ("none", "spectra"))
    compiler.compile_ahead(["none"], lambda line: None)
    assert compiler._children.pop().wait(timeout=60) == 0


def test_a_processor_without_fused_products_multiplies_and_adds(cache, monkeypatch):
    """By instructions of its own: each call of the C library's `fmaf` takes as long as many."""
    code = """
from groupnorm_bench.fast import kernels
loop = kernels.sum_columns
loop.compile(kernels.SIGNATURES["sum_columns"])
print(*loop.inspect_asm().values())
"""
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "")
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mul" in made.stdout
    assert "fmaf" not in made.stdout


def test_where_loops_are_kept_is_not_told_to_other_processes(cache, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    compiler.kernels.__wrapped__()
    assert "NUMBA_CACHE_DIR" not in os.environ


@pytest.mark.slow
def test_machine_code_that_changed_is_not_run(cache):
    names = ["relu_pool", "relu_unpool"]
    assert prepared() == ["compile on", names, 0, False]
    pool, unpool = (next(cache.rglob(f"norms.{name}-*.nbc")) for name in names)
    code = bytearray(pool.read_bytes())
    code[len(code) // 2] ^= 1
    line = "compile on: the cache of loops was damaged, and is made anew"
    for damage in (code, unpool.read_bytes()):  # one bit; another loop's
        pool.write_bytes(damage)
        assert prepared() == [line, names, 0, False]
        assert prepared() == ["compile on", names, 2, False]
    unpool.unlink()
    assert prepared()[0] == line
    next(cache.rglob("none-*.ready")).write_text("{}")
    assert prepared()[0] == line
    assert prepared() == ["compile on", names, 2, False]


def test_damage_is_mended_ahead_and_said(cache, monkeypatch):
    started, said = [], []
    assert prepared()[0] == "compile on"
    monkeypatch.setattr(
        compiler.subprocess, "Popen", lambda command, **_: started.append(command[4:])
    )
    for kind in compiler.COMMON + compiler.LINEAR + compiler.CONVOLUTIONS:
        compiler._write_sums(compiler._stamp(kind), cache.rglob("norms.relu_pool-*.nbc"))
    run = TrainConfig(norm="none", dataset="mnist-5k")
    fast.compile_ahead([run], said.append)
    assert (started, said) == ([], [])
    next(cache.rglob("norms.relu_unpool-*.nbc")).write_bytes(b"damaged")
    fast.compile_ahead([run], said.append)
    assert started == [["common", "linear", "convolution", "none"]]
    assert said[0].startswith("the cache of loops was damaged; compiling")


def test_a_cache_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "loops"))
    assert prepared()[0] == "compile on"


def test_loops_that_nothing_can_keep_leave_no_folder_behind(tmp_path, monkeypatch):
    """Neither the folder of caches nor our sources' nor the home can be written."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "loops"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary" / "gnbench-loops-12345678").mkdir(parents=True)  # of a killed process
    one_place = "import numba.core.caching as c; del c.CacheImpl._locator_classes[1:]\n"
    assert prepared(before=one_place)[0] == "compile on"
    assert os.listdir(tmp_path / "temporary") == []


def test_where_there_are_no_locks_loops_are_compiled_all_the_same(cache, monkeypatch):
    monkeypatch.setattr(compiler.fcntl, "flock", no_locks)
    with compiler._locked("none"):
        assert list(cache.rglob("none-*.lock"))


def no_locks(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_a_compiler_that_fails_is_said_in_one_line(monkeypatch):
    def fail():
        raise OSError("no space left\non device")

    monkeypatch.setattr(compiler, "kernels", fail)
    line = "compile off: OSError: no space left on device"
    assert compiler.prepare(["none"]) == (line, False)


def test_what_long_runs_take_is_compiled_ahead_and_said_once(cache, monkeypatch):
    started, said = [], []
    monkeypatch.setattr(compiler, "_children", [])
    monkeypatch.setattr(
        compiler.subprocess, "Popen", lambda command, **_: started.append(command[4:])
    )
    short = TrainConfig(dataset="mnist-5k", norm="batch", max_steps=9)
    fast.compile_ahead([short, short.replace(compile="off", max_steps=999)], said.append)
    assert (started, said) == ([], [])
    runs = [short.replace(max_steps=999, norm=norm) for norm in ("batch", "layer", "frn")]
    fast.compile_ahead(runs, said.append)
    assert started == [["common", "linear", "convolution", "statistics", "group"], ["spectra"]]
    assert len(said) == 1
    loops = compiler._cache_dir() / "code/loops.nbc"
    loops.parent.mkdir(parents=True)
    loops.touch()
    for kind in compiler.kernels().KINDS:
        compiler._write_sums(compiler._stamp(kind), [loops])
    fast.compile_ahead(runs, said.append)
    assert len(started) == 2


@pytest.mark.slow
def test_processes_that_need_the_same_loops_compile_them_once(cache):
    children = [
        subprocess.Popen([sys.executable, "-c", PREPARE], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    hits = [json.loads(child.communicate(timeout=120)[0])[2] for child in children]
    assert sorted(hits) == [0, 2, 2]


@pytest.mark.slow
def test_ahead_is_beside_what_the_caller_does_next(cache):
    said = []
    started = time.monotonic()
    fast.compile_ahead([TrainConfig(norm="group")], said.append)
    assert time.monotonic() - started < 5
    for child in compiler._children:
        assert child.wait(timeout=200) == 0
    compiler._children.clear()
    assert {path.name.split("-")[0] for path in cache.rglob("*.ready")} == {
        "common", "convolution", "group", "linear", "spectra"
    }  # fmt: skip


@pytest.mark.slow
def test_loops_compute_the_same_bits_in_the_process_that_compiles_them(cache):
    """They called each other by name, and the cache decided which of two codes had that name."""
    code = """
import hashlib, torch
from pathlib import Path
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.loop import train
for norm in ("batch", "group", "none"):
    config = TrainConfig(dataset="mnist-5k", norm=norm, batch_size=8, max_steps=5, compile="on")
    outcome = train(config, load_dataset("mnist-5k", Path("data")))
    print(norm, hashlib.sha256(outcome.test_logits.tobytes()).hexdigest())
"""
    command = [sys.executable, "-c", code]
    first, second = (subprocess.check_output(command, env=os.environ) for _ in range(2))
    assert first == second
    assert list(cache.rglob("norms.group_pool-*.nbc"))

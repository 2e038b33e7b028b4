"""A shell in which lines are typed as a page shows them, and `gnbench` costs no import of torch.

`bash` runs the line. On its PATH `gnbench`, `python FILE`, `python -m MODULE`, `pytest` and `wandb`
are a few lines of Python that hand their arguments, folder, environment and open files to a process
which has everything imported, and forks (`tests/support/forks.py`). What else is asked of `python`,
and `pip`, is this interpreter's.

Two variables of the environment are for the forks: `TYPED_FEW_DIGITS` cuts the bundled digits to
250, `TYPED_PARSE_ONLY` has a script end as soon as its parser has taken what was typed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support import ROOT, forks

FORKED = ("gnbench", "python", "python3", "pytest", "wandb")
MODULES = {"pytest": ("-m", "pytest"), "wandb": ("-m", "wandb"), "gnbench": None}
"""What stands for them in Python's own words; `gnbench` goes by its function."""

_SHIM = """#!{python} -IS
import json, os, socket, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if name.startswith("python") and (
    not arguments or arguments[:2] == ["-m", "venv"]
    or (arguments[0] != "-m" and arguments[0].startswith("-"))
):
    os.execv({python!r}, [name, *arguments])
request = {{"argv": [name, *arguments], "cwd": os.getcwd(), "env": dict(os.environ)}}
data = json.dumps(request).encode()
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [len(data).to_bytes(8, "big")], [0, 1, 2])
server.sendall(data)
code = int(server.makefile().read() or 1)
sys.exit(code if code >= 0 else 128 - code)
"""
_EXEC = """#!/bin/sh
exec {python} -m {module} "$@"
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a line ended."""

    code: int
    out: str
    err: str


class Shell:
    """Types lines; use it in a `with`.

    Args:
        loops: folder of Numba's cache.
    """

    def __init__(self, loops: Path) -> None:
        self._loops = loops

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="typed-", dir="/tmp"))  # sockets' names are short
        self.bin = self._home / "bin"
        self.bin.mkdir()
        told = {"python": sys.executable, "address": str(self._home / "socket")}
        for name in FORKED:
            self._put(name, _SHIM.format(**told))
        self._put("pip", _EXEC.format(module="pip", **told))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "GNBENCH_"))}
        self._log = (self._home / "log").open("w+")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shell", told["address"]],
            cwd=ROOT,
            env=kept | {"OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(self._loops)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n", (self._home / "log").read_text()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._log.close()
        shutil.rmtree(self._home)

    def words(self, line: str) -> list[str]:
        """Return the words of the process that runs a line."""
        return ["bash", "-c", f"{line}\nexit $?"]  # the last command would take bash's place

    def environment(
        self, env: Mapping[str, str] | None = None, *, forked: bool = True
    ) -> dict[str, str]:
        """Return this process's environment and `env`, with the shell's programs on PATH."""
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if forked:
            path.insert(0, str(self.bin))
        return os.environ | {"PATH": os.pathsep.join(path)} | dict(env or {})

    def type(
        self,
        line: str,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        forked: bool = True,
        seconds: float = 200,
    ) -> Done:
        """Run a line in `cwd`.

        Args:
            line: what is typed.
            cwd: where.
            env: added to this process's environment.
            forked: False for interpreters of their own.
            seconds: after which it is killed, and the test fails.
        """
        process = subprocess.Popen(
            self.words(line),
            cwd=cwd,
            env=self.environment(env, forked=forked),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{line}: no end after {seconds} s\n{out}\n{err}") from None
        return Done(process.returncode, out, err)

    def _put(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)


def serve(address: str) -> dict[str, Any]:
    """Answer requests until stdin closes; return one, in the process that is to run it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that look after one
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        client, _ = listener.accept()
        if os.fork():
            client.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        size, files, _, _ = socket.recv_fds(client, 8, 3)
        with client.makefile("rb") as stream:
            request = json.loads(stream.read(int.from_bytes(size, "big")))
        command = os.fork()
        if command == 0:
            client.close()
            for number, handle in enumerate(files):
                os.dup2(handle, number)
                os.close(handle)
            return request
        for handle in files:
            os.close(handle)
        _look_after(command, client)


def _look_after(command: int, client: socket.socket) -> None:
    """Tell how a command ended; end it if whoever typed it is gone."""
    ended = os.pidfd_open(command)
    ready, _, _ = select.select([ended, client], [], [])
    if client in ready:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command, signal.SIGTERM)
    _, status = os.waitpid(command, 0)
    with contextlib.suppress(OSError):
        client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(request: dict[str, Any]) -> list[str]:
    """Turn this fork into the command that was typed; return its words."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # it was looked up in the first process's environment
    forks.fork_workers()
    if os.environ.pop("TYPED_FEW_DIGITS", ""):
        forks.cut_the_digits()
    if os.environ.pop("TYPED_PARSE_ONLY", ""):
        return _to_be_parsed(list(request["argv"]))
    return list(request["argv"])


_parse = argparse.ArgumentParser.parse_args


def _to_be_parsed(words: list[str]) -> list[str]:
    """Have a script end where its parser has taken its words, or, without a parser, at once."""
    argparse.ArgumentParser.parse_args = _parse_only  # type: ignore[method-assign]
    if words[1] != "-m" and "parse_args()" not in Path(words[1]).read_text(encoding="utf-8"):
        assert len(words) == 2, f"{words[1]} reads no options"
        runpy.run_path(words[1], run_name="read")
        print("parsed")
        raise SystemExit(0)
    return words


def _parse_only(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
    _parse(self, args, namespace)
    print("parsed")
    raise SystemExit(0)


def run(address: str) -> None:
    name, *words = become(serve(address))
    if name == "gnbench":
        from groupnorm_bench.cli.app import main

        sys.argv = [name, *words]
        main(words)
    words = [*(MODULES.get(name) or ()), *words]
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


def plain(text: str) -> str:
    """Return what a program wrote, without colours and without what a bar overwrote."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


if __name__ == "__main__":
    forks.import_all()
    forks.build_the_command_line()
    forks.shorten_what_takes_its_time()
    forks.train_a_moment()
    forks.freeze()
    forks.run_to_the_end(functools.partial(run, sys.argv[1]))

"""The Ray that a sweep works on: one of our own, or a cluster; reached in seconds or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groupnorm_bench.errors import ConfigError, brief
from groupnorm_bench.files import scratch_folder
from groupnorm_bench.leash import Leash
from groupnorm_bench.signals import STOP_SIGNALS
from groupnorm_bench.sweep.executors.ray.trainer import SCRATCH

_LOOPBACK = "127.0.0.2"
"""Ray takes 127.0.0.1 for the machine's address on its network, and would listen there."""
_KNOCK_SECONDS = 3.0
_PROBE_SECONDS = 25.0
_STORE_BYTES = 256 * 2**20
"""Of a local Ray's object store; what is more goes to disk."""
_MAX_PLACE = 18
"""Bytes of the folder of temporary files: a socket's whole name may have 107."""
_PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50, configure_logging=False)
except BaseException as error:  # whatever it is, one line tells
    print("no", type(error).__name__, " ".join(str(error).split()))
else:
    print("yes")
"""

_lock = threading.Lock()
_users = 0
_address: str | None = None
_open = contextlib.ExitStack()


def load_ray(*, local: bool) -> Any:
    """Return the module `ray`, quiet.

    Args:
        local: a Ray of our own will be started: it gets a token of its own, or Ray would leave one
            in the user's home, for everyone to read.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns on stderr
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    if local and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
        from ray._private import worker
    except ImportError as error:
        raise ConfigError(
            "executor=ray needs Ray, which is not installed here; type pip install "
            "'groupnorm-bench[ray]'"
        ) from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if hasattr(worker, "listen_error_messages"):  # it prints on stdout what raylets complain of
        worker.listen_error_messages = lambda *_: None
    return ray


@contextlib.contextmanager
def connected(address: str | None, py_modules: list[str]) -> Iterator[Any]:
    """While entered, this process is connected to a Ray; yields the module.

    Sweeps in threads of one process share it. A connection that was there before is used, and left.

    Args:
        address: of a cluster; a Ray of our own on loopback if None.
        py_modules: folders of code that go to a cluster's nodes.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached or used.
    """
    global _address, _users
    ray = load_ray(local=address is None)
    with _lock:
        if _users == 0 and not ray.is_initialized():
            _connect(ray, address, py_modules)
            _address = address
        elif _users and address != _address:
            raise ConfigError(
                f"ray_address={address!r}: a sweep of this process is at another Ray; wait for it"
            )
        _users += 1
    try:
        yield ray
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _open.close()


def _connect(ray: Any, address: str | None, py_modules: list[str]) -> None:
    if address is not None:
        _probe(address)
    for tries_left in (2, 1, 0):
        try:
            _init(ray, address, py_modules)
            return
        except ConfigError:
            raise
        except Exception as error:  # Ray raises a dozen kinds, and plain ones
            if tries_left:  # on a busy machine one of its processes is late at times
                continue
            where = "a Ray here" if address is None else f"ray_address={address!r}"
            raise ConfigError(f"executor=ray: {where} does not start: {brief(error)}") from error


def _init(ray: Any, address: str | None, py_modules: list[str]) -> None:
    quiet = {"log_to_driver": False, "logging_level": "critical", "configure_logging": False}
    with contextlib.ExitStack() as opening, _signals_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is not None:
            opening.callback(ray.shutdown)
            ray.init(address=address, runtime_env={"py_modules": py_modules}, **quiet)
        else:
            folder = opening.enter_context(_ray_folder())
            opening.callback(ray.shutdown)  # before its folder goes
            ray.init(
                address="local",
                num_cpus=0,  # slots are counted by us; Ray would start a worker for each
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                _node_ip_address=_LOOPBACK,
                _temp_dir=str(folder),
                **quiet,
            )
        _open.push(opening.pop_all())


@contextlib.contextmanager
def _ray_folder() -> Iterator[Path]:
    """Make the folder of a local Ray's sockets and logs; it goes with us, however we end."""
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > _MAX_PLACE:
        raise ConfigError(f"TMPDIR={place!r} is too long for Ray's sockets; set TMPDIR=/tmp")
    with scratch_folder(SCRATCH) as scratch, Leash(scratch, []):
        yield scratch / "r"


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo that Ray takes SIGTERM for itself; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _probe(address: str) -> None:
    """Check that a cluster can be reached from here; Ray itself takes minutes, or aborts.

    Raises:
        ConfigError: it cannot; one line says why.
    """
    if "://" in address:
        raise ConfigError(
            f"ray_address={address!r} is of Ray Client, which streams no results; run this on a "
            "machine of the cluster, with --ray-address auto"
        )
    if address != "auto":
        _knock(address)
    command = [sys.executable, "-P", "-c", _PROBE, address]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"ray_address={address!r} does not answer as Ray does within {_PROBE_SECONDS:.0f} s; "
            "look with ray status"
        ) from error
    words = told.stdout.strip().rpartition("\n")[2]
    if words != "yes":
        raise ConfigError(_refusal(address, words.removeprefix("no ") or told.stderr))


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port[:6]) < 65536:
        raise ConfigError(f"ray_address={address!r} is no address; write HOST:PORT, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS):
            pass
    except OSError as error:
        raise ConfigError(
            f"ray_address={address!r}: nothing answers there ({error.strerror or error}); start "
            "one with ray start --head, or leave the option out"
        ) from error


def _refusal(address: str, words: str) -> str:
    if "Version mismatch" in words:
        versions = [word.split()[0] for word in words.split("Ray: ")[1:3]]
        pythons = [word.split()[0] for word in words.split("Python: ")[1:3]]
        theirs, ours = (f"{r} on Python {p}" for r, p in zip(versions, pythons, strict=True))
        return (
            f"ray_address={address!r} runs Ray {theirs}, and here it is Ray {ours}; install what "
            "the cluster has"
        )
    if address == "auto":
        return "ray_address='auto': no Ray runs on this machine; start one with ray start --head"
    return f"ray_address={address!r} cannot be used: {' '.join(words.split())[:200]}"

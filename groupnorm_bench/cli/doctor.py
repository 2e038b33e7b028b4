"""`gnbench doctor`: what this machine can do, and what to do about each lack."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from groupnorm_bench.cli.app import AsJson, DataDir, app, print_json
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.processors import available
from groupnorm_bench.wording import count


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `advice` is empty where nothing lacks."""

    what: str
    found: str
    advice: str = ""


@app.command("doctor")
def doctor_command(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Report python, torch, device, threads, data and W&B login, and what to do about each lack."""
    data_dir = data_dir or default_data_dir()
    findings = [_python(), *_torch(), *_packages(), _data(data_dir), _wandb(), _disk()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        typer.echo(f"{finding.what:<{width}}  {finding.found}")
        if finding.advice:
            typer.echo(f"{'':<{width}}  -> {finding.advice}")


def _python() -> Finding:
    return Finding("python", f"{platform.python_version()} ({sys.executable})")


def _torch() -> list[Finding]:
    import torch

    from groupnorm_bench.runs import device_name
    from groupnorm_bench.training.device import resolve_device

    device = str(resolve_device("auto"))
    advice = "" if device != "cpu" else "no GPU was found; trainings run on the processor"
    return [
        Finding("torch", torch.__version__),
        Finding("device", f"{device} ({device_name(device)})", advice),
        _threads(torch.get_num_threads()),
    ]


def _threads(used: int) -> Finding:
    ours, there = available(), os.cpu_count() or 1
    found = f"{used} of {count(there, 'processor')}"
    if ours >= there:
        return Finding("threads", found)
    advice = f"this process may use {ours} of them (a CPU quota or mask); trainings keep to that"
    return Finding("threads", found, advice)


def _packages() -> list[Finding]:
    findings = []
    for package, extra, use in (
        ("timm", "norms", "the norms group-ws, frn and evonorm-s0"),
        ("wandb-workspaces", "dashboard", "gnbench dashboard and publish"),
    ):
        try:
            findings.append(Finding(package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            advice = f"for {use}: pip install 'groupnorm-bench[{extra}]'"
            findings.append(Finding(package, "not installed", advice))
    return findings


def _data(data_dir: Path) -> Finding:
    from groupnorm_bench.datasets.fetch import is_on_disk

    if is_on_disk("mnist", data_dir):
        return Finding("data", f"full MNIST in {data_dir}")
    return Finding(
        "data",
        "5,000 bundled digits (mnist-5k)",
        f"for the full MNIST: gnbench data mnist, or its raw files in {data_dir}/MNIST/raw",
    )


def _wandb() -> Finding:
    from groupnorm_bench.tracking.login import login_problem

    version, problem = importlib.metadata.version("wandb"), login_problem()
    if problem is None:
        return Finding("wandb", f"{version}, logged in")
    return Finding(
        "wandb",
        f"{version}, {problem}",
        "runs are kept offline; wandb login, then gnbench sync uploads them",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    advice = "" if free > 1 else "free some space: a run folder takes up to 1 MB"
    return Finding("disk", f"{free:,.0f} GB free here", advice)

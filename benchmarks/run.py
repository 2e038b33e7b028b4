"""Measure gnbench train against its peers, interleaved, and print medians and ratios.

    python benchmarks/run.py --data-dir DATA [--peers-python .bench-venv/bin/python]
    python benchmarks/run.py --as-typed     # gnbench train on the bundled digits, nothing set

Every repeat runs each contender once, in a fresh process, in an order that turns by one each time,
so that what else the machine does falls on all alike; a ratio is taken within a repeat before its
median. A peer whose package is missing is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).parent
BASELINE = "plain loop"
PEERS = {
    BASELINE: ["torch_loader.py"],
    "2 loader workers": ["torch_loader.py", "--workers", "2"],
    "Lightning": ["lightning_trainer.py"],
    "in memory, eager": ["torch_memory.py"],
    "Keras on JAX": ["keras_jax.py"],
    "Flax + optax": ["flax_optax.py"],
}
OURS = {
    "gnbench fp32": [],  # as typed
    "gnbench bf16": ["--precision", "bf16"],
    "torch's modules, fp32": ["--compile", "off"],
    "torch's modules, bf16": ["--precision", "bf16", "--compile", "off"],
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all contenders of one table train."""

    norm: str
    batch_size: int
    images: int
    whole_epoch: bool
    epochs: int = 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """One process: images/s of its training phase, its wall time, its peak memory."""

    images_per_second: float
    process_seconds: float
    peak_memory_mb: float


def main() -> None:
    args = _options()
    if args.as_typed:
        with tempfile.TemporaryDirectory() as folder:
            args.data_dir = _bundled(Path(folder))
            _measure_all(args)
    else:
        _measure_all(args)


def _measure_all(args: argparse.Namespace) -> None:
    contenders = _available([name for name in [*PEERS, *OURS] if _wanted(name, args)], args)
    document = []
    for norm in args.norms:
        for batch_size in args.batch_sizes:
            setting = Setting(norm, batch_size, args.images, args.epoch, args.epochs)
            measured = measure(contenders, setting, args)
            rows = summarize(measured)
            print(table(setting, rows, args), flush=True)
            document.append({"norm": norm, "batch_size": batch_size, "rows": rows})
    if args.json:
        args.json.write_text(json.dumps(document, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, default=os.environ.get("GNBENCH_DATA_DIR"), help="has MNIST/raw"
    )
    parser.add_argument("--peers-python", default=sys.executable, help="their environment's python")
    parser.add_argument("--norms", nargs="+", default=["group"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=6_400, help="trained on in each run")
    parser.add_argument("--epoch", action="store_true", help="whole epochs, test set scored")
    parser.add_argument(
        "--as-typed",
        action="store_true",
        help="five epochs of the 3,500 bundled digits, test set scored; nothing of ours is set",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", help="contenders whose names contain one of these")
    parser.add_argument("--json", type=Path, help="write every figure here")
    args = parser.parse_args()
    args.epochs = 1
    if args.as_typed:
        args.epoch, args.epochs, args.images = True, 5, 3_500
    elif args.data_dir is None:
        parser.error("--data-dir (or GNBENCH_DATA_DIR) must name the folder that has MNIST/raw")
    elif args.epoch:
        args.images = 55_000
    return args


def _wanted(name: str, args: argparse.Namespace) -> bool:
    if args.as_typed:
        return name in (BASELINE, "gnbench fp32", "gnbench bf16")
    return name == BASELINE or not args.only or any(part in name for part in args.only)


def _available(names: list[str], args: argparse.Namespace) -> list[str]:
    """Leave out peers whose packages are missing."""
    modules = {
        "Lightning": "lightning",
        "Keras on JAX": "keras jax",
        "Flax + optax": "flax optax",
    }
    kept = []
    for name in names:
        needs = modules.get(name)
        find = "import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
        test = [args.peers_python, "-c", find, *(needs or "").split()]
        if needs and subprocess.run(test, capture_output=True, check=False).returncode:
            print(f"{name}: left out, {args.peers_python} lacks one of {needs}", file=sys.stderr)
            continue
        kept.append(name)
    return kept


def measure(
    contenders: list[str], setting: Setting, args: argparse.Namespace
) -> dict[str, list[Measurement]]:
    """Run every contender `args.repeats` times, interleaved."""
    measured: dict[str, list[Measurement]] = {name: [] for name in contenders}
    for repeat in range(args.repeats):
        turn = repeat % len(contenders)
        for name in contenders[turn:] + contenders[:turn]:
            measurement = run_once(name, setting, args)
            measured[name].append(measurement)
            print(
                f"{setting.norm} b{setting.batch_size} {repeat + 1}/{args.repeats} {name}: "
                f"{measurement.images_per_second:,.0f} images/s, "
                f"{measurement.process_seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    return measured


def run_once(name: str, setting: Setting, args: argparse.Namespace) -> Measurement:
    """Run one contender in a process of its own, and read what it reports."""
    with tempfile.TemporaryDirectory() as folder:
        command = _command(name, setting, args, folder)
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{name} failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    if name in PEERS:
        document = json.loads(done.stdout.splitlines()[-1])
    else:
        document = json.loads(done.stdout)["summary"]
    return Measurement(document["images_per_second"], seconds, document["peak_memory_mb"])


def _command(name: str, setting: Setting, args: argparse.Namespace, folder: str) -> list[str]:
    shared = ["--data-dir", str(args.data_dir), "--norm", setting.norm]
    shared += ["--batch-size", str(setting.batch_size), "--threads", str(args.threads)]
    if name in PEERS:
        script, *extra = PEERS[name]
        evaluate = ["--evaluate"] if setting.whole_epoch else []
        images = ["--images", str(setting.images), "--epochs", str(setting.epochs)]
        return [args.peers_python, str(HERE / script), *shared, *extra, *images, *evaluate]
    if args.as_typed:
        command = [sys.executable, "-m", "groupnorm_bench", "train", *OURS[name]]
        command += ["--norm", setting.norm, "--batch-size", str(setting.batch_size)]
        return [*command, "--dataset", "mnist-5k", "--wandb", "disabled", "--out", folder, "--json"]
    steps = ["--epochs", "1"]
    if not setting.whole_epoch:
        steps = ["--max-steps", str(setting.images // setting.batch_size)]
    quiet = ["--out", folder, "--wandb", "disabled", "--quiet", "--json", "--dataset", "mnist"]
    train = [sys.executable, "-m", "groupnorm_bench", "train", "--device", "cpu"]
    return [*train, *shared, *OURS[name], *steps, *quiet]


def _bundled(folder: Path) -> Path:
    """Write the bundled digits as torchvision reads MNIST, and return the folder."""
    from groupnorm_bench.datasets.load import load_dataset

    dataset, raw = load_dataset("mnist-5k", folder), folder / "MNIST/raw"
    raw.mkdir(parents=True)
    for part, split in (("train", dataset.train), ("t10k", dataset.test)):
        for what, values in (("images-idx3", split.images[:, 0]), ("labels-idx1", split.labels)):
            header = [0x800 + values.dim(), *values.shape]
            content = values.to(torch.uint8).numpy().tobytes()
            path = raw / f"{part}-{what}-ubyte"
            path.write_bytes(struct.pack(f">{len(header)}i", *header) + content)
    return folder


def summarize(measured: dict[str, list[Measurement]]) -> list[dict[str, float | str]]:
    """Return a row a contender: medians, range, and the median of its ratios to the plain loop."""
    rows: list[dict[str, float | str]] = []
    base = measured[BASELINE]
    for name, runs in measured.items():
        rates = [run.images_per_second for run in runs]
        pairs = list(zip(runs, base, strict=True))
        rows.append(
            {
                "name": name,
                "images_per_second": statistics.median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "ratio": statistics.median(
                    r.images_per_second / b.images_per_second for r, b in pairs
                ),
                "process_seconds": statistics.median(run.process_seconds for run in runs),
                "process_ratio": statistics.median(
                    b.process_seconds / r.process_seconds for r, b in pairs
                ),
                "peak_memory_mb": statistics.median(run.peak_memory_mb for run in runs),
            }
        )
    return rows


def table(setting: Setting, rows: list[dict[str, float | str]], args: argparse.Namespace) -> str:
    """Return the rows as a Markdown table with what it takes to repeat it."""
    kind = f"{setting.images:,} images"
    if setting.whole_epoch:
        kind = f"{setting.epochs} x {kind}, test set scored"
    lines = [
        f"\n### norm {setting.norm}, batch size {setting.batch_size}: {kind}, "
        f"{args.threads} threads, {args.repeats} interleaved repeats\n",
        "| contender | images/s (range) | x plain loop | process, s | x plain loop | peak MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['images_per_second']:,.0f} "
            f"({row['lowest']:,.0f} to {row['highest']:,.0f}) | {row['ratio']:.2f} | "
            f"{row['process_seconds']:.1f} | {row['process_ratio']:.2f} | "
            f"{row['peak_memory_mb']:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""What a user can get wrong: each is one line on stderr, exit code 2, and nothing left behind."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from groupnorm_bench.cli.app import run
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.datasets.place import FILES
from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.loop import Training

SMALL = TrainConfig(dataset="mnist-5k", train_limit=128, max_steps=1, device="cpu")
"""The run that a row would train were its mistake overlooked."""
SMALL_SETTINGS = ("dataset=mnist-5k", "train_limit=128", "max_steps=1")
BASE = [word for setting in SMALL_SETTINGS for word in ("--set", setting)] + ["--wandb", "disabled"]

Files = dict[str, str | bytes]
Prepare = Callable[[Path], None]


@dataclass(frozen=True)
class Bad:
    """One mistake: what is typed after `gnbench`, and words that its one line must have."""

    typed: str
    says: str
    files: Files = field(default_factory=dict)
    prepare: Prepare = lambda folder: None


def train(options: str, says: str, files: Files | None = None, **rest: Prepare) -> Bad:
    """A mistake in the options of `gnbench train`."""
    return Bad(f"train BASE {options}", says, files or {}, **rest)


def config(content: str | bytes, says: str) -> Bad:
    """A mistake in the file that `--config` names."""
    return train("--config run.yaml", says, {"run.yaml": content})


def module(code: str, says: str, function: str = "make") -> Bad:
    """A mistake in a user's own norm, `my_norm.py`."""
    head = "import sys\nimport torch\nfrom torch import nn\n"
    return train(f"--norm MY_NORM:{function}", says, {"MY_NORM.py": head + code})


def network(code: str, says: str) -> Bad:
    """A mistake in a user's own network, `my_norm.py`."""
    head = "from torch import nn\n"
    return train("--model MY_NORM:make", says, {"MY_NORM.py": head + code})


def checkpoint(content: bytes | Callable[[], bytes], says: str) -> Bad:
    """A checkpoint that is not this run's."""

    def prepare(folder: Path) -> None:
        path = folder / "runs" / SMALL.name
        path.mkdir(parents=True)
        (path / "lock").touch()
        (path / "checkpoint.pt").write_bytes(content if isinstance(content, bytes) else content())

    return train("--device cpu", says, prepare=prepare)


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def state_of(config: TrainConfig) -> bytes:
    data = load_dataset("mnist-5k", Path("unused"))
    return saved(Training(config, data, torch.device("cpu")).state())


def state_with(**changes: object) -> bytes:
    data = load_dataset("mnist-5k", Path("unused"))
    return saved(Training(SMALL, data, torch.device("cpu")).state() | changes)


class Malice:
    """Pickled, it makes the file `owned` where it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def raw_files(name: str, content: bytes) -> Prepare:
    """Put four files of `content` where the data set `name` has its raw files."""

    def prepare(folder: Path) -> None:
        raw = folder / "data" / name / "raw"
        raw.mkdir(parents=True)
        for file in FILES:
            (raw / file).write_bytes(content)

    return prepare


def runs_named_as_a_file(folder: Path) -> None:
    (folder / "runs").mkdir()
    (folder / "runs" / SMALL.name).write_text("a file")


GROUPS = "[1, 2, 4, 8, 16, 32]"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n"
    for last, name in zip("abcdefg", "bcdefgh", strict=True)
)
IDX = bytes((0, 0, 8, 3)) + np.array((2, 28, 28), ">i4").tobytes()

LONG = "x" * 5_000

TABLE = {
    # paths of nothing, as "$UNSET" is; paths that the system has something against
    "status of nothing": Bad("status ", "an argument is empty text"),
    "sweep of nothing": Bad("sweep ", "an argument is empty text"),
    "init of nothing": Bad("init norm ", "an argument is empty text"),
    "config of nothing": train("--config=", "--config is empty text"),
    "out of nothing": Bad("unpack runs.gnb --out ", "--out is empty text"),
    "data-dir of nothing": Bad("data --data-dir ", "--data-dir is empty text"),
    "figures of nothing": Bad("report --figures=", "--figures is empty text"),
    "plot of nothing": Bad("bench layers --plot ", "--plot is empty text"),
    "pack of nothing": Bad("pack -o ", "-o is empty text"),
    **{
        f"{command} of a name too long": Bad(f"{command} {LONG}", "File name too long")
        for command in ("status", "show", "compare", "init norm")
    },
    # what is shown and timed
    "show of a file": Bad("show a", "run='a' is a file; name the folder of a run", {"a": ""}),
    "bench groups beyond any": Bad(f"bench layers --groups {'9' * 400}", "'--groups'"),
    "bench rounds beyond any": Bad("bench train --repeats 1000000000", "'--repeats'"),
    "bench shape beyond memory": Bad("bench layers --shape 64,64,9999,9999", "268,435,456 is"),
    "bench shape beyond any": Bad(f"bench layers --shape 1,1,2,{'9' * 5_000}", "is the most"),
    # the command line itself
    "unknown command": Bad("trian", "No such command"),
    "unknown option": Bad("train --nrom group", "--norm"),
    "unknown option of norms": Bad("norms --jsn", "--json"),
    "option without a value": Bad("train --lr", "--lr"),
    "argument that is not taken": Bad("train group", "group"),
    "mirror of nothing fetched": Bad("data --mirror http://x", "name one: mnist"),
    "data in a file": Bad("data --data-dir a", "data_dir='a' is not a folder", {"a": ""}),
    "doctor of data in a file": Bad("doctor --data-dir a", "is not a folder", {"a": ""}),
    "two data sets": Bad("data mnist kmnist", "kmnist"),
    "threads=0": train("--threads 0", "--threads"),
    "threads in words": train("--threads two", "--threads"),
    "unknown wandb mode": Bad("train --wandb onlien", "did you mean 'online'?"),
    "project with a slash": train("--project a/b", "project='a/b'"),
    "project of nothing": train("--project=", "--project is empty text"),
    "project too long": train(f"--project {LONG}", "128 of them at most"),
    "entity with a slash": train("--entity a/b", "entity='a/b' is no W&B entity's name"),
    "sync's project": Bad("sync --project /dev/full", "project='/dev/full' is no W&B project's"),
    "sync's entity": Bad("sync --entity a:b", "entity='a:b' is no W&B entity's name"),
    "dashboard's project": Bad("dashboard --dry-run --project a/b", "project='a/b' is no W&B"),
    "publish's entity": Bad("publish --dry-run --entity a/b", "entity='a/b' is no W&B"),
    "sweep's project": Bad(f"sweep smoke --dry-run --project {LONG}", "128 of them at most"),
    "set without =": train("--set lr", "write --set lr=0.01"),
    "set without a key": train("--set =1", "is not key=value"),
    "set without a value": train("--set lr=", "lr='' is not a number"),
    "set of an unknown key": train("--set num_group=8", "did you mean 'num_groups'?"),
    "title that is no UTF-8": Bad("publish --title a\udcff", "is not UTF-8"),
    "suite that is no UTF-8": Bad("publish --suite a\udcff", "is not UTF-8"),
    "dashboard of no UTF-8": Bad("dashboard --suite a\udcff", "is not UTF-8"),
    "set with two values": Bad("train --set lr=1 --set lr=2", "--set lr=1 and lr=2; leave one"),
    "set of one setting by two names": train("--set groups=8 --set num_groups=4", "given twice"),
    # values
    "unknown norm": train("--norm grup", "did you mean 'group'?"),
    "norm of nothing": train("--norm=", "--norm is empty text"),
    "number of nothing": train("--max-steps=", "--max-steps is empty text"),
    "number of nothing beside it": train("--group-size ", "--group-size is empty text"),
    "sweep's number of nothing": Bad("sweep smoke --max-steps=", "--max-steps is empty text"),
    "slurm of nothing": Bad("sweep smoke --executor slurm --slurm=", "--slurm is empty text"),
    "suite of nothing": Bad("publish --suite=", "--suite is empty text"),
    "unknown dataset": train("--dataset mnits", "did you mean 'mnist'?"),
    "unknown device": train("--device cudda", "did you mean 'cuda'?"),
    "device with a bad index": train("--device cuda:x", "device='cuda:x' is unknown"),
    "unknown optimizer": train("--optimizer adaam", "did you mean 'adam'?"),
    "unknown schedule": train("--schedule cosin", "did you mean 'cosine'?"),
    "unknown precision": train("--precision fp16", "did you mean 'bf16'?"),
    "unknown compile": train("--compile maybe", "use one of auto, on, off"),
    "groups=3": train("--groups 3", GROUPS),
    "groups=64": train("--groups 64", GROUPS),
    "groups=0": train("--groups 0", GROUPS),
    "groups=-8": train("--groups -8", GROUPS),
    "groups=2.5": train("--groups 2.5", "whole number"),
    "groups in words": train("--groups eight", "whole number"),
    "group-size=5": train("--group-size 5", f"group_size to one of {GROUPS}"),
    "group-size=0": train("--group-size 0", GROUPS),
    "groups and group-size": train("--groups 8 --group-size 4", "exclude each other"),
    "epochs and max-steps": train("--epochs 1 --max-steps 4", "exclude each other"),
    "batch-size=0": train("--batch-size 0", "set batch_size to 1 or more"),
    "batch-size=-1": train("--batch-size -1", "set batch_size to 1 or more"),
    "batch-size=1.5": train("--batch-size 1.5", "whole number"),
    "batch-size beyond any": train(f"--batch-size {'9' * 400}", "whole number"),
    "batch over the data": train("--batch-size 4000 --train-limit 3500", "3,500"),
    "batch over the limit": train("--batch-size 256", "128 images"),
    "batch-size=1 with batch": train("--norm batch --batch-size 1", "2 or more"),
    "batch-size=1 with ghosts": train("--norm ghost-batch --batch-size 1", "2 or more"),
    "ghost-size=1": train("--norm ghost-batch --ghost-size 1", "2 or more"),
    "order=sorted": train("--order sorted", "order='sorted' is unknown"),
    "batch-size=1 with renorm": train("--norm batch-renorm --batch-size 1", "2 or more"),
    "lr=-0.1": train("--lr -0.1", "lr=-0.1 is not a positive number"),
    "lr=0": train("--lr 0", "not a positive number"),
    "lr=nan": train("--lr nan", "lr=nan"),
    "lr=inf": train("--lr inf", "lr=inf"),
    "lr in words": train("--lr fast", "lr='fast' is not a number"),
    "weight-decay=-1": train("--weight-decay -1", "weight_decay=-1.0"),
    "weight-decay=nan": train("--weight-decay nan", "weight_decay=nan"),
    "seed=-1": train("--seed -1", "use 0 to 4294967295"),
    "seed=2**32": train("--seed 4294967296", "use 0 to 4294967295"),
    "seed=1.5": train("--seed 1.5", "whole number"),
    "epochs=0": train("--set epochs=0", "exclude each other"),
    "epochs alone=0": Bad("train --epochs 0 --wandb disabled", "set epochs to 1 or more"),
    "max-steps=0": train("--max-steps 0", "set max_steps to 1 or more"),
    "train-limit=0": train("--train-limit 0", "set train_limit to 1 or more"),
    "train-limit over the data": train("--train-limit 9999", "3,500"),
    # the config file
    "config missing": train("--config none.yaml", "none.yaml: No such file"),
    "threads beyond any machine": train("--threads 100000", "Invalid value for '--threads'"),
    "config is a folder": train("--config .", "is not a regular file"),
    "config empty": config("", "run.yaml is empty"),
    "config of comments": config("# lr: 0.1\n", "run.yaml is empty"),
    "config not YAML": config("norm: [group\nlr: 0.1", "is not valid YAML"),
    "config with a tab": config("lr:\t0.1\n\tnorm: group", "is not valid YAML"),
    "config a list": config("- norm: group\n", "holds a list or one value"),
    "config a number": config("42\n", "holds a list or one value"),
    "config two documents": config("lr: 0.1\n---\nlr: 0.2\n", "is not valid YAML"),
    "config key twice": config(
        "lr: 0.1\nnorm: none\nlr: 0.2\n", "run.yaml:3 has the key 'lr' twice"
    ),
    "config setting twice": config("groups: 8\nnum_groups: 4\n", "given twice"),
    "config python call": config("lr: !!python/object/apply:os.mkdir [owned]\n", "plain YAML"),
    "config python object": config("!!python/object:os.mkdir {a: 1}\n", "plain YAML"),
    "config python name": config("lr: !!python/name:os.mkdir\n", "plain YAML"),
    "config unknown key": config("lr: 0.1\nnum_group: 8\n", "run.yaml:2: unknown setting"),
    "config key a number": config("1: 2\n", "unknown setting"),
    "config key a list": config("? [a]\n: b\n", "a key that is not a word"),
    "config lr: fast": config("lr: fast\n", "lr='fast' is not a number"),
    "config lr a list": config("lr: [0.1]\n", "lr=[0.1] is not a number"),
    "config lr nothing": config("lr:\n", "lr=None is not a number"),
    "config lr a date": config("lr: 2026-01-01\n", "is not a number"),
    "config lr .nan": config("lr: .nan\n", "lr=nan"),
    "config epochs 2.5": config("epochs: 2.5\n", "whole number"),
    "config seed true": config("seed: true\n", "whole number"),
    "config norm 3": config("norm: 3\n", "norm=3 is not a word"),
    "config flag in words": config("weight_decay_all: perhaps\n", "true or false"),
    "config exclusive": config("groups: 8\ngroup_size: 4\n", "exclude each other"),
    "config value": config("batch_size: 0\n", "run.yaml: batch_size=0"),
    "config binary": config(bytes(range(256)) * 4, "is not a text file"),
    "config UTF-16": config("lr: 0.1\n".encode("utf-16"), "is not in UTF-8"),
    "config with NUL": config(b"lr: 0.1\0\n", "is not valid YAML"),
    "config huge": config("#" * 1_000_001, "is larger than 1,000,000 bytes"),
    "config alias bomb": config(BOMB, "aliases"),
    "config alias of itself": config("a: &a [*a]\n", "contains itself"),
    "config deep": config("a: " + "[" * 1500, "is not valid YAML"),
    # where the run folder goes
    "out is a file": train("--out a", "cannot be made", {"a": ""}),
    "out is under a file": train("--out a/b", "cannot be made", {"a": ""}),
    "out is no place": train("--out /proc/gnbench/runs", "choose another --out"),
    "run folder is a file": train("--device cpu", "cannot be made", prepare=runs_named_as_a_file),
    # checkpoints
    "checkpoint empty": checkpoint(b"", "cannot be continued"),
    "checkpoint foreign": checkpoint(b"not a checkpoint", "delete it, or type --force"),
    "checkpoint truncated": checkpoint(lambda: state_of(SMALL)[:100_000], "cannot be continued"),
    "checkpoint of a list": checkpoint(saved([1, 2]), "cannot be continued"),
    "checkpoint of a part": checkpoint(saved({"cell": SMALL.cell}), "cannot be continued"),
    "checkpoint of another seed": checkpoint(
        lambda: state_of(SMALL.replace(seed=1)), "with seed 1"
    ),
    "checkpoint of another norm": checkpoint(
        lambda: state_of(SMALL.replace(norm="batch")), "it belongs to batch-b64"
    ),
    "checkpoint of another shape": checkpoint(
        lambda: state_with(model={"conv1.weight": torch.zeros(2)}), "cannot be continued"
    ),
    "checkpoint beyond the end": checkpoint(lambda: state_with(step=99), "its step 99"),
    "checkpoint of malice": checkpoint(pickle.dumps(Malice()), "holds more than numbers"),
    "checkpoint of torch malice": checkpoint(
        lambda: state_with(cell=Malice()), "cannot be continued"
    ),
    # networks
    "unknown model": train("--model resnet21", "did you mean 'resnet20'?"),
    "model of nothing": train("--model=", "--model is empty text"),
    "model of no name": train("--model timm:", "names no network; write timm:resnet18"),
    "model with a slash": train("--model a/b:make", "model='a/b:make' is unknown"),
    "model of many letters": train(f"--model {'a' * 60}:make", "at most 64, in a module of"),
    "model missing": train("--model no_such_module:make", "No module named"),
    "model that raises": network("def make(a, b): raise OSError('no luck')", "OSError: no luck"),
    "model that is none": network("def make(a, b): return None", "returned NoneType, not a"),
    "model without norm": network("def make(a, b): return nn.Linear(a, b)", "has no BatchNorm or"),
    "model of other images": train("--model torchvision:densenet121", "images of another size"),
    "model unknown to torchvision": train("--model torchvision:resnet81", "did you mean 'torchv"),
    "model that groups do not divide": train(
        "--model torchvision:mnasnet0_5 --groups 32", "or num_groups to auto"
    ),
    # norms of one's own
    "module missing": train("--norm no_such_module:make", "No module named"),
    "module without it": module("", "has no attribute 'make'"),
    "module that raises": module("raise OSError('no\\nluck')", "OSError: no luck"),
    "module that exits": module("sys.exit(0)", "SystemExit"),
    "module not python": module("def make(:", "SyntaxError"),
    "norm that is no function": module("make = 3", "not callable"),
    "norm of one argument": module("def make(c): return nn.Identity()", "positional argument"),
    "norm that raises": module("def make(c, g): raise KeyError('c')", "KeyError: 'c'"),
    "norm that is nothing": module("def make(c, g): pass", "returned NoneType"),
    "norm that is a class": module("def make(c, g): return nn.Identity", "returned type"),
    "norm that is a function": module("def make(c, g): return torch.relu", "not a torch.nn"),
    "norm that cuts": module("def make(c, g): return nn.Flatten()", "changes the shape"),
    "norm that narrows": module("def make(c, g): return nn.Conv2d(c, 1, 1)", "changes the shape"),
    "norm of another size": module("def make(c, g): return nn.BatchNorm2d(7)", "cannot normalise"),
    "norm that widens numbers": module(
        "class N(nn.Module):\n    def forward(self, x): return x.double()\n"
        "def make(c, g): return N()",
        "float64",
    ),
    "norm that returns two": module(
        "class N(nn.Module):\n    def forward(self, x): return x, x\ndef make(c, g): return N()",
        "returned tuple",
    ),
    "norm by two colons": train("--norm a:b:c", "is unknown"),
    # data
    "data of a name": Bad("data mnits", "did you mean 'mnist'?"),
    "data-dir is a file": train("--dataset kmnist --data-dir a", "another --data-dir", {"a": ""}),
    "data-dir is no place": train("--dataset mnist --data-dir /proc/no", "another --data-dir"),
    "data altered": train(
        "--dataset mnist --data-dir data", "altered", prepare=raw_files("MNIST", b"no digits")
    ),
    "data not IDX": train(
        "--dataset kmnist --data-dir data", "not an IDX", prepare=raw_files("KMNIST", b"no digits")
    ),
    "data truncated": train(
        "--dataset fashion-mnist --data-dir data",
        "truncated",
        prepare=raw_files("FashionMNIST", IDX + bytes(99)),
    ),
}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return every path under `folder` with its content; a lock's tells who held it last."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and path.name != "lock"
        else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("bad", TABLE.values(), ids=TABLE.keys())
def test_a_mistake_is_one_line_and_leaves_nothing(bad, tmp_path, monkeypatch, capsys, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    own = "my_norm_" + "".join(c if c.isalnum() else "_" for c in request.node.callspec.id)
    for name, content in bad.files.items():
        path = tmp_path / name.replace("MY_NORM", own)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    bad.prepare(tmp_path)
    before = tree(tmp_path)
    typed = [word for part in bad.typed.split(" ") for word in (BASE if part == "BASE" else [part])]
    code = run([word.replace("MY_NORM", own) for word in typed])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 1_000
    assert bad.says in err
    assert tree(tmp_path) == before


def test_the_run_that_the_table_would_train_is_sound(tmp_path, monkeypatch):
    """Else a row could pass for a reason that is not its own."""
    monkeypatch.chdir(tmp_path)
    assert run(["train", *BASE, "--device", "cpu"]) == 0
    assert RunFolder.of(Path("runs"), SMALL).read() is not None


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_here(device, tmp_path, monkeypatch, capsys):
    kind = device.partition(":")[0]
    if torch.cuda.device_count() > 7 or (kind == "mps" and torch.backends.mps.is_available()):
        pytest.skip(f"this machine has {device}")
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has cuda")
    monkeypatch.chdir(tmp_path)
    assert run(["train", *BASE, "--device", device]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: device='{device}' is not here")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_in_use_by_another_process(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.of(Path("runs"), SMALL)
    code = (
        "import sys; from pathlib import Path; from groupnorm_bench.runs import RunFolder\n"
        f"with RunFolder(Path({str(folder.path)!r})).claim():\n    print('held', flush=True)\n"
        "    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert run(["train", *BASE, "--device", "cpu"]) == 2
        assert f"is in use by process {holder.pid} on " in capsys.readouterr().err
        assert sorted(path.name for path in folder.path.iterdir()) == ["lock"]
        holder.communicate()
    assert run(["train", *BASE, "--device", "cpu"]) == 0


@pytest.mark.parametrize(
    ("mount_options", "says"),
    [
        ("size=8k", "No space left"),
        pytest.param("ro", "Read-only file system", marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_takes_nothing(mount_options, says, tmp_path):
    """In a mount namespace of its own, where a tiny or read-only tmpfs can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o {mount_options} none {disk}"
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*space, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets us mount nothing")
    command = " ".join([sys.executable, "-m", "groupnorm_bench.cli", "train", *BASE])
    fill = f"(head -c 1M /dev/zero > {disk}/full) 2>/dev/null"
    done = subprocess.run(
        [*space, f"{mount}; {fill}; {command} --out {disk}; code=$?; ls {disk}; exit $code"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert done.stdout in ("", "full\n")


def test_with_json_an_error_leaves_stdout_empty(capsys):
    assert run(["train", "--norm", "grup", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_gnbench_alone_is_its_help(capsys):
    assert run([]) == 0
    out, err = capsys.readouterr()
    assert "train" in out
    assert err == ""

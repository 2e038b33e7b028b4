"""Every command that a page shows, with what it needs, what shortens it, and what it prints.

A scene is a folder and the commands that are typed there one after the other, each as the page has
it. What shortens a command is `more`, options behind it, or the scene's environment and files: few
values in a copied sweep file, few digits, few steps. `INSTEAD` lists those that cannot be run here,
why, and what is done in their stead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests.docs import shown
from tests.support import ROOT
from tests.support.run_folders import make_runs


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scene plays."""

    path: Path
    server: Any = None
    """W&B's test server, where the scene needs it."""
    slurm: Any = None
    """Stand-ins of Slurm's commands, likewise."""

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class Typed:
    """A command as a page shows it.

    Args:
        line: the command.
        prints: what must stand in its output, as regular expressions.
        more: options typed behind it, which make it shorter.
        code: the exit code that is documented.
        env: variables, likewise for shortness.
        answers: in a terminal: what is waited for, and typed then.
        forked: False where it must be an interpreter of its own.
        shown: False of a step between that no page shows.
    """

    def __init__(
        self,
        line: str,
        *prints: str,
        more: str = "",
        code: int = 0,
        env: Mapping[str, str] | None = None,
        answers: tuple[tuple[str, str], ...] = (),
        forked: bool = True,
        shown: bool = True,
    ) -> None:
        self.line, self.prints, self.more, self.code = line, prints, more, code
        self.env, self.answers = dict(env or {}), answers
        self.forked, self.shown = forked, shown


@dataclass(frozen=True, slots=True)
class Scene:
    """Commands in one folder, in this order."""

    commands: tuple[Typed, ...]
    given: tuple[Callable[[Place], object], ...] = ()
    """What makes the folder."""
    names: Mapping[str, Callable[[Place], str]] = field(default_factory=dict)
    """What stands for a page's placeholder."""
    env: Mapping[str, str] = field(default_factory=dict)
    slow: bool = False
    needs: tuple[str, ...] = ()
    """Fixtures."""


FEW = {"TYPED_FEW_DIGITS": "1"}
ALL = {"TYPED_FEW_DIGITS": ""}
QUICK = "--max-steps 2 --train-limit 64 --wandb disabled"
ONE = f"{QUICK} --workers 1"
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
FORKED_PYTEST = (
    "-p no:cacheprovider -p no:jaxtyping -o filterwarnings=default -o addopts=--strict-markers"
)
"""What it was told of shapes does not go where our package is imported already."""
PIP = {
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_ROOT_USER_ACTION": "ignore",
}
"""pip without a network: what is asked for is here already, or it ends."""

# what makes a folder


def runs(place: Place) -> None:
    """Eight seeds of three arms and two batch sizes."""
    arms = [{"norm": "none"}, {"norm": "batch"}, {"norm": "group"}]
    make_runs(place.path / "runs", arms=arms, batch_sizes=(8, 32), seeds=8)


def few_values(place: Place) -> None:
    """`sweeps/norm.yaml` with one value or two of each list, on few digits."""
    spec = yaml.safe_load((ROOT / "sweeps" / "norm.yaml").read_text())
    spec["parameters"] = {
        "norm": {"values": ["batch", "group"]},
        "num_groups": {"value": 8},
        "batch_size": {"value": 32},
        "seed": {"value": 0},
        **{key: {"value": value} for key, value in SMALL.items()},
    }
    place.write("sweeps/norm.yaml", yaml.safe_dump(spec))


SMALL = {"dataset": "mnist-5k", "train_limit": 64, "max_steps": 2}


def checkout(place: Place) -> None:
    """The repository's files under their names."""
    for name in ("benchmarks", "configs", "docs", "groupnorm_bench", "sweeps", "tests"):
        (place.path / name).symlink_to(ROOT / name)
    for name in ("Makefile", "pyproject.toml", ".ci", "README.md"):
        (place.path / name).symlink_to(ROOT / name)


def copied_checkout(place: Place) -> None:
    """The repository's files, to be changed."""
    import shutil

    without = shutil.ignore_patterns("__pycache__", "*.png", "*.svg")
    for name in ("configs", "docs", "groupnorm_bench", "sweeps"):
        shutil.copytree(ROOT / name, place.path / name, ignore=without)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place.path / name)


def blocks(page: str, start: str = "", end: str = r"\Z") -> list[tuple[str, str]]:
    """Return the other blocks of a page, or of a part of it: language and text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    part = re.search(rf"{start}.*?(?={end})", text, re.S)
    assert part is not None, f"{page} has no {start!r}"
    return list(shown.take_apart(part.group()).blocks)


def files_of_the_page(heading: str, *names: str) -> Callable[[Place], None]:
    """Return what writes a section's blocks of docs/your-own.md into files of these names."""

    def write(place: Place) -> None:
        found = blocks("docs/your-own.md", f"\n## {re.escape(heading)}", r"\n## |\Z")
        for name, (_, text) in zip(names, found, strict=True):
            place.write(name, text.replace("...\n", ""))

    return write


def my_norms(place: Place) -> None:
    place.write("my_norms.py", blocks("docs/norms.md")[0][1])


def pets(place: Place, images: int = 40) -> None:
    """Two classes of small images, a folder each."""
    generator = np.random.default_rng(0)
    for label in range(2):
        folder = place.path / "pets" / f"kind{label}"
        folder.mkdir(parents=True)
        for number in range(images):
            pixels = generator.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[..., label] += 100
            Image.fromarray(pixels).save(folder / f"{number}.png")


def other_pack(place: Place) -> None:
    """`other.gnb`: one more seed, from elsewhere."""
    make_runs(place.path / "elsewhere", arms=[{"norm": "batch"}], batch_sizes=(8,), seeds=[99])


def a_browser(place: Place) -> None:
    """One that notes what it is given."""
    place.write("browser", '#!/bin/sh\necho "$1" > opened\n')
    (place.path / "browser").chmod(0o755)


def optimizers(place: Place) -> None:
    """Six seeds of two optimizers and two learning rates."""
    arms = [
        {"norm": "group", "optimizer": name, "lr": lr}
        for name in ("adam", "sgd")
        for lr in (0.001, 0.01)
    ]
    from groupnorm_bench.settings.config import TrainConfig
    from tests.support.run_folders import make_run

    for arm in arms:
        for seed in range(6):
            config = TrainConfig.from_mapping(
                {**arm, "seed": seed, "dataset": "mnist-5k", "epochs": 2}
            )
            make_run(place.path / "runs", config)


def snippet(place: Place) -> None:
    """The Python of docs/scheduler.md."""
    place.write("block.py", blocks("docs/scheduler.md")[0][1])


def theirs(place: Place) -> None:
    """A W&B project whose runs gnbench did not make."""
    from tests.compare.test_foreign_wandb import put

    for seed in range(8):
        for norm, ahead in (("batch", 0.0), ("group", 0.03 + 0.001 * (seed % 3))):
            config = {"model": {"norm": norm}, "norm": norm, "seed": seed}
            dice = 0.7 + 0.002 * seed + ahead
            summary = {"dice": dice, "val": {"dice": dice}}
            put(place.server, config, summary, project="my-project", entity="my-team")


# what placeholders stand for


def last_sweep(place: Place) -> str:
    sweep = place.server.store.all("SELECT name FROM sweeps ORDER BY id")[-1]["name"]
    return f"tester/groupnorm-bench/{sweep}"


def first_run(place: Place) -> str:
    return min(path.parent.name for path in (place.path / "runs").glob("*/result.json"))


def _is(text: str) -> Callable[[Place], str]:
    return lambda place: text


SCENES: dict[str, Scene] = {
    "a newcomer's empty folder": Scene(
        env=FEW | NO_NETWORK,
        names={"RUN": first_run},
        commands=(
            Typed("gnbench --help", "Which normalisation", "compare", "sweep"),
            Typed("gnbench --install-completion", "gnbench.sh", forked=False),
            Typed("gnbench norms", r"group\b.*Wu & He 2018|group", "evonorm-s0"),
            Typed("gnbench data", "mnist-5k", "cifar10"),
            Typed("gnbench doctor", "python", "torch", "wandb|W&B"),
            Typed("gnbench init norm", r"^norm\.yaml$", "next: gnbench sweep"),
            Typed(
                "gnbench sweep --norm none,batch,group --num-groups 4,8 --batch-size 32,128"
                " --seeds 8 --save mine.yaml --dry-run",
                "8 cells x 8 seeds = 64 runs",
                "mine.yaml",
                env=ALL,
            ),
            Typed("gnbench sweep norm --dry-run", "24 cells x 3 seeds = 72 runs", env=ALL),
            Typed("gnbench train --help", "--num-groups", "--set"),
            Typed("gnbench train --norm group --groups 8", "test/accuracy", more=QUICK),
            Typed("gnbench train", "test/accuracy", more=QUICK),
            Typed("gnbench sweep norm", "group-g1", more=f"{ONE} --seeds 1 --run-cap 3"),
            Typed(
                "gnbench sweep norm --until-decided",
                more=f"{ONE} --seeds 1 --run-cap 3 --max-seeds 1",
                code=5,
            ),
            Typed("gnbench show RUN", "test", "finished"),
            Typed("gnbench power norm --difference 0.2 --sd 0.3", "seeds", env=ALL),
            Typed("gnbench bench layers", "group", more="--repeats 1 --shape 2,32,8,8"),
            Typed(
                "gnbench bench train", "images/s", more="--repeats 1 --batch-size 8 --norm batch"
            ),
            Typed(
                "gnbench bench train --norm group",
                "images/s",
                more="--repeats 1 --batch-size 8",
            ),
            Typed(
                "gnbench bench train --norm group --threads 1",
                "images/s",
                more="--repeats 1 --batch-size 8",
            ),
            Typed(
                "gnbench bench train --norm none --norm batch --norm group --groups 1 --groups 2"
                " --groups 4 --groups 8 --groups 16 --groups 32 --repeats 40",
                "group-g32",
                more="--repeats 1 --batch-size 8 --precision fp32",
            ),
        ),
    ),
    "a folder of runs": Scene(
        given=(runs, a_browser),
        env={"BROWSER": "./browser"},
        names={"FILE": _is("runs")},
        commands=(
            Typed("gnbench compare runs", "^best at batch_size=8: ", "^decided: "),
            Typed("gnbench compare", "^best"),
            Typed("gnbench compare runs --explain", "p Holm", "anytime p"),
            Typed(
                "gnbench compare runs --claim 'group-g8 = batch' --margin 0.5",
                "group-g8",
                code=4,
            ),
            Typed("gnbench status runs", "48 runs: 48 finished"),
            Typed("gnbench status FILE --json", '"finished": 48'),
            Typed("gnbench compare FILE", "^best"),
            Typed("gnbench report runs", r"^report\.html$"),
            Typed("gnbench report runs --open", r"^report\.html$"),
            Typed("cat opened", r"^file:///.*/report\.html$", shown=False),
        ),
    ),
    "packs": Scene(
        given=(runs, other_pack),
        names={"RUNS": _is("runs")},
        commands=(
            Typed("gnbench pack elsewhere -o other.gnb", "1 run", shown=False),
            Typed("gnbench pack runs -o sweep.gnb", "48 runs"),
            Typed("gnbench pack RUNS -o sweep.gnb", "48"),
            Typed("gnbench compare sweep.gnb", "^best"),
            Typed("gnbench pack other.gnb -o sweep.gnb", "1"),
            Typed("mv runs before", shown=False),
            Typed("gnbench unpack sweep.gnb --out runs", "49"),
            Typed(
                'for run in before/*; do cmp "$run/result.json" "runs/${run#*/}/result.json"'
                " || exit 1; done",
                shown=False,
            ),
        ),
    ),
    "sweep files": Scene(
        given=(checkout,),
        env=FEW,
        names={"FILE": _is("sweeps/smoke.yaml")},
        commands=(
            Typed("gnbench sweep sweeps/smoke.yaml", "group-g8", more=ONE),
            Typed("gnbench sweep FILE", "group-g8", more=ONE),
            Typed("gnbench power FILE --difference 0.2 --sd 0.3", "seeds", env=ALL),
            Typed(
                "gnbench sweep sweeps/smoke.yaml --until-decided",
                "undecided",
                more=f"{ONE} --max-seeds 2",
                code=5,
            ),
            Typed(
                "gnbench sweep FILE --until-decided --max-seeds 40",
                "decided",
                more=f"{ONE} --max-seeds 2",
                code=5,
            ),
            Typed(
                "gnbench sweep sweeps/claim.yaml --out runs/claim",
                "group-g8",
                more="--max-steps 1 --dataset mnist-5k --wandb disabled --workers 1"
                " --seeds 1 --run-cap 3 --max-seeds 1",
            ),
            Typed("gnbench compare docs/results/control.gnb", "^best"),
            Typed("gnbench compare docs/results/control-fashion.gnb", "^best"),
            Typed("gnbench compare docs/results/wu-he-short.gnb", "undecided"),
            Typed("gnbench compare docs/results/wu-he.gnb", "equal within 0.2, "),
            Typed("gnbench compare docs/results/groups-mnist.gnb", "group-g1 is the baseline"),
            Typed("gnbench compare docs/results/claim-tuned.gnb", "decided: 3 of 8"),
            Typed("gnbench compare docs/results/claim.gnb", "^best", "equal within 0.2, "),
        ),
    ),
    "a norm of one's own": Scene(
        given=(my_norms,),
        env=FEW,
        commands=(
            Typed(
                "gnbench train --norm my_norms:ScaledTanh --groups 8",
                "my_norms.ScaledTanh-g8",
                more=QUICK,
            ),
        ),
    ),
    "a network of one's own": Scene(
        given=(files_of_the_page("Your network", "my_nets.py", "mine.yaml", "my_resnets.py"),),
        env=FEW,
        commands=(
            Typed(
                "gnbench model my_nets:make_model --norm batch --norm group",
                "^my_nets:make_model$",
            ),
            Typed("gnbench sweep mine.yaml --dataset mnist-5k --epochs 1", more="--wandb disabled"),
            Typed("gnbench compare runs", r"^group-gauto +6 .*(worse|better|equal|undecided)"),
        ),
    ),
    "torchvision's network": Scene(
        given=(pets,),
        slow=True,
        commands=(
            Typed(
                "gnbench train --model torchvision:resnet18 --dataset folder:pets --norm batch"
                " --batch-size 16 --epochs 2",
                "test/accuracy",
                more="--wandb disabled --device cpu",
            ),
            Typed(
                "gnbench train --model torchvision:resnet18 --dataset folder:pets --norm group"
                " --groups auto --batch-size 16 --epochs 2",
                "20 norm layers exchanged for group-gauto",
                more="--wandb disabled --device cpu",
            ),
            Typed("gnbench compare runs", "undecided: 1 of 1 contrast"),
        ),
    ),
    "a sweep on images of one's own": Scene(
        given=(lambda place: pets(place, 400),),  # for batches of 512
        commands=(Typed("gnbench sweep norm --dataset folder:pets", "24 cells", more="--dry-run"),),
    ),
    "data of one's own": Scene(
        given=(files_of_the_page("Your data", "my_data.py"),),
        commands=(
            Typed("gnbench data my_data:load", "840 / 120 / 240 images"),
            Typed(
                "gnbench train --dataset my_data:load --norm batch --batch-size 8 --epochs 1"
                " --seed 0",
                "test/accuracy",
                more="--wandb disabled",
            ),
            Typed(
                "gnbench train --dataset my_data:load --norm group --batch-size 8 --epochs 1"
                " --seed 0",
                "test/accuracy",
                more="--wandb disabled",
            ),
            Typed("gnbench compare runs", "group-g8 against batch"),
        ),
    ),
    "a training of one's own": Scene(
        given=(
            files_of_the_page("Your training", "unet.py", "discs.py", "study.py", "study.yaml"),
        ),
        commands=(
            Typed("gnbench sweep study.yaml", more="--wandb disabled"),
            Typed(
                "gnbench compare runs",
                r"^\s*group-g4 +6 .*(worse|better|equal|undecided)",
            ),
            Typed(
                "gnbench train --trial study:train --norm group --groups 4 --set batch_size=2"
                " --set lr=0.01",
                "dice",
                more="--wandb disabled",
            ),
        ),
    ),
    "Lightning": Scene(
        given=(files_of_the_page("A trainer of a library", "lit.py", "fit.py", "fit.yaml"),),
        slow=True,
        commands=(
            Typed("gnbench sweep fit.yaml", more="--wandb disabled"),
            Typed(
                "gnbench compare runs",
                r"^\s*group-g4 +6 .*(worse|better|equal|undecided)",
            ),
        ),
    ),
    "a study that is finished": Scene(
        given=(files_of_the_page("A study that is finished", "study.csv", "block.py"),),
        commands=(
            Typed("gnbench compare study.csv", "guessed by its names", "arm norm; seed seed"),
            Typed(
                "gnbench compare study.csv --arm norm --seed seed --metric dice"
                " --setting batch_size",
                "group against batch: 4 more seeds",
            ),
            Typed("gnbench report study.csv", r"^report\.html$"),
            Typed("python block.py", "group against batch: undecided, ", shown=False),
        ),
    ),
    "another setting as the arm": Scene(
        given=(optimizers,),
        commands=(
            Typed("gnbench compare runs --arm optimizer", "sgd against adam|adam against sgd"),
            Typed("gnbench compare runs --arm norm,lr", "group"),
        ),
    ),
    "somebody's W&B project": Scene(
        given=(theirs,),
        needs=("wandb_server",),
        commands=(
            Typed("gnbench compare my-team/my-project", "group against batch", "better"),
            Typed(
                "gnbench report my-team/my-project --arm model.norm --metric val.dice"
                " --where 'state=finished'",
                r"^report\.html$",
            ),
        ),
    ),
    "from Python": Scene(
        given=(few_values, snippet),
        slow=True,
        commands=(
            Typed("python block.py", r"^group-g8 32 \d+\.\d+ 5$", shown=False, forked=False),
        ),
    ),
    "Slurm": Scene(
        given=(few_values,),
        slow=True,
        needs=("slurm_stand_ins",),
        commands=(
            Typed(
                "gnbench sweep sweeps/norm.yaml --executor slurm"
                ' --slurm "partition=gpu,gres=gpu:1,time=02:00:00" --jobs 32',
                "group-g8",
                more="--wandb disabled",
            ),
        ),
    ),
    "W&B, from the login to the dashboard": Scene(
        given=(few_values,),
        slow=True,
        needs=("wandb_server", "slurm_stand_ins"),
        env=FEW,
        names={
            "ENTITY/PROJECT/SWEEP": last_sweep,
            "FILE": _is("sweeps/norm.yaml"),
            "NAME.yaml": _is("sweeps/norm.yaml"),
            "runs/group-g8-b64-s0-1a2b3c4d/wandb": lambda place: f"runs/{first_run(place)}/wandb",
        },
        commands=(
            Typed(
                "wandb login",
                answers=(("Paste your API key", "{key}\n"),),
                env={"WANDB_API_KEY": ""},
            ),
            Typed('cat "$NETRC"', r"^machine 127\.0\.0\.1", "[0-9a-f]{40}$", shown=False),
            Typed("gnbench doctor", "logged in|login"),
            Typed(
                "gnbench train --norm group --groups 8",
                "http://127",
                more="--max-steps 2 --train-limit 64",
            ),
            Typed("wandb sweep sweeps/norm.yaml", "wandb agent tester/groupnorm-bench/"),
            Typed("wandb agent ENTITY/PROJECT/SWEEP", "agent", "gnbench train"),
            Typed("gnbench compare ENTITY/PROJECT/SWEEP", "group-g8 against batch: it takes 5"),
            Typed("wandb sweep FILE", "wandb agent"),
            Typed("gnbench agent ENTITY/PROJECT/SWEEP", "the sweep is finished: 2 runs"),
            Typed("wandb sweep NAME.yaml", "wandb agent"),
            Typed(
                "gnbench agent ENTITY/PROJECT/SWEEP --workers 2", "the sweep is finished: 2 runs"
            ),
            Typed(
                "gnbench sweep sweeps/norm.yaml",
                "W&B sweep: http",
                r"group-g8 .* 2 *$",
                more="--seeds 2",
            ),
            Typed(
                "gnbench sweep sweeps/norm.yaml --executor local",
                "W&B sweep: http",
                r"group-g8 .* 3 *$",
                more="--seeds 3",
            ),
            Typed("gnbench dashboard runs --suite norm", "^http://127"),
            Typed("gnbench dashboard", "^http://127"),
            Typed("gnbench publish runs --suite norm", "^http://127"),
            Typed("gnbench publish runs", "^http://127"),
            Typed("gnbench publish", "^http://127"),
            Typed(
                'sbatch --array=0-7 --wrap "gnbench agent ENTITY/PROJECT/SWEEP"',
                "Submitted batch job",
            ),
        ),
    ),
    "W&B, without a network: later": Scene(
        given=(few_values,),
        slow=True,
        needs=("wandb_server",),
        env=FEW,
        names={
            "runs/group-g8-b64-s0-1a2b3c4d/wandb": lambda place: f"runs/{first_run(place)}/wandb",
        },
        commands=(
            Typed("gnbench sweep sweeps/norm.yaml --wandb offline", "2 runs trained"),
            Typed(
                "wandb leet runs/group-g8-b64-s0-1a2b3c4d/wandb",
                answers=(("images_seen", "q"),),
            ),
            Typed("gnbench sync", "2 runs uploaded"),
            Typed("gnbench sync runs", "0 runs uploaded"),
        ),
    ),
    "a checkout": Scene(
        given=(checkout,),
        env=FEW
        | {
            "MAKEFLAGS": "n",
            "PYTEST_ADDOPTS": f"--collect-only -q {FORKED_PYTEST}",
        },
        names={"FILE": _is("many.gnb")},
        commands=(
            Typed("make check", r"^\.ci/check$"),
            Typed("make slow", r"-m pytest -q -n 2 -m \"slow or browser\""),
            Typed("make bench", r"^python benchmarks/run\.py"),
            Typed(
                'make bench BENCH="--peers-python .bench-venv/bin/python"',
                r"^python benchmarks/run\.py --peers-python",
            ),
            Typed("python -m pytest -m slow tests/reliability/test_fuzz.py", "::test_"),
            Typed("python -m pytest -m slow tests/reliability/test_scale.py", "::test_"),
            Typed(
                "pytest -m slow tests/sweep/test_faults.py tests/sweep/executors/test_local.py",
                "test_faults.py::",
                "test_local.py::",
            ),
            Typed("pytest tests/sweep/plan tests/sweep/file", "plan/.*::test_", "file/.*::test_"),
            Typed("pytest -m slow tests/sweep/file/test_wandb_tools.py", "::test_"),
            Typed("python benchmarks/peak.py", "thousand million", more="--repeats 1"),
            Typed("python benchmarks/pieces.py", "second convolution", more="--repeats 1"),
            Typed("OMP_NUM_THREADS=1 python benchmarks/peak.py", "thousand", more="--repeats 1"),
            Typed("OMP_NUM_THREADS=1 python benchmarks/pieces.py", "linear", more="--repeats 1"),
            Typed(
                "python benchmarks/million.py make FILE",
                "many.gnb: 16 runs of 2 cells",
                more="--cells 2 --seeds 8",
            ),
            Typed("python benchmarks/million.py read FILE --report", "gnbench report"),
            Typed("python3 -m venv .bench-venv", more="--without-pip"),
        ),
    ),
    "a checkout that is changed": Scene(
        given=(copied_checkout,),
        slow=True,
        commands=(
            Typed("python docs/make_results.py"),
            Typed("cmp docs/results.md {root}/docs/results.md", shown=False),
            Typed("cmp README.md {root}/README.md", shown=False),
        ),
    ),
    "pip": Scene(
        given=(checkout,),
        env=PIP | {"PIP_DRY_RUN": "1"},
        slow=True,
        commands=(
            Typed("pip install groupnorm-bench", "already satisfied: groupnorm-bench"),
            Typed(
                "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu",
                "already satisfied: torch ",
                "already satisfied: torchvision ",
            ),
            *(
                Typed(
                    f"pip install 'groupnorm-bench[{extra}]'",
                    rf"already satisfied: groupnorm-bench\[{extra}\]",
                )
                for extra in ("norms", "dashboard", "parquet", "ray")
            ),
        ),
    ),
}


PARSED = {"TYPED_PARSE_ONLY": "1"}
LONG = "it measures for minutes to hours; its own parser takes the line"
FULL = "the full MNIST, for minutes to hours; its own parser takes the line"
NET = "the data come from the network; told of in one line where there is none, and fetched from "
NET += "a server on loopback by tests/datasets/test_load.py"
DRY = "hours of training; planned as it is"
NAMED = "named in the text as W&B's program"


@dataclass(frozen=True, slots=True)
class Instead:
    """A command that cannot be run here."""

    line: str
    why: str
    does: Typed
    """What is done in its stead, in a checkout."""


def _parsed(line: str, why: str) -> Instead:
    typed = line.replace("--engine ENGINE --runs N", "--engine local --runs 9")
    return Instead(line, why, Typed(typed, "^parsed$", env=PARSED))


INSTEAD = (
    *(
        _parsed(line, LONG)
        for line in (
            "python -m tests.reliability.campaign train --all --journal FILE",
            "python benchmarks/awake.py",
            "python benchmarks/busy.py",
            "python benchmarks/busy.py --sweep",
            "python benchmarks/layouts.py",
            "python benchmarks/many_runs.py --engine ENGINE --runs N",
            "python benchmarks/run.py --as-typed",
            "python benchmarks/sweep_against_agent.py",
            "python benchmarks/sweep_against_agent.py --norm",
            "python benchmarks/sweep_against_agent.py --repeats 2",
            "python benchmarks/sweep_before.py --before CHECKOUT",
            "python benchmarks/sweep_before.py --before CHECKOUT --all",
            "python benchmarks/sweep_before.py --before CHECKOUT --train",
            "python benchmarks/sweep_before.py --before CHECKOUT --train --warm",
            "python benchmarks/sweep_on_ray.py",
            "python benchmarks/sweep_planning.py",
            "python benchmarks/sweep_running.py",
        )
    ),
    *(
        _parsed(line, FULL)
        for line in (
            "python benchmarks/memory.py --data-dir DATA",
            "python benchmarks/precision.py --data-dir DATA --out runs-precision",
            "python benchmarks/precision.py --data-dir DATA --out runs-precision --threads 2",
            'python benchmarks/run.py --data-dir DATA --epoch --only "gnbench fp32" --repeats 3',
            "python benchmarks/run.py --data-dir DATA --peers-python .bench-venv/bin/python"
            " --images 9600 --batch-sizes 16 64 256",
            "python benchmarks/small_batches.py --data-dir DATA",
            "python benchmarks/small_batches.py --data-dir DATA --rounds 15",
            "python benchmarks/startup.py --data-dir DATA",
        )
    ),
    *(
        Instead(line, DRY, Typed(line, "to do, 0 reused", more=f"--dry-run {few}"))
        for line, few in (
            ("gnbench sweep sweeps/control.yaml --out runs/control", ""),
            (
                "gnbench sweep sweeps/control-fashion.yaml --out runs/control-fashion",
                "--dataset mnist-5k --train-limit 500",
            ),
            (
                "gnbench sweep sweeps/wu-he-short.yaml --out runs/wu-he-short",
                "--dataset mnist-5k --train-limit 500",
            ),
            (
                "gnbench sweep sweeps/claim-tuned.yaml --out runs/claim-tuned",
                "--dataset mnist-5k",
            ),
            (
                "gnbench sweep sweeps/groups-mnist.yaml --out runs/groups-mnist",
                "--dataset mnist-5k --train-limit 500",
            ),
            (
                "gnbench sweep sweeps/wu-he.yaml --out runs/wu-he",
                "--dataset mnist-5k --train-limit 500",
            ),
            (
                "gnbench sweep sweeps/batch-size-mnist.yaml",
                "--dataset mnist-5k --train-limit 500",
            ),
        )
    ),
    *(
        Instead(
            line,
            "the builder of editable installs comes from the network: .ci/run types it, and "
            "tests/test_wheel.py installs the wheel; what would be installed is asked",
            Typed("pip install --dry-run --no-deps .", "Would install groupnorm-bench", env=PIP),
        )
        for line in (
            "python3 -m venv .venv && . .venv/bin/activate && pip install -e .",
            "pip install -e '.[dev]'",
            "pip install -e '.[dev]' && pytest",
        )
    ),
    *(
        Instead(f"gnbench data {name}", NET, Typed(f"gnbench data {name}", "^error: ", code=2))
        for name in ("mnist", "cifar10")
    ),
    *(
        Instead(f"wandb {name}", NAMED, Typed(f"wandb {name} --help", "^Usage"))
        for name in ("agent", "sync", "sweep", "sweep --pause")
    ),
    Instead(
        "python docs/simulate_verdicts.py",
        "half a minute; a tenth of its experiments",
        Typed("python docs/simulate_verdicts.py --quick", "normal"),
    ),
    Instead(
        ".bench-venv/bin/pip install -r benchmarks/requirements.txt",
        "gigabytes of other libraries from the network; their names are read",
        Typed("pip install --no-index --dry-run -r benchmarks/requirements.txt", "", code=1),
    ),
)

ELSEWHERE = {
    "gnbench quick": "tests/test_wheel.py",
    "gnbench sweep sweeps/norm.yaml --executor ray --ray-address auto": (
        "tests/sweep/executors/test_ray.py"
    ),
}
"""Typed by tests that have what it takes: the wheel alone, a Ray cluster."""

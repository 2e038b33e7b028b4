"""The table of settings: nothing is told twice, and a new setting is one field and one line."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.norms import NORMS
from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import (
    ARM_SETTINGS,
    EXCLUSIVE,
    LINKS,
    PLAIN,
    SETTINGS,
    read_under_gates,
)
from tests.support import ROOT

FIELD = '    momentum: float = _setting(0.9, "Momentum of sgd.")\n'
LINE = """\
    "momentum": SettingSpec(
        part="mom", gate="optimizer", is_read_under=lambda name: name == "sgd", is_new=True
    ),
"""
DEFAULTS = TrainConfig()


def test_every_field_has_its_line():
    assert set(SETTINGS) == {field.name for field in dataclasses.fields(TrainConfig)}


def test_every_setting_that_may_differ_within_an_arm_shows_in_the_name():
    silent = {name for name, spec in SETTINGS.items() if spec.part is None and spec.in_cell}
    assert silent == {*ARM_SETTINGS, "batch_size"}, "these stand in every name"


def test_what_a_default_is_and_what_the_table_says_of_it_agree():
    for name, spec in SETTINGS.items():
        default = getattr(DEFAULTS, name)
        assert (default is None) == (spec.instead_of is not None or name == "train_limit")
        assert not spec.choices or default in spec.choices
        for other in (spec.gate, spec.instead_of):
            assert other is None or other in SETTINGS


def test_the_links_are_those_of_the_cells():
    """A second way: turn each setting, and see which others begin or cease to be read."""
    others = {"norm": "batch", "weight_decay": 0.1, "max_steps": 3, "group_size": 4}
    found = set()
    for name, value in others.items():
        changed = TrainConfig(**{name: value})
        for other in (set(DEFAULTS.inert) ^ set(changed.inert)) - {name}:
            found.add((name, other))
    decides = {(link[0], name) for link in LINKS for name in link[1:]}
    assert found <= decides | {(b, a) for a, b in EXCLUSIVE}
    assert {("norm", "num_groups"), ("weight_decay", "weight_decay_all")} <= found


def test_a_plain_setting_is_live_whatever_the_norm_and_the_decay():
    for norm in NORMS:
        for decay in (0.0, 0.1):
            config = TrainConfig(norm=norm, weight_decay=decay)
            assert set(config.cell_settings) >= PLAIN
            assert read_under_gates(config).isdisjoint(config.inert - {"group_size"})


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package that has one setting more: a field and a line in the table."""
    root = tmp_path_factory.mktemp("newer")
    copied = root / "groupnorm_bench"
    shutil.copytree(
        ROOT / "groupnorm_bench", copied, ignore=shutil.ignore_patterns("__pycache__", "*.nb?")
    )
    for name, before, new in (
        ("config.py", "    def __post_init__", FIELD + "\n"),
        ("fields.py", '    "schedule": SettingSpec', LINE),
    ):
        path = copied / "settings" / name
        text = path.read_text()
        assert text.count(before) == 1
        path.write_text(text.replace(before, new + before))
    return root


def in_newer(root: Path, code: str) -> str:
    """Run Python with the newer package, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_setting_at_its_default_changes_no_name(newer: Path):
    code = """
from pathlib import Path
from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.config import TrainConfig
assert TrainConfig(optimizer="sgd").cell_settings["momentum"] == 0.9
for folder in Path(FOLDERS).iterdir():
    result = RunFolder(folder).read()
    assert result.config.name == folder.name, folder
print(TrainConfig(optimizer="sgd", momentum=0.5).name)
"""
    folders = Path(__file__).with_name("folders_0_1_0")
    name = in_newer(newer, f"FOLDERS = {str(folders)!r}\n{code}")
    assert name.startswith("group-g8-b64-sgd-mom0.5-s0-")
    assert name.strip()[-8:] != TrainConfig(optimizer="sgd").name[-8:]


def test_a_new_setting_is_known_everywhere_at_once(newer: Path):
    code = """
from pathlib import Path
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.wandb.sweep_config import compile_plan
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import build_plan
from groupnorm_bench.tracking.wire import from_wandb, to_wandb

adam, sgd = TrainConfig(momentum=0.5), TrainConfig(optimizer="sgd", momentum=0.5)
assert adam.name == TrainConfig().name and "momentum" in adam.inert
assert from_wandb(to_wandb(sgd, "s")).name == sgd.name
Path("s.yaml").write_text(
    "method: grid\\nparameters:\\n  optimizer: {values: [adam, sgd]}\\n"
    "  momentum: {values: [0.5, 0.9]}\\n"
)
plan = build_plan(read_spec(Path("s.yaml")))
assert plan.num_runs == 3, plan.num_runs
print(dict(plan.duplicates))
print([value for value in compile_plan(plan.spec, plan.runs)["parameters"]["variant"]["values"]])
"""
    reasons, variants = in_newer(newer, code).splitlines()
    assert reasons == "{'optimizer=adam does not read momentum': 1}"
    assert variants.count("'optimizer': 'sgd'") == 2
    assert variants.count("'momentum'") == 1, "at its default it is not sent: 0.1.0 would refuse it"
    help_text = in_newer(newer, "from groupnorm_bench.cli.app import run; run(['train', '--help'])")
    assert "--momentum" in help_text


def test_a_result_of_a_newer_version_is_told_in_one_line(newer: Path):
    code = """
from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
config = TrainConfig(optimizer="sgd", momentum=0.5)
print(RunResult(config=config, status="finished", environment={"version": "9.9.0"}).to_json())
"""
    text = in_newer(newer, code)
    assert json.loads(text)["config"]["momentum"] == 0.5
    with pytest.raises(
        RunFolderError, match=r"another version.*unknown setting 'momentum'"
    ) as told:
        RunResult.from_json(text)
    assert "\n" not in str(told.value)

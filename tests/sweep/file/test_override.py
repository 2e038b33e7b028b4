"""Options beside a sweep file win over its constants, and never over what it sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.wandb.sweep_config import compile_search
from groupnorm_bench.sweep.file.override import override
from groupnorm_bench.sweep.file.spec import SweepSpec, read_spec
from groupnorm_bench.sweep.plan.plan import build_plan

SWEEP = """\
method: random
run_cap: 4
parameters:
  norm: {values: [none, group]}
  batch_size: {values: [32, 64]}
  epochs: {value: 3}
  optim: {parameters: {lr: {value: 0.1}, weight_decay: {values: [0, 0.5]}}}
  arm: {values: [{optimizer: sgd, schedule: cosine}, {optimizer: adam, schedule: cosine}]}
"""


def spec_of(folder: Path) -> SweepSpec:
    (folder / "s.yaml").write_text(SWEEP)
    return read_spec(folder / "s.yaml")


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ({"epochs": 5}, "epochs=5 replaces epochs=3 of "),
        ({"epochs": 3}, None),
        ({"max_steps": 60}, "max_steps=60 replaces epochs=3 of "),
        ({"lr": 0.01}, "lr=0.01 replaces lr=0.1 of "),
        ({"schedule": "constant"}, "schedule=constant replaces schedule=cosine of "),
        ({"train_limit": 90}, None),
    ],
)
def test_a_typed_setting_wins_over_a_constant_with_a_line(tmp_path, typed, line):
    base = TrainConfig(**typed)
    spec, lines = override(spec_of(tmp_path), base, list(typed))
    assert [one[: len(line or "")] for one in lines] == ([line] if line else [])
    for run in build_plan(spec, base=base).runs:
        for name, value in typed.items():
            assert getattr(run, name) == value
        assert (run.max_steps is None) == ("max_steps" not in typed)
    sent = compile_search(spec, base, None)["parameters"]
    for name, value in typed.items():
        assert sent[name] == {"value": value}, "W&B's agents train the same"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ({"batch_size": 8}, "batch_size"),
        ({"batch_size": 64}, "batch_size"),
        ({"weight_decay": 0.5}, "weight_decay"),
        ({"optimizer": "sgd"}, "optimizer"),
    ],
)
def test_a_swept_setting_is_refused_whatever_the_value(tmp_path, typed, name):
    with pytest.raises(ConfigError, match=rf"^{name}=\S+ is swept by .*s\.yaml; leave the option"):
        override(spec_of(tmp_path), TrainConfig(**typed), list(typed))


def test_a_setting_that_excludes_a_swept_one_is_refused(tmp_path):
    (tmp_path / "s.yaml").write_text("method: grid\nparameters: {epochs: {values: [1, 2]}}\n")
    with pytest.raises(ConfigError, match=r"^max_steps=9 excludes epochs, which is swept by"):
        override(read_spec(tmp_path / "s.yaml"), TrainConfig(max_steps=9), ["max_steps"])


def test_a_norm_that_the_search_does_not_name_goes_to_wandb(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "method: random\nrun_cap: 2\nparameters: {lr: {values: [0.1, 0.2]}}\n"
    )
    base = TrainConfig(norm="batch")
    sent = compile_search(read_spec(tmp_path / "s.yaml"), base, None)["parameters"]
    assert sent["norm"] == {"value": "batch"}
    assert not {"num_groups", "group_size", "weight_decay_all", "seed"} & set(sent)

"""W&B's environment variables: obeyed, refused or told, and none for one run reaches several."""

from __future__ import annotations

from pathlib import Path

import pytest

from groupnorm_bench import sweep
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.runs import find_runs
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.variables import obeyed
from tests.support.command_line import gnbench

TRAIN = ("train", "--dataset", "mnist-5k", "--train-limit", "64", "--max-steps", "2", "--json")


@pytest.fixture
def set_(wandb_env, monkeypatch):
    monkeypatch.delenv("WANDB_DIR")
    return monkeypatch.setenv


def asked(runs_dir: Path | None = None, **options) -> tuple[TrackingOptions, list[str]]:
    said: list[str] = []
    return obeyed(TrackingOptions(**options), said.append, runs_dir=runs_dir), said


@pytest.mark.parametrize(
    ("value", "mode"),
    [("OFFLINE", "offline"), ("dryrun", "offline"), (" Disabled ", "disabled"), ("", "auto")],
)
def test_the_mode_is_taken_in_any_case_and_an_option_wins(set_, value, mode):
    set_("WANDB_MODE", value)
    assert asked()[0].mode == mode
    assert asked(mode="online")[0].mode == "online"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WANDB_MODE", "ofline", "WANDB_MODE='ofline' is unknown; did you mean 'offline'"),
        ("WANDB_TAGS", "x" * 65, "WANDB_TAGS: .* has over 64 letters"),
        ("WANDB_RUN_ID", "../x", "WANDB_RUN_ID='../x' is no id of a run"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_line_before_anything_is_trained(
    set_, tmp_path, name, value, message
):
    set_(name, value)
    with pytest.raises(ConfigError, match=message):
        asked(tmp_path)
    done = gnbench(*TRAIN, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "runs").exists()


def test_tags_group_and_job_type_are_those_of_the_environment_too(set_):
    set_("WANDB_TAGS", "night, a100,,night")
    set_("WANDB_RUN_GROUP", "mine")
    set_("WANDB_JOB_TYPE", "probe")
    options, said = asked(tags=("ours",))
    assert (options.tags, options.group, options.job_type) == (
        ("ours", "night", "a100"),
        "mine",
        "probe",
    )
    assert said == []


def test_what_is_meant_for_one_run_reaches_one_run_and_no_sweep(set_, tmp_path):
    set_("WANDB_RUN_ID", "abc-1")
    set_("WANDB_NAME", "my run")
    options, _ = asked(tmp_path)
    assert (options.run_id, options.name) == ("abc-1", "my run")
    options, said = asked(None)
    assert (options.run_id, options.name) == (None, None)
    assert said == ["W&B: WANDB_RUN_ID, WANDB_NAME is meant for one run; this sweep leaves it out"]


def test_each_run_of_a_sweep_has_an_id_of_its_own(set_, tmp_path):
    set_("WANDB_RUN_ID", "abc")
    (tmp_path / "s.yaml").write_text(
        "method: grid\nparameters: {norm: {values: [none, layer]}, dataset: {value: mnist-5k}, "
        "train_limit: {value: 64}, max_steps: {value: 1}}\n"
    )
    runs = tmp_path / "runs"
    sweep(tmp_path / "s.yaml", runs=runs, wandb="offline", workers="1", say=lambda line: None)
    ids = {run.result.wandb["id"] for run in find_runs([runs])[0]}
    assert len(ids) == 2
    assert "abc" not in ids

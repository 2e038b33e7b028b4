"""A run's settings: what goes in comes back, and its identity stands still."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.models import MODELS
from groupnorm_bench.norms import NORMS
from groupnorm_bench.settings.config import (
    MAX_COUNT,
    MAX_SEED,
    TrainConfig,
    setting_name,
    valid_num_groups,
)
from groupnorm_bench.settings.fields import (
    AUGMENTATIONS,
    COMPILE,
    OPTIMIZERS,
    ORDERS,
    PRECISIONS,
    SCHEDULES,
    SETTINGS,
)
from groupnorm_bench.settings.layers import read_settings

positive = st.integers(1, 10**6)
rates = st.floats(1e-12, 1e6, allow_nan=False)
CUSTOM = "my_package.my_module:make_norm"
FUSED = [name for name, spec in NORMS.items() if spec.fuses_activation]


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    """Any config that can be built."""
    norm = draw(st.sampled_from([*NORMS, CUSTOM]))
    fitting = [name for name, spec in MODELS.items() if not (spec.apart and norm in FUSED)]
    model = draw(st.sampled_from(fitting))
    groups = draw(st.sampled_from(valid_num_groups(model)))
    settings = {
        "norm": norm,
        draw(st.sampled_from(["num_groups", "group_size"])): groups,
        "ghost_size": draw(st.integers(2, 100)),
        "batch_size": draw(st.integers(2, 10_000)),
        draw(st.sampled_from(["epochs", "max_steps"])): draw(positive),
        "lr": draw(rates),
        "optimizer": draw(st.sampled_from(OPTIMIZERS)),
        "weight_decay": draw(st.just(0.0) | rates),
        "weight_decay_all": draw(st.booleans()),
        "schedule": draw(st.sampled_from(SCHEDULES)),
        "model": model,
        "dataset": draw(st.sampled_from(SETTINGS["dataset"].choices)),
        "train_limit": draw(st.none() | positive),
        "order": draw(st.sampled_from(ORDERS)),
        "augment": draw(st.sampled_from(AUGMENTATIONS)),
        "seed": draw(st.integers(0, MAX_SEED)),
        "device": draw(st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps"])),
        "precision": draw(st.sampled_from(PRECISIONS)),
        "compile": draw(st.sampled_from(COMPILE)),
    }
    return TrainConfig.from_mapping(settings)


@given(configs())
def test_a_config_comes_back_from_a_file(config: TrainConfig):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(yaml.safe_dump(config.to_dict()))
        again = TrainConfig.from_mapping(read_settings(path))
        assert again == config
        path.write_text(yaml.safe_dump(again.to_dict()))
        assert TrainConfig.from_mapping(read_settings(path)).name == config.name


@given(configs())
def test_a_config_comes_back_from_words_as_an_agent_types_them(config: TrainConfig):
    words = {key.replace("_", "-"): str(value) for key, value in config.to_dict().items()}
    assert TrainConfig.from_mapping(words) == config


@given(configs())
def test_names_are_folder_names_and_hold_arm_seed_and_hash(config: TrainConfig):
    assert re.fullmatch(r"[A-Za-z0-9_.+-]+", config.name)
    assert config.name.startswith(f"{config.arm}-b{config.batch_size}-")
    stem, digest = config.cell.rsplit("-", 1)
    assert config.name == f"{stem}-s{config.seed}-{digest}"
    assert re.fullmatch(r"[0-9a-f]{8}", digest)


@given(configs(), configs())
def test_inert_settings_seed_and_device_do_not_change_the_cell(
    one: TrainConfig, other: TrainConfig
):
    inert = one.inert - {"group_size", "max_steps", "num_groups", "epochs"} | {"seed", "device"}
    changed = one.replace(**{name: getattr(other, name) for name in inert})
    assert changed.cell == one.cell
    assert changed.arm == one.arm


@given(configs(), st.data())
def test_a_live_setting_changes_the_cell(config: TrainConfig, data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(set(config.cell_settings) - {"norm"})))
    other = getattr(data.draw(configs()), name)
    assume(other not in (None, getattr(config, name)))
    try:
        changed = config.replace(**{name: other})
    except ConfigError:
        assume(False)
    assert changed.cell != config.cell


@pytest.mark.parametrize("norm", [name for name, spec in NORMS.items() if not spec.reads_groups])
def test_groups_of_a_norm_without_groups_are_one_cell(norm: str):
    cells = {TrainConfig(norm=norm, num_groups=g).cell for g in valid_num_groups()}
    cells |= {TrainConfig(norm=norm, group_size=g).cell for g in valid_num_groups()}
    assert len(cells) == 1
    assert TrainConfig(norm=norm).arm == norm
    TrainConfig(norm=norm, num_groups=5)  # inert, so not judged


def test_three_norms_by_six_groups_by_three_batch_sizes_are_24_cells():
    cells = {
        TrainConfig(norm=norm, num_groups=groups, batch_size=batch_size).cell
        for norm in ("none", "batch", "group")
        for groups in (1, 2, 4, 8, 16, 32)
        for batch_size in (8, 32, 128)
    }
    assert len(cells) == 24


GOLDEN = {
    "group-g8-b64-s0-b6ea9643": {},
    "batch-b32-mnist-5k-s3-20f1f7f8": {
        "norm": "batch",
        "batch_size": 32,
        "dataset": "mnist-5k",
        "seed": 3,
    },
    "group-s4-b64-e2-lr0.01-s0-65b4cb3a": {"group_size": 4, "epochs": 2, "lr": 0.01},
    "none-b64-steps9-sgd-wd0.0001-wdall-cosine-n500-bf16-s0-6246b218": {
        "norm": "none",
        "max_steps": 9,
        "optimizer": "sgd",
        "weight_decay": 1e-4,
        "weight_decay_all": True,
        "schedule": "cosine",
        "train_limit": 500,
        "precision": "bf16",
    },
    "my_package.my_module.make_norm-g8-b64-s0-ab77f461": {"norm": CUSTOM},
}


@pytest.mark.parametrize(("name", "settings"), GOLDEN.items())
def test_names_and_hashes_stand_still(name: str, settings: dict[str, object]):
    """A changed hash orphans every run folder that anybody has: never change these lightly."""
    assert TrainConfig.from_mapping(settings).name == name


def test_later_layers_win_and_a_new_choice_drops_the_one_it_excludes():
    config = TrainConfig.from_layers(
        [{"groups": 4, "epochs": 3, "lr": "1e-2"}, {"group-size": 2}, {"max_steps": 7}]
    )
    assert (config.group_size, config.max_steps, config.lr) == (2, 7, 0.01)
    assert config.to_dict().keys().isdisjoint({"num_groups", "epochs"})
    back = TrainConfig.from_layers([config.to_dict(), {"groups": 16}])
    assert (back.group_size, back.num_groups) == (None, 16)


def test_words_of_yaml_and_of_options_mean_the_same():
    said = TrainConfig.from_mapping(
        {"lr": "1e-3", "seed": "007", "train_limit": "none", "weight_decay_all": "True"}
    )
    assert (said.lr, said.seed, said.train_limit, said.weight_decay_all) == (1e-3, 7, None, True)
    assert TrainConfig.from_mapping({"compile": False}).compile == "off"
    assert TrainConfig.from_mapping({"epochs": 2.0, "lr": 1}).epochs == 2
    assert TrainConfig.from_mapping({"max_steps": "1e3"}).max_steps == 1000


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0  # type: ignore[misc]


def test_every_setting_has_help_and_its_three_spellings():
    for field in dataclasses.fields(TrainConfig):
        assert field.metadata["help"]
        assert setting_name(field.name.replace("_", "-")) == field.name
    assert setting_name("groups") == "num_groups"


def test_num_groups_of_a_layer():
    by_size = TrainConfig(group_size=4)
    assert [by_size.num_groups_for(channels) for channels in (32, 64)] == [8, 16]
    assert [TrainConfig(num_groups=4).num_groups_for(channels) for channels in (32, 64)] == [4, 4]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("learning_rate", "lr"),
        ("learning-rate", "lr"),
        ("LearningRate", "lr"),
        ("model.lr", "lr"),
        ("optim.weight_decay", "weight_decay"),
        ("optimizer.wd", "weight_decay"),
        ("batchsize", "batch_size"),
        ("BATCH_SIZE", "batch_size"),
        ("num_epochs", "epochs"),
        ("random_seed", "seed"),
        ("lr_scheduler", "schedule"),
        ("normalization", "norm"),
        ("nrom", "norm"),
    ],
)
def test_what_other_peoples_files_call_a_setting_is_told_as_a_hint(theirs: str, ours: str):
    with pytest.raises(ConfigError, match=f"unknown setting .*; did you mean '{ours}'\\?"):
        setting_name(theirs)


def test_no_hint_is_a_setting_or_stands_twice():
    hints = [hint for spec in SETTINGS.values() for hint in spec.elsewhere]
    own = {name.replace("_", "") for name in SETTINGS}
    assert len(hints) == len(set(hints))
    assert own.isdisjoint(hints)
    assert all(hint == hint.lower().replace("_", "") for hint in hints)


@pytest.mark.parametrize("name", ["batch_size", "epochs", "max_steps", "train_limit"])
def test_a_count_has_an_end(name: str):
    assert getattr(TrainConfig(**{name: MAX_COUNT}), name) == MAX_COUNT
    for value in (MAX_COUNT + 1, 10**30, "1e300"):
        with pytest.raises(ConfigError, match=f"^{name}=\\d+ is too large; 1,000,000,000 is the m"):
            TrainConfig(**{name: value})


def test_a_norm_whose_folder_no_disk_can_hold_is_refused_by_its_own_name():
    with pytest.raises(ConfigError, match=r"^norm='m+:make' has 205 letters, .* at most 100"):
        TrainConfig(norm="m" * 200 + ":make")
    longest = TrainConfig(
        norm="m" * 95 + ":make",
        group_size=16,
        batch_size=MAX_COUNT,
        dataset="fashion-mnist",
        max_steps=MAX_COUNT,
        lr=1.234567e-300,
        optimizer="adamw",
        weight_decay=1.234567e-300,
        weight_decay_all=True,
        schedule="one-cycle",
        train_limit=MAX_COUNT,
        precision="bf16",
        compile="off",
        seed=MAX_SEED,
    )
    assert len(longest.name) <= 255

"""The grid by itself: its blocks, and that positions and configs are each other's inverse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from groupnorm_bench.errors import SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.yamlfile import read_yaml
from groupnorm_bench.sweep.file.axes import read_axes
from groupnorm_bench.sweep.plan.grid import Combinations, Grid, Line

BASE = TrainConfig()
GROUPED = {"norm": {"values": ["none", "group"]}, "num_groups": {"values": [1, 2, 4]}}


def grid_of(folder: Path, parameters: dict, base: TrainConfig = BASE) -> Grid:
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({"parameters": parameters}, sort_keys=False))
    axes, _ = read_axes(read_yaml(path), "grid")
    return Grid(axes, base)


def test_linked_settings_share_a_block_and_the_arms_vary_fastest(tmp_path: Path):
    grid = grid_of(
        tmp_path,
        GROUPED
        | {"lr": {"values": [0.1, 0.01]}, "weight_decay": {"values": [0, 0.1]}}
        | {"weight_decay_all": {"values": [False, True]}, "epochs": {"min": 1, "max": 9}},
    )
    kinds = [block.setting if isinstance(block, Line) else block.settings for block in grid.blocks]
    assert kinds == ["lr", ("weight_decay", "weight_decay_all"), "epochs", ("norm", "num_groups")]
    assert [block.size for block in grid.blocks] == [2, 3, 9, 4]
    assert (grid.size, grid.points) == (2 * 3 * 9 * 4, 2 * 4 * 9 * 6)
    assert [grid.run(i, 0).arm for i in range(5)] == [
        *("none", "group-g1", "group-g2", "group-g4"),
        "none",
    ]


def test_an_axis_of_several_settings_joins_their_blocks(tmp_path: Path):
    arms = [{"norm": "none", "weight_decay": 0.1}, {"norm": "batch", "weight_decay": 0}]
    grid = grid_of(
        tmp_path, {"arm": {"values": arms}, "weight_decay_all": {"values": [True, False]}}
    )
    [block] = grid.blocks
    assert isinstance(block, Combinations)
    assert (block.size, block.points) == (3, 4)


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "norm": st.just({"values": ["none", "batch", "group", "layer"]}),
        "num_groups": st.just({"values": [1, 8, 8]}),
        "batch_size": st.sampled_from([{"values": [2, 64]}, {"min": 2, "max": 9}]),
        "lr": st.just({"distribution": "q_uniform", "min": 0.1, "max": 0.4, "q": 0.1}),
        "max_steps": st.just({"values": [3, None]}),
        "weight_decay": st.just({"values": [0, 0.5]}),
        "weight_decay_all": st.just({"values": [True, False]}),
    },
).filter(bool)


@given(PARAMETERS, st.data())
@settings(max_examples=40, deadline=None)
def test_a_position_gives_a_config_and_the_config_its_position(
    tmp_path_factory, parameters: dict, data: st.DataObject
):
    grid = grid_of(tmp_path_factory.getbasetemp(), parameters)
    place = data.draw(st.integers(0, grid.size - 1))
    config = grid.run(place, seed=5)
    assert config.seed == 5
    assert grid.find(config) == place
    assert grid.find(config.replace(train_limit=77)) is None
    assert sum(grid.duplicates().values()) == grid.points - grid.size


def test_a_float_is_found_in_a_range_of_whole_numbers_at_once(tmp_path: Path):
    grid = grid_of(tmp_path, {"lr": {"min": 1, "max": 10**9}})
    assert grid.find(BASE.replace(lr=123_456_789.0)) == 123_456_788
    assert grid.find(BASE.replace(lr=0.5)) is None


def test_a_block_of_too_many_combinations_names_its_parameters(tmp_path: Path):
    with pytest.raises(SweepError, match=r"norm, num_groups make 200,000 combinations; 100,000"):
        grid_of(
            tmp_path,
            {"norm": {"values": ["none"] * 2}, "num_groups": {"min": 1, "max": 100_000}},
        )

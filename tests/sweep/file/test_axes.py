"""The parameters of a sweep file as axes: what each sets, and which seeds there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.yamlfile import read_yaml
from groupnorm_bench.sweep.file.axes import Axis, on_base, read_axes, seeds_from_count


def axes_of(
    folder: Path, parameters: dict, method: str = "grid"
) -> tuple[tuple[Axis, ...], tuple[int, ...]]:
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({"parameters": parameters}, sort_keys=False))
    return read_axes(read_yaml(path), method)


def test_axes_come_in_the_files_order_and_seed_is_none(tmp_path: Path):
    axes, seeds = axes_of(
        tmp_path,
        {"norm": {"values": ["none"]}, "seed": {"values": [4, "2"]}, "groups": {"value": 8}},
    )
    assert [(axis.label, axis.setting) for axis in axes] == [
        ("norm", "norm"),
        ("groups", "num_groups"),
    ]
    assert seeds == (4, 2)
    assert axes[1].where.endswith("s.yaml:10")


def test_a_nested_parameter_is_called_by_its_path_and_sets_its_last_name(tmp_path: Path):
    inner = {"parameters": {"sgd": {"parameters": {"lr": {"values": [0.1]}}}}}
    [axis] = axes_of(tmp_path, {"optim": inner})[0]
    assert (axis.label, axis.setting, axis.settings) == ("optim.sgd.lr", "lr", ("lr",))


def test_an_assignment_is_of_the_settings_own_types(tmp_path: Path):
    arms = [{"norm": "group", "num-groups": "4"}, {"norm": "none", "lr": "1e-2"}]
    [axis, lr] = axes_of(tmp_path, {"arm": {"values": arms}, "weight_decay": {"values": ["1e-4"]}})[
        0
    ]
    assert axis.settings == ("norm", "num_groups", "lr")
    assert axis.assignment(arms[0]) == {"norm": "group", "num_groups": 4}
    assert axis.assignment(arms[1]) == {"norm": "none", "lr": 0.01}
    assert lr.assignment("1e-4") == {"weight_decay": 1e-4}


def test_a_value_is_judged_by_itself_not_with_its_neighbours(tmp_path: Path):
    """Which values fit each other is the grid's affair: 3 groups are fine where none are read."""
    axes, _ = axes_of(tmp_path, {"norm": {"values": ["none"]}, "num_groups": {"values": [3]}})
    assert axes[1].assignment(3) == {"num_groups": 3}
    with pytest.raises(SweepError, match=r"s\.yaml:6 num_groups: num_groups='x' is not a whole"):
        axes[1].assignment("x")


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_range_is_judged_by_its_ends_or_by_a_far_draw(tmp_path: Path, method: str):
    with pytest.raises(SweepError, match=r"lr: lr=0\.0 is not a positive number"):
        axes_of(tmp_path, {"lr": {"min": 0, "max": 1.5}}, method)
    normal = {"distribution": "normal", "mu": -10, "sigma": 0.1}
    with pytest.raises(SweepError, match=r"weight_decay=-9\.\d+ is not a number from 0 on"):
        axes_of(tmp_path, {"weight_decay": normal}, method)


def test_a_setting_given_on_a_base_replaces_what_it_excludes():
    base = TrainConfig(max_steps=7, group_size=4)
    assert on_base(base, {"epochs": 2}).max_steps is None
    assert on_base(base, {"groups": "2"}).group_size is None
    assert on_base(base, {"lr": 0.1}).max_steps == 7
    with pytest.raises(ConfigError, match="unknown setting 'learn'"):
        on_base(base, {"learn": 1})


@pytest.mark.parametrize("count", [1, 3, 10_000])
def test_so_many_seeds_are_counted_from_0(count: int):
    assert seeds_from_count(count) == tuple(range(count))

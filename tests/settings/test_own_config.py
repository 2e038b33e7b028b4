"""Settings of any names, for a training function of the user's own."""

from __future__ import annotations

import pytest

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.layers import make_config, read_settings
from groupnorm_bench.settings.own_config import OwnConfig

GIVEN = {"trial": "lab.study:train", "norm": "group", "groups": "4", "dropout": 0.1, "seed": 3}


def test_without_a_trial_settings_are_gnbenchs_own():
    assert make_config([{"norm": "batch"}, {"trial": None}]) == TrainConfig(norm="batch")
    with pytest.raises(ConfigError, match="unknown setting 'dropout'"):
        make_config([{"dropout": 0.1}])


def test_any_name_is_a_setting_of_a_trial_and_part_of_the_cell():
    config = make_config([GIVEN])
    assert isinstance(config, OwnConfig)
    assert config.cell_settings == {
        "norm": "group",
        "num_groups": 4,
        "trial": "lab.study:train",
        "dropout": 0.1,
    }
    assert config.name.startswith("group-g4-lab.study.train-dropout0.1-s3-")
    assert make_config([config.to_dict()]) == config
    others = [{"dropout": 0.2}, {"width": 8}, {"trial": "lab.study:other"}, {"norm": "batch"}]
    assert len({make_config([GIVEN, other]).cell for other in [{}, *others]}) == 5
    assert make_config([GIVEN, {"seed": 4}]).cell == config.cell


def test_what_gnbench_calls_a_setting_is_the_functions_where_it_trains():
    config = make_config([GIVEN, {"batch_size": 1, "norm": "batch", "optimizer": "lamb"}])
    assert config.value("batch_size") == 1
    assert config.value("optimizer") == "lamb"
    assert config.value("epochs") is None, "nothing has a default"
    assert "epochs" not in config.to_dict()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("64", 64), ("1.0", 1), ("true", True), ("adam", "adam"), ("-0.5", -0.5)],
)
def test_text_that_is_a_number_is_that_number_so_that_all_ways_in_name_one_run(text, value):
    typed, read = (make_config([GIVEN, {"x": given}]) for given in (text, value))
    assert typed == read
    assert typed.name == read.name
    assert type(typed.value("x")) is type(value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"arm": "x"}, "setting 'arm' is a word of gnbench's own"),
        ({"a b": 1}, "setting 'a b' is no name"),
        ({"x": [1, 2]}, r"x=\[1, 2\] is not a finite number, a word, true or false"),
        ({"x": float("nan")}, "x=nan is not a finite"),
        ({"x": "two\nlines"}, "is no word"),
        ({"trial": "study"}, "trial='study' is no function"),
        ({"norm": "grup"}, "norm='grup' is unknown"),
        ({"lr": 1, "l-r": 2, "l_r": 3}, "l_r is given twice"),
    ],
)
def test_what_cannot_be_a_setting_is_refused_in_one_line(given, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        make_config([GIVEN, given])
    assert "\n" not in str(caught.value)


def test_a_file_of_settings_may_name_the_trial_or_be_read_beside_one(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("variant: {norm: group, num_groups: 4}\ndropout: 0.1\n")
    assert read_settings(file, "m:f") == {"norm": "group", "num_groups": 4, "dropout": 0.1}
    with pytest.raises(ConfigError, match=r"settings.yaml:2: unknown setting 'dropout'"):
        read_settings(file)
    file.write_text("trial: m:f\ndropout: 0.1\n")
    assert read_settings(file) == {"trial": "m:f", "dropout": 0.1}
    file.write_text("trial: m:f\nnum_groups: 4\ngroups: 8\n")
    with pytest.raises(ConfigError, match=r"settings.yaml: num_groups is given twice"):
        read_settings(file)


def test_a_setting_that_a_file_has_on_two_levels_is_refused(tmp_path):
    """The later one won in silence."""
    file = tmp_path / "a.yaml"
    file.write_text("lr: 0.1\narm: {norm: group, lr: 0.2}\n")
    for trial in (None, "m:f"):
        with pytest.raises(ConfigError, match=r"a.yaml:2: lr is given twice; keep one of them"):
            read_settings(file, trial)

"""The first runs that people make: few, of different lengths, and of settings that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from groupnorm_bench import load_runs, report
from groupnorm_bench.cli.app import run
from groupnorm_bench.report.parallel import parallel, round_ticks
from groupnorm_bench.settings.config import TrainConfig
from tests.support.run_folders import make_run


def configs(**settings: list[object]) -> list[TrainConfig]:
    """Return a config per value of the one setting."""
    ((name, values),) = settings.items()
    return [TrainConfig(dataset="mnist-5k", epochs=1, **{name: value}) for value in values]


def test_two_trials_and_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["train", "--max-steps", "3", "--dataset", "mnist-5k", "--wandb", "disabled", "-q"]
    assert run(short) == 0
    assert run([*short, "--train-limit", "500"]) == 0
    assert run(["report"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert "train_limit" in page
    assert "What was read as what" in page
    for row in load_runs("runs").rows:
        assert ((row.misreads() == -1) == row.hits()).all()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({"train_limit": [None, 500, 100]}, ["none", "100", "500"]),
        ({"train_limit": [500, *range(100, 114), None]}, None),
        ({"weight_decay_all": [False, True]}, None),
        ({"lr": [0.1, 0.003, 1.0]}, ["0.003", "0.1", "1"]),
        ({"optimizer": ["sgd", "adam"]}, ["adam", "sgd"]),
    ],
)
def test_settings_of_any_kind_have_an_axis(tmp_path, settings, places):
    for config in configs(**settings):
        make_run(tmp_path, config)
    (name,) = settings
    figure = parallel(load_runs([tmp_path]), "test/accuracy")
    assert figure.parallel is not None
    axes = {dimension.label: dimension for dimension in figure.parallel.dimensions}
    if places is not None:
        assert [word for _, word in axes[name].ticks] == places
    report(tmp_path, None)


def test_one_run_alone_is_told_of_in_the_singular(tmp_path):
    make_run(tmp_path, TrainConfig(norm="batch", dataset="mnist-5k", epochs=1))
    text = report(tmp_path, None, output="md").text + report(tmp_path, None).text
    for wrong in ("1 runs", "1 seeds", "1 cells", "1 arms", "1 pairs", "1 columns"):
        assert wrong not in text, wrong


@pytest.mark.parametrize(
    ("low", "high"), [(98.4, 98.42), (0, 100), (1e-7, 3e-7), (-3, 2), (0, 2e9), (99.97, 100)]
)
def test_no_two_marks_of_an_axis_have_the_same_word(low, high):
    ticks = round_ticks(low, high)
    words = [word for _, word in ticks]
    assert 3 <= len(set(words)) == len(words) <= 8
    for place, word in ticks:
        assert float(word) == pytest.approx(place, abs=(high - low) / 100)
        assert low - 1e-9 <= place <= high * (1 + 1e-9)


def test_an_axis_without_extent_has_one_mark():
    assert round_ticks(91.0, 91.0) == [(91.0, "91")]

"""Every metric keeps the same promises, from the day it is added to `METRICS`."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from groupnorm_bench import TrainConfig, train
from groupnorm_bench.metrics import METRICS, metric_spec

COUNTERS = {"epoch", "step", "images_seen", "status", "val/num_images", "test/num_images"}
"""Keys of histories and summaries that measure nothing."""


@pytest.fixture(scope="module")
def trained():
    """Return a run of a norm that has every metric: batch norm's."""
    config = TrainConfig(
        norm="batch", dataset="mnist-5k", train_limit=32, batch_size=16, epochs=1, device="cpu"
    )
    return train(config, data_dir=Path("unused"))


@pytest.mark.parametrize("name", METRICS)
def test_a_spec_knows_its_name_direction_and_print(name):
    spec = METRICS[name]
    assert metric_spec(name) is spec
    assert spec.name == name
    assert spec.factor in (1.0, 100.0)
    assert spec.unit == ("points" if spec.factor == 100 else "")
    assert spec.per_epoch or spec.in_summary or name == "norm/eval_gap"
    text = spec.text(1234.56789)
    assert float(text) == pytest.approx(1234.56789, abs=0.5)
    assert "," in spec.text(1234.56789, grouped=True)
    assert spec.text(None) == ""
    assert [spec.difference(value)[0] for value in (0.25, -0.25)] == ["+", "-"]
    assert spec.difference(None) == "?"
    assert spec.shown(None) == ""
    assert spec.shown(0.25).endswith(" %") == (spec.factor == 100)
    assert float(spec.shown(0.25).removesuffix(" %")) == pytest.approx(0.25 * spec.factor, abs=0.5)
    assert spec.title.startswith(name.split("/")[0].split("_")[0])


@pytest.mark.parametrize("name", METRICS)
def test_chance_is_what_guessing_gives(name):
    spec = METRICS[name]
    if spec.chance is None:
        assert not name.endswith(("accuracy", "loss"))
        return
    guess = [1 / 10] * 10
    expected = guess[0] if spec.is_percent else -math.log(guess[0])
    assert spec.chance(10) == pytest.approx(expected)
    if spec.bounds is not None:
        assert spec.bounds[0] <= spec.chance(10) <= spec.bounds[1]


def test_the_table_holds_what_a_run_writes_and_nothing_else(trained):
    per_epoch = {name for name, spec in METRICS.items() if spec.per_epoch} | {"norm/eval_gap"}
    in_summary = {name for name, spec in METRICS.items() if spec.in_summary}
    row = {key for key in trained.history[-1] if "activation" not in key}
    assert row - COUNTERS == per_epoch
    assert set(trained.summary) - COUNTERS == in_summary


@pytest.mark.parametrize(
    ("name", "larger_is_better", "factor"),
    [
        ("top5/accuracy", True, 100),
        ("validation_loss", False, 1),
        ("word_error_rate", False, 1),
        ("gpu_seconds", False, 1),
        ("memory_mb", False, 1),
        ("bleu", True, 1),
    ],
)
def test_a_metric_that_is_not_in_the_table_is_read_from_its_name(name, larger_is_better, factor):
    spec = metric_spec(name)
    assert (spec.name, spec.larger_is_better, spec.factor) == (name, larger_is_better, factor)


def test_a_value_of_unknown_size_keeps_four_digits():
    assert [metric_spec("bleu").text(value) for value in (0.0001234, 31.4159)] == [
        "0.0001234",
        "31.42",
    ]


def test_the_table_loads_alone():
    code = "import sys, groupnorm_bench.metrics; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"

"""`gnbench bench`: every norm is timed, and the output is whole."""

import json

import pytest

from groupnorm_bench.bench.layers import bench_layers, cnn_shapes
from groupnorm_bench.bench.steps import bench_train
from groupnorm_bench.bench.timing import Case, Spread, interleaved
from groupnorm_bench.cli.app import run as gnbench
from groupnorm_bench.norms import NORMS
from groupnorm_bench.settings.config import TrainConfig

SHAPE = (2, 8, 4, 4)


def test_every_norm_is_timed_in_both_precisions_and_ours_where_it_exists():
    rows, notes = bench_layers([SHAPE], num_groups=2, repeats=1)
    timed = {(row.norm, row.precision) for row in rows}
    left_out = {note.split(":")[0] for note in notes}
    names = set(NORMS) - left_out
    assert timed == {(name, precision) for name in names for precision in ("fp32", "bf16")}
    fast = {row.norm for row in rows if row.way == "compiled"}
    assert fast == {"none", "batch", "group", "layer", "instance", "group-ws"} - left_out
    assert all(row.microseconds.low > 0 for row in rows)


def test_by_default_the_shapes_are_those_of_the_cnn():
    assert cnn_shapes() == [(64, 32, 28, 28), (64, 64, 14, 14)]


def test_saved_memory_is_what_is_kept_for_the_backward_pass():
    rows, _ = bench_layers([SHAPE], ["fp32"], repeats=1, norms=["none", "group"])
    native, *_ = (row for row in rows if row.way == "native")
    none, group = (row.saved_mb * 2**20 for row in rows if row.way == "compiled")
    places, peaks, statistics = 2 * 8 * 2 * 2, 4 * 2 * 8 * 2 * 2, 2 * 4 * 2 * 8
    assert none == places
    assert group == 4 * 2 * 8 * 4 * 4 + places + peaks + statistics  # the features before them
    full = 2 * 8 * 4 * 4 * 4  # the rectified maps, 4 bytes each; torch keeps them once
    places = 2 * 8 * 2 * 2 * 8  # where the maxima lay, 8 bytes each
    assert native.saved_mb * 2**20 == full + places


def test_a_spread_is_a_median_with_its_tenths():
    assert Spread.of([1.0]) == Spread(1.0, 1.0, 1.0)
    assert Spread.of([float(n) for n in range(11)]) == Spread(5.0, 1.0, 9.0)


def test_rounds_interleave_and_warm_up_is_not_counted():
    calls = []
    cases = [Case(lambda name=name: calls.append(name)) for name in "ab"]
    seconds = interleaved(cases, 3)
    assert calls == ["a", "b"] * 5
    assert [len(times) for times in seconds] == [3, 3]


def test_a_training_step_is_slower_than_its_limit():
    (row,) = bench_train([TrainConfig(norm="group", batch_size=64)], repeats=5)
    assert row.arm == "group-g8"
    assert 0.2 < row.share < 1.3  # 0.8 here; other tests run beside this one
    assert row.limit > 0


def test_layers_as_a_user_types_it(tmp_path, capsys):
    plot = tmp_path / "layers.html"
    args = ["layers", "--shape", "2,8,4,4", "--norm", "group", "--groups", "2", "--repeats", "1"]
    assert gnbench(["bench", *args, "--precision", "fp32", "--json", "--plot", str(plot)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["way"] for row in rows] == ["native", "compiled"]
    assert rows[0]["shape"] == list(SHAPE)
    assert "group compiled fp32 2x8x4x4" in plot.read_text()
    assert gnbench(["bench", *args]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["norm", "way", "precision"]
    assert len(lines) == 2 + 3 + 1
    assert lines[-1].startswith("on 1 thread of ")


def test_train_as_a_user_types_it(capsys):
    settings = ["--norm", "none", "--batch-size", "2", "--repeats", "1", "--threads", "1"]
    assert gnbench(["bench", "train", *settings]) == 0
    header, *rows, on = capsys.readouterr().out.splitlines()
    assert on.startswith("on 1 thread")
    assert header.split()[:4] == ["arm", "precision", "batch", "images/s"]
    assert [row.split()[:3] for row in rows] == [["none", "fp32", "2"], ["none", "bf16", "2"]]
    settings += ["--norm", "group", "--precision", "fp32", "--groups", "2", "--groups", "4"]
    assert gnbench(["bench", "train", *settings]) == 0
    _, *rows, _ = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["none", "group-g2", "group-g4"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["layers", "--shape", "64,32"], "error: shape='64,32' is not batch,channels,"),
        (["layers", "--shape", "2,8,1,4"], "error: shape=(2, 8, 1, 4) cannot be pooled"),
        (["layers", "--norm", "grup"], "error: norm='grup' is unknown; did you mean 'group'?"),
        (["layers", "--shape", "2,8,4,4", "--groups", "3"], "error: num_groups=3 does not divide"),
        (["train", "--precision", "fp8"], "error: precision='fp8' is unknown"),
        (["train", "--plot", "nowhere/plot.html"], "error: plot='nowhere/plot.html' must be"),
        (["train", "--batch-size", "0"], "error: batch_size=0 is too small"),
    ],
)
def test_bad_input_is_one_line(args, message, capsys):
    assert gnbench(["bench", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1

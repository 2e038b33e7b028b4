"""`gnbench model`: what a network's norm layers meet, told before anything is trained."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from groupnorm_bench.cli.app import run

OWN = """
from torch import nn

def make(in_channels, num_classes):
    shared = nn.BatchNorm2d(24)
    return nn.Sequential(
        nn.Conv2d(in_channels, 24, 3, stride=4), shared, nn.ReLU(), shared,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, num_classes),
    )

def long(in_channels, num_classes):
    net = nn.Sequential()
    net.add_module("features_of_the_first_block_of_all", make(in_channels, 24))
    net.append(nn.Linear(24, num_classes))
    return net
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "net_of_test_model.py").write_text(OWN)
    yield "net_of_test_model:make"
    sys.modules.pop("net_of_test_model", None)


def test_each_layer_is_told_within_80_columns_and_the_next_step_works(own, capsys):
    assert run(["model", own, "--norm", "batch", "--norm", "group", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80, "all but a command, which is as long as its names"
    assert lines[:2] == [own, "images 1x28x28, 10 classes, batch size 64, 1 norm layer"]
    rows = [line.split() for line in lines if line.startswith(" 1 ")]
    assert rows[0] == ["1", "24", "7x7", "-", "-", "2", "kept"]
    assert rows[1] == ["1", "24", "7x7", "24", "49", "2", "scale+shift"]
    sizes = [x.split() for x in lines if x.startswith(("batch ", "group-gauto "))]
    assert [words[:4] for words in sizes] == [
        [arm, "538", "0.0", "million"] for arm in ("batch", "group-gauto")
    ]
    assert all(float(words[4]) > 0 for words in sizes)
    command = lines[-1].removeprefix("train it: gnbench ")
    assert command == f"train --model {own} --norm group --groups auto"
    tiny = "--dataset mnist-5k --max-steps 2 --train-limit 128 --wandb disabled -q"
    assert run([*shlex.split(command), *tiny.split()]) == 0


def test_the_same_is_one_json_document(capsys):
    asked = ["--norm", "group", "--groups", "4", "--repeats", "0", "--json"]
    assert run(["model", "resnet20", *asked]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["image_shape"]) == ("resnet20", [1, 28, 28])
    (arm,) = document["arms"]
    assert (arm["arm"], arm["num_groups"], arm["step_ms"]) == ("group-g4", 4, None)
    assert len(arm["sites"]) == 19
    first, last = arm["sites"][0], arm["sites"][-1]
    assert (first["name"], first["channels"], first["elements"]) == ("norm", 16, 4 * 28 * 28)
    assert (last["name"], last["map"], last["elements"]) == ("stage3.2.norm2", [7, 7], 16 * 49)
    assert {site["calls"] for site in arm["sites"]} == {1}


def test_what_an_arm_without_norm_loses_is_told_per_layer(own, capsys):
    assert run(["model", own, "--norm", "none", "--repeats", "0"]) == 0
    assert " 2 nothing\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("resnet21", "model='resnet21' is unknown; did you mean 'resnet20'?"),
        ("resnet20 --norm frn", "in resnet20 an addition stands between norm layer"),
        ("resnet20 --norm grup", "did you mean 'group'?"),
        ("resnet20 --groups 3", "num_groups=3 does not divide resnet20's 16, 32 and 64 channels"),
        ("resnet20 --groups 2 --group-size 2", "exclude each other"),
        ("OWN --norm group --groups 5", "num_groups=5 does not divide the 24 channels of norm l"),
        ("OWN --norm frn", "norm layer '1' (BatchNorm2d) has no activation in it"),
        ("OWN --dataset mnits", "did you mean 'mnist'?"),
        ("OWN --batch-size few", "batch_size='few' is not a whole number"),
        ("OWN --norm batch --batch-size 1", "no batch to take statistics over"),
        ("torchvision:vit_b_16", "VisionTransformer has no BatchNorm or GroupNorm to exchange"),
    ],
)
def test_what_does_not_fit_is_one_line(own, typed, says, capsys, tmp_path):
    before = sorted(tmp_path.glob("*.*"))
    assert run(["model", *typed.replace("OWN", own).split(), "--repeats", "0"]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert (out, err.count("\n")) == ("", 1)
    assert sorted(tmp_path.glob("*.*")) == before


SIZE, NONE, ONE = "images of another size", "has no BatchNorm or GroupNorm", "by itself"
ZOO = {
    "torchvision:resnet18": 20,
    "torchvision:mobilenet_v2": 52,
    "torchvision:mobilenet_v3_small": 34,
    "torchvision:efficientnet_b0": 49,
    "torchvision:shufflenet_v2_x0_5": 56,
    "torchvision:mnasnet0_5": 52,
    "torchvision:regnet_y_400mf": 53,
    "torchvision:googlenet": ONE,
    "torchvision:densenet121": SIZE,
    "torchvision:inception_v3": SIZE,
    "torchvision:alexnet": NONE,
    "torchvision:convnext_tiny": f"{NONE} to exchange; LayerNorm, LayerNorm2d in it is left alone",
    "torchvision:swin_t": f"{NONE} to exchange; LayerNorm in it",
    "timm:resnetv2_50": 49,
    "timm:efficientnet_b0": 49,
    "timm:ghostnet_050": 80,
    "timm:regnety_002": 44,
    "timm:darknet53": 52,
    "timm:res2net50_26w_4s": 85,
    "timm:cspresnet50": 55,
    "timm:repvgg_a0": 61,
    "timm:mobilevit_xxs": 32,
    "timm:xception41": 84,
    "timm:hrnet_w18_small": SIZE,
    "timm:rexnet_100": ONE,
    "timm:vit_tiny_patch16_224": NONE,
    "timm:nf_resnet50": NONE,
}
"""Norm layers of classifiers of different families on images of 28x28, or why they are refused."""


@pytest.mark.slow
@pytest.mark.parametrize("model", ZOO)
def test_classifiers_of_torchvision_and_timm_pass_or_are_refused_with_the_right_line(model, capsys):
    expected = ZOO[model]
    arms = ["--norm", "group", "--groups", "auto", "--repeats", "0"]
    code = run(["model", model, *arms])
    out, err = capsys.readouterr()
    if isinstance(expected, int):
        assert (code, err) == (0, "")
        assert out.count("scale+shift") == expected
    else:
        assert (code, out) == (2, "")
        assert err.startswith(f"error: model='{model}': ")
        assert expected in err
        assert err.count("\n") == 1


def test_long_names_and_all_that_is_carried_stay_within_80_columns(own, capsys):
    asked = ["--norm", "batch-renorm", "--norm", "ghost-batch", "--repeats", "0"]
    assert run(["model", own.replace("make", "long"), *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("..." in line and line.endswith("scale+shift+stats") for line in lines)
    assert max(map(len, lines)) <= 80

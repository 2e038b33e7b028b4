"""What is measured between epochs: by the run's own way, in its own precision, leaving no trace."""

import dataclasses
from pathlib import Path

import pytest
import torch

from groupnorm_bench import TrainConfig, build_model
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.models import MODELS
from groupnorm_bench.training.build import build_network
from groupnorm_bench.training.scoring import activations, eval_gap, evaluate
from groupnorm_bench.training.way import choose_way

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_dataset("mnist-5k", Path("unused"))
    val = Split(data.val.images[:120], data.val.labels[:120])
    return dataclasses.replace(data, val=val)


def way_of(images: int = 0, **settings: object):
    config = TrainConfig.from_mapping({"dataset": "mnist-5k", "batch_size": 16} | settings)
    return choose_way(build_model(config), config, CPU, images)


@pytest.mark.parametrize("model", MODELS)
def test_activations_are_measured_at_the_norms_output(model, digits):
    config = TrainConfig(model=model, norm="layer")
    network = build_network(config)
    way = choose_way(network.model, config, CPU, 0)
    row = activations(way, network.norm_layers, digits)
    assert len(row) == 2 * len(MODELS[model].norm_channels)
    for layer in MODELS[model].norm_channels:
        assert row[f"norm/{layer}/activation_mean"] == pytest.approx(0, abs=1e-3)
        assert row[f"norm/{layer}/activation_std"] == pytest.approx(1, abs=1e-2)
    assert not any(module._forward_hooks for module in way.model.modules())


@pytest.mark.parametrize("compile", ["on", "off"])
def test_evaluation_counts_every_image_once_whatever_the_batches(digits, compile):
    way = way_of(compile=compile)
    part = Split(digits.test.images[:333], digits.test.labels[:333])
    loss, logits = evaluate(way, digits, part)
    with torch.no_grad():
        whole = way.model(digits.normalize(part.images))
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
    assert loss == pytest.approx(
        torch.nn.functional.cross_entropy(whole, part.labels).item(), rel=1e-5
    )


@pytest.mark.parametrize("compile", ["on", "off"])
@pytest.mark.parametrize(("precision", "expected"), [("fp32", 1.0), ("bf16", 0.0)])
def test_the_eval_gap_is_measured_in_the_runs_precision_and_leaves_no_trace(
    compile, precision, expected, digits
):
    way = way_of(norm="batch", compile=compile, precision=precision)
    with torch.no_grad():  # class 1 beats class 0 by less than bf16 can tell, unless all is 0
        way.model.norm2.running_mean.fill_(1e6)  # as with these running statistics
        way.model.linear.weight.fill_(-1)
        way.model.linear.weight[0] = 1
        way.model.linear.weight[1] = 1 + 2**-12
        way.model.linear.bias.zero_()
    ones = torch.ones_like(digits.val.labels)
    data = dataclasses.replace(digits, val=Split(digits.val.images, ones))
    before = {name: value.clone() for name, value in way.model.state_dict().items()}
    _, logits = evaluate(way, data, data.val)
    assert eval_gap(way, data, 16, logits) == expected
    torch.testing.assert_close(dict(way.model.state_dict()), before, atol=0, rtol=0)


def test_both_accuracies_of_the_eval_gap_are_of_the_same_images(digits):
    """Of 120 images the last 8 fill no batch of 16, and count in neither."""
    way = way_of(norm="batch")
    right = torch.nn.functional.one_hot(digits.val.labels, 10)
    wrong = right.roll(1, dims=1)
    gap = eval_gap(way, digits, 16, torch.cat([wrong[:112], right[112:]]))
    assert gap > 0
    assert eval_gap(way, digits, 16, torch.cat([wrong[:112], wrong[112:]])) == gap
    half = eval_gap(way, digits, 16, torch.cat([right[:56], wrong[56:]]))
    assert gap - half == pytest.approx(0.5)
    whole = [eval_gap(way, digits, 512, logits) for logits in (wrong, right)]  # one batch of all
    assert whole[0] - whole[1] == pytest.approx(1)

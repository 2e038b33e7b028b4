"""Optimizers: what decays, and that ours are torch's without torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groupnorm_bench.norms import NORMS
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_model
from groupnorm_bench.training.optimizers import SGD_MOMENTUM, decayed_parameters, make_optimizer

TORCHS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda groups, **settings: torch.optim.SGD(groups, momentum=SGD_MOMENTUM, **settings),
}


def test_weight_decay_spares_scales_shifts_and_biases_unless_asked():
    for norm, spec in NORMS.items():
        model = build_model(TrainConfig(norm=norm))
        decayed, spared = decayed_parameters(model)
        assert {id(p) for p in decayed} == {
            id(m.weight) for m in (model.conv1, model.conv2, model.linear)
        }
        assert len(spared) == 3 + (2 * spec.parameters_per_channel)
    settings = {"weight_decay": 0.1}
    groups = make_optimizer(TrainConfig(**settings), model).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    groups = make_optimizer(TrainConfig(**settings, weight_decay_all=True), model).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1]
    groups = make_optimizer(TrainConfig(), model).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0]
    assert len(groups[0]["params"]) == len(list(model.parameters()))


def test_a_network_of_scales_alone_trains_though_nothing_decays():
    model = nn.BatchNorm2d(1)
    optimizer = make_optimizer(TrainConfig(weight_decay=0.1), model)
    model(torch.rand(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    assert model.bias.item() != 0


@pytest.mark.parametrize("name", TORCHS)
def test_ours_take_torchs_steps_bit_for_bit_and_their_states_are_exchanged(name):
    config = TrainConfig(optimizer=name, lr=0.01, weight_decay=0.1)
    model, twin = build_model(config), build_model(config)
    ours = make_optimizer(config, model)
    weights, rest = decayed_parameters(twin)
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    theirs = TORCHS[name](groups, lr=0.01, fused=True)
    images = torch.linspace(-1, 1, 4 * 28 * 28).view(4, 1, 28, 28)
    for step in range(4):
        for network, optimizer in ((model, ours), (twin, theirs)):
            optimizer.zero_grad()
            F.cross_entropy(network(images), torch.arange(4)).backward()
            optimizer.step()
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(parameter, other)
        if step == 1:  # as a checkpoint does, both ways
            state = ours.state_dict()
            ours.load_state_dict(theirs.state_dict())
            theirs.load_state_dict(state)
    type(ours)(model.parameters(), lr=0.01, fused=False).step()  # not fused, as on mps: in no graph


@pytest.mark.parametrize("name", TORCHS)
def test_parameters_take_part_when_they_have_a_gradient(name):
    """Of networks of one's own some layers may be unused in some steps, the first one for one."""
    config = TrainConfig(optimizer=name, lr=0.01)
    layers = [nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)]) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    ours = make_optimizer(config, layers[0])
    fused = name != "sgd"  # torch's SGD in one kernel fails where a first gradient comes late
    theirs = TORCHS[name](layers[1].parameters(), lr=0.01, weight_decay=0, fused=fused)
    for used in ([0], [0, 1], [0, 1], [1], [0, 1], [0]):
        for optimizer, both in ((ours, layers[0]), (theirs, layers[1])):
            optimizer.zero_grad()
            sum(both[i](torch.ones(4, 3)).square().sum() for i in used).backward()
            optimizer.step()
        for parameter, other in zip(*(both.parameters() for both in layers), strict=True):
            torch.testing.assert_close(parameter, other, rtol=0, atol=0 if fused else 1e-6)


@pytest.mark.slow
def test_training_never_loads_torchs_compiler(tmp_path):
    code = (
        "import sys; from groupnorm_bench.cli.app import run; "
        "code = run('train --max-steps 1 --train-limit 64 --dataset mnist-5k --schedule cosine"
        " --wandb disabled --quiet'.split()); "
        "assert code == 0; assert 'torch' in sys.modules; "
        "assert not {'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)

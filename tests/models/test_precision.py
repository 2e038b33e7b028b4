"""Rounding to bf16 where the processor does not."""

import pytest
import torch
from torch import nn

from groupnorm_bench.models import precision
from groupnorm_bench.models.precision import RoundToBf16, forward_context

CPU = torch.device("cpu")


def test_rounding_to_bf16_is_autocast_in_effect():
    torch.manual_seed(0)
    layer = nn.Linear(64, 16)
    inputs = torch.randn(8, 64, requires_grad=True)
    results = []
    for context in (RoundToBf16(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            output = layer(inputs)
        grads = torch.autograd.grad(output.float().square().sum(), [inputs, layer.weight])
        results.append([output.float(), *grads])
    plain = layer(inputs)
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2**-7, atol=2**-6)
    assert torch.equal(results[0][0], results[0][0].bfloat16().float())
    assert not torch.equal(results[0][0], plain)


@pytest.mark.parametrize("has_instructions", [True, False])
def test_a_cpu_without_instructions_rounds(has_instructions, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: has_instructions)
    assert isinstance(forward_context("bf16", CPU), RoundToBf16) is not has_instructions
    assert not isinstance(forward_context("fp32", CPU), RoundToBf16 | torch.autocast)

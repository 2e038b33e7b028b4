"""Every norm against its formula, limits and invariances, in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from groupnorm_bench import NORMS, TrainConfig, build_model, make_norm
from groupnorm_bench.errors import ConfigError

GROUPS = 8
CHANNELS = 16
BATCH_FREE = sorted(name for name, spec in NORMS.items() if not spec.uses_batch_statistics)
WITH_RUNNING = sorted(name for name, spec in NORMS.items() if spec.has_running_statistics)
ZERO_MEAN = ["batch", "group", "layer", "instance", "group-ws", "batch-renorm", "ghost-batch"]


@pytest.fixture
def features() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(4, CHANNELS, 7, 5, dtype=torch.float64, generator=generator)


def norm_of(name: str, num_groups: int = GROUPS) -> torch.nn.Module:
    return make_norm(name, CHANNELS, num_groups).double().train()


def test_group_norm_is_the_paper_formula(features):
    blocks = features.reshape(4, GROUPS, 2 * 7 * 5)
    mean, var = blocks.mean(-1, keepdim=True), blocks.var(-1, keepdim=True, unbiased=False)
    expected = ((blocks - mean) / (var + 1e-5).sqrt()).reshape_as(features)
    torch.testing.assert_close(norm_of("group")(features), expected)


def test_group_norm_with_one_group_is_layer_norm(features):
    expected = F.layer_norm(features, features.shape[1:])
    torch.testing.assert_close(norm_of("group", 1)(features), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(norm_of("layer")(features), expected, atol=1e-12, rtol=0)


def test_group_norm_with_a_group_per_channel_is_instance_norm(features):
    expected = F.instance_norm(features)
    torch.testing.assert_close(norm_of("group", CHANNELS)(features), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(norm_of("instance")(features), expected, atol=1e-12, rtol=0)


def test_batch_norm_of_one_image_is_instance_norm(features):
    torch.testing.assert_close(norm_of("batch")(features[:1]), F.instance_norm(features[:1]))


@pytest.mark.parametrize("name", ZERO_MEAN)
def test_a_normed_block_has_mean_0_and_biased_variance_1(name, features):
    normed = norm_of(name)(features * 3 + 2)
    if NORMS[name].uses_batch_statistics:
        mean, var = normed.mean((0, 2, 3)), normed.var((0, 2, 3), unbiased=False)
    else:
        groups = {"layer": 1, "instance": CHANNELS}.get(name, GROUPS)
        blocks = normed.reshape(4, groups, -1)
        mean, var = blocks.mean(-1), blocks.var(-1, unbiased=False)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-12, rtol=0)
    torch.testing.assert_close(var, torch.ones_like(var), atol=1e-4, rtol=0)


def test_rms_group_norm_has_mean_square_1_and_keeps_the_sign_of_the_mean(features):
    normed = norm_of("rms-group")(features + 2)
    blocks = normed.reshape(4, GROUPS, -1)
    torch.testing.assert_close(
        blocks.square().mean(-1), torch.ones(4, GROUPS).double(), atol=1e-4, rtol=0
    )
    assert (blocks.mean(-1) > 0.5).all()


@pytest.mark.parametrize(
    "name", ["group", "layer", "instance", "batch", "rms-group", "group-ws", "ghost-batch"]
)
def test_scaling_the_input_changes_nothing(name, features):
    norm = norm_of(name)
    norm.eps = 1e-14  # torch's batch norm refuses 0
    torch.testing.assert_close(norm(features * 1000), norm(features), atol=1e-11, rtol=0)


@pytest.mark.parametrize(
    ("name", "absorbed"),
    [("instance", True), ("batch", True), ("group", False), ("layer", False), ("rms-group", False)],
)
def test_a_constant_per_channel_is_absorbed_only_where_each_channel_is_centred(
    name, absorbed, features
):
    shift = torch.arange(CHANNELS, dtype=torch.float64)[:, None, None]
    norm = norm_of(name)
    change = (norm(features + shift) - norm(features)).abs().max().item()
    assert (change < 1e-6) is absorbed
    assert absorbed or change > 0.5


@pytest.mark.parametrize("name", NORMS)
def test_only_norms_said_to_use_batch_statistics_see_the_rest_of_the_batch(name, features):
    norm = norm_of(name)
    torch.manual_seed(0)
    alone, among = norm(features[:2])[:1], norm(features)[:1]
    assert torch.allclose(alone, among, atol=1e-9) is not NORMS[name].uses_batch_statistics


@pytest.mark.parametrize("name", NORMS)
def test_only_norms_said_to_have_running_statistics_have_buffers_that_move(name, features):
    norm = norm_of(name)
    before = {key: value.clone() for key, value in norm.named_buffers()}
    norm(features * 3 + 1)
    moved = any(not torch.equal(before[key], value) for key, value in norm.named_buffers())
    assert moved is NORMS[name].has_running_statistics


@pytest.mark.parametrize("name", BATCH_FREE)
def test_a_batch_free_norm_computes_the_same_in_train_and_eval_mode(name, features):
    norm = norm_of(name)
    torch.testing.assert_close(norm.train()(features), norm.eval()(features))


@pytest.mark.parametrize("name", WITH_RUNNING)
def test_evaluation_uses_the_running_statistics(name, features):
    norm = norm_of(name)
    for _ in range(200):
        norm(features)
    evaluated = norm.eval()(features)
    mean = features.mean((0, 2, 3), keepdim=True)
    var = features.var((0, 2, 3), keepdim=True, unbiased=True)
    torch.testing.assert_close(
        evaluated, (features - mean) / (var + norm.eps).sqrt(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("name", NORMS)
def test_gradients_are_those_of_the_function(name):
    if name == "none":
        pytest.skip("the identity has no gradient of its own to check")
    torch.manual_seed(3)
    norm = make_norm(name, 4, 2).double()
    norm.train(not NORMS[name].has_running_statistics)
    for parameter in norm.parameters():
        parameter.data.add_(torch.rand_like(parameter) * 0.1)
    features = torch.randn(3, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    in_float32 = name in ("frn", "evonorm-s0")  # timm takes their statistics in float32
    step, tolerance = (1e-3, 3e-3) if in_float32 else (1e-6, 1e-5)
    assert torch.autograd.gradcheck(norm, (features,), eps=step, atol=tolerance)


@pytest.mark.parametrize("name", ["batch", "ghost-batch"])
def test_gradients_flow_through_batch_statistics(name):
    torch.manual_seed(3)
    norm = make_norm(name, 4, 2).double().train()
    features = torch.randn(3, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (features,), eps=1e-6, atol=1e-5)


def test_batch_renorm_starts_as_batch_norm_and_is_then_corrected(features):
    renorm, batch = norm_of("batch-renorm"), norm_of("batch")
    torch.testing.assert_close(renorm(features), batch(features))
    renorm.num_batches_tracked.fill_(renorm.warmup_steps)
    assert not torch.allclose(renorm(features), batch(features), atol=1e-2)


def test_batch_renorm_with_its_bounds_off_normalises_by_the_running_statistics(features):
    renorm = norm_of("batch-renorm")
    renorm.r_max, renorm.d_max = 1e6, 1e6
    renorm.num_batches_tracked.fill_(renorm.warmup_steps)
    renorm.running_mean.fill_(0.5)
    renorm.running_var.fill_(4.0)
    expected = (features - 0.5) / (4.0 + renorm.eps) ** 0.5
    torch.testing.assert_close(renorm(features), expected, atol=1e-4, rtol=0)


def test_ghost_batch_norm_is_batch_norm_of_each_ghost(features):
    ghost, batch = (
        make_norm("ghost-batch", CHANNELS, ghost_size=2).double().train(),
        norm_of("batch"),
    )
    expected = torch.cat([batch(features[:2]), batch(features[2:])])
    torch.testing.assert_close(ghost(features), expected)
    torch.testing.assert_close(ghost.running_mean, batch.running_mean)


def test_a_run_of_ghost_batch_norm_has_the_ghosts_that_its_setting_says():
    config = TrainConfig(norm="ghost-batch", ghost_size=4, model="resnet20")
    sizes = {m.ghost_size for m in build_model(config).modules() if hasattr(m, "ghost_size")}
    assert sizes == {4}
    with pytest.raises(ConfigError, match=r"ghost_size=1 is no batch.*set ghost_size to 2"):
        make_norm("ghost-batch", 8, ghost_size=1)


def test_weight_standardisation_gives_every_filter_mean_0_and_variance_1():
    conv = build_model(TrainConfig(norm="group-ws")).conv1
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 14, 14] = 1  # the response to an impulse is the filter, mirrored
    response = conv(image)[0, :, 12:17, 12:17] - conv.bias[:, None, None]
    torch.testing.assert_close(response.mean((1, 2)), torch.zeros(32), atol=1e-5, rtol=0)
    variance = response.var((1, 2), unbiased=False)
    torch.testing.assert_close(variance, torch.ones(32), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", NORMS)
def test_the_cnn_has_the_parameters_that_its_norm_is_said_to_add(name):
    count = sum(p.numel() for p in build_model(TrainConfig(norm=name)).parameters())
    assert count == 83_466 + 96 * NORMS[name].parameters_per_channel


def test_batch_norm_adds_194_buffer_numbers():
    assert sum(b.numel() for b in build_model(TrainConfig(norm="batch")).buffers()) == 194


@pytest.mark.parametrize("name", NORMS)
def test_the_same_seed_gives_bit_equal_weights_under_every_norm(name):
    reference = build_model(TrainConfig(norm="none", seed=7)).state_dict()
    state = build_model(TrainConfig(norm=name, seed=7)).state_dict()
    assert all(torch.equal(state[key], value) for key, value in reference.items())
    other = build_model(TrainConfig(norm=name, seed=8)).state_dict()
    assert not torch.equal(state["conv1.weight"], other["conv1.weight"])


def test_building_a_model_leaves_torchs_own_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_model(TrainConfig(seed=9))
    assert torch.equal(torch.rand(3), expected)


def test_group_size_fixes_channels_per_group_in_every_layer():
    model = build_model(TrainConfig(group_size=4))
    assert (model.norm1.num_groups, model.norm2.num_groups) == (8, 16)


def test_groups_that_do_not_divide_are_refused_with_the_valid_ones():
    with pytest.raises(ConfigError, match=r"num_groups=3 does not divide .* one of \[1, 2, 4"):
        make_norm("group", 16, 3)


def test_a_norm_without_its_package_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"norm='frn' needs the package timm; pip install"):
        make_norm("frn", 16)
    assert isinstance(make_norm("group", 16), torch.nn.GroupNorm)

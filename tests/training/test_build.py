"""Networks made elsewhere: built with one seed's weights in every arm, or refused in one line."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.errors import ConfigError, TrainingStopped
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_network, check_model
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import Training, train

HEAD = "import random\nimport sys\nimport numpy as np\nimport torch\nfrom torch import nn\n"
SWAPPED = """
def make(in_channels, num_classes):
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, stride=4), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, num_classes),
    )
"""
GIVEN = """
def make(norm_layer, in_channels, num_classes):
    return nn.Sequential(
        norm_layer.conv(in_channels, 16, 3, stride=4), norm_layer(16), norm_layer.activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""
_numbers = itertools.count()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function from code to the name of a model that it makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(code: str) -> str:
        module = f"my_net_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(HEAD + code)
        return f"{module}:make"

    return write


def test_a_function_of_two_gets_its_norms_exchanged(own):
    network = build_network(TrainConfig(model=own(SWAPPED), norm="group", num_groups=4))
    assert [site.name for site in network.sites] == ["1", "5"]
    assert all(isinstance(layer, nn.GroupNorm) for layer in network.norm_layers.values())
    assert network.notes[0].endswith(": 2 norm layers exchanged for group-g4")


def test_a_function_of_three_builds_with_the_arms_norm(own):
    network = build_network(TrainConfig(model=own(GIVEN), norm="group", group_size=4))
    (site,) = network.sites
    assert (site.name, site.num_channels, site.became, site.kept) == ("1", 16, "GroupNorm", False)
    assert network.norm_layers["1"].num_groups == 4
    assert network.notes == ()


def test_norms_that_change_what_is_around_them_take_the_place_of_what_norm_layer_gives(own):
    name = own(GIVEN)
    assert not any(isinstance(m, nn.ReLU) for m in network_of(name, "frn").modules())
    assert type(network_of(name, "group-ws")[0]).__name__ == "StdConv2d"


def network_of(model: str, norm: str) -> nn.Module:
    return build_network(TrainConfig(model=model, norm=norm)).model


@pytest.mark.parametrize("code", [SWAPPED, GIVEN])
def test_one_seed_gives_all_arms_the_same_other_weights(own, code):
    name = own(code)
    plain = network_of(name, "none").state_dict()
    for norm in ("batch", "group", "instance", "rms-group", "batch-renorm"):
        state = network_of(name, norm).state_dict()
        assert all(torch.equal(state[key], value) for key, value in plain.items()), norm
    other = build_network(TrainConfig(model=name, norm="none", seed=1)).model.state_dict()
    assert not torch.equal(other["0.weight"], plain["0.weight"])


def test_weights_drawn_by_other_generators_are_of_the_seed_too(own):
    draw = """
def make(in_channels, num_classes):
    net = nn.Sequential(nn.Conv2d(in_channels, 8, 28), nn.BatchNorm2d(8), nn.Flatten(),
                        nn.Linear(8, num_classes))
    with torch.no_grad():
        net[0].weight.fill_(random.random())
        net[3].weight.fill_(np.random.rand())
    return net
"""
    name = own(draw)
    one = network_of(name, "batch")
    random.random(), np.random.rand()  # whatever the process draws in between
    two = network_of(name, "none")
    assert torch.equal(one[0].weight, two[0].weight)
    assert torch.equal(one[3].weight, two[3].weight)


@pytest.mark.parametrize("model", ["resnet20", "torchvision:resnet18"])
def test_torchs_group_norm_on_a_cpu_never_meets_channels_last(model):
    network = build_network(TrainConfig(model=model, num_groups=8))
    seen = []
    for layer in network.norm_layers.values():
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    network.model(torch.zeros(2, 1, 28, 28))
    assert len(seen) >= 19
    assert all(seen)


def test_a_layout_of_the_users_own_is_kept(own):
    last = SWAPPED.replace("num_classes),\n    )", "num_classes),\n    ).to(memory_format=LAST)")
    name = own("LAST = torch.channels_last\n" + last)
    weight = build_network(TrainConfig(model=name, norm="batch")).model[4].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_auto_is_the_largest_divisor_up_to_32_of_each_layer(own):
    network = build_network(TrainConfig(model=own(SWAPPED), num_groups="auto"))
    assert [layer.num_groups for layer in network.norm_layers.values()] == [16, 24]
    assert TrainConfig(num_groups="auto").num_groups_for(72) == 24
    assert TrainConfig(num_groups="auto").num_groups_for(256) == 32
    assert TrainConfig(num_groups="auto").num_groups_for(7) == 7


def test_torchvisions_first_convolution_is_made_for_one_channel():
    one = build_network(TrainConfig(model="torchvision:resnet18", norm="none", seed=5))
    assert one.model.conv1.weight.shape == (64, 1, 7, 7)
    assert one.model.conv1.in_channels == 1
    assert one.notes[1] == "torchvision:resnet18: its first convolution is made for one channel"
    assert one.model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_model_is_surveyed_without_a_weight_being_drawn():
    before = torch.get_rng_state()
    found = check_model(TrainConfig(model="torchvision:resnet18", num_groups="auto"))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(found.uses) == 20
    assert found.output_shape == (10,)


def test_what_does_not_work_on_the_meta_device_is_built_on_the_cpu(own):
    code = SWAPPED.replace("    return", "    print(float(torch.zeros(1)))\n    return")
    assert len(check_model(TrainConfig(model=own(code), norm="batch")).uses) == 2


def test_dropout_is_the_same_in_a_run_that_was_stopped_and_continued(own):
    config = TrainConfig(
        model=own(SWAPPED), norm="batch", dataset="mnist-5k", train_limit=160, batch_size=16,
        max_steps=15, device="cpu", compile="off",
    )  # fmt: skip
    whole = train(config)
    torch.manual_seed(99)  # whatever the process drew before
    saved: list[dict] = []
    steps: list[int] = []
    hooks = Hooks(
        on_step=lambda step, loss, accuracy: steps.append(step),
        should_stop=lambda: steps[-1] == 12,
        save=lambda state, history: saved.append(state),
    )
    with pytest.raises(TrainingStopped, match="step 12 of 15"):
        train(config, hooks=hooks)
    again = train(config, checkpoint=saved[-1])
    assert again.history[-1]["train/loss"] == whole.history[-1]["train/loss"]
    assert whole.history[-1]["norm/eval_gap"] == again.history[-1]["norm/eval_gap"]
    assert {"norm/1/activation_mean", "norm/5/activation_std"} <= whole.history[-1].keys()


def test_what_a_network_draws_while_it_is_scored_is_of_the_seed(own):
    config = TrainConfig(model=own(SWAPPED), dataset="mnist-5k", device="cpu")
    training = Training(config, load_dataset("mnist-5k", Path("unused")), torch.device("cpu"))
    drawn = []
    for process in (1, 2):
        torch.manual_seed(process)
        before = torch.get_rng_state()
        with training._noise():
            drawn.append(torch.rand(3))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)


def test_a_sequence_with_a_shared_layer_is_computed_as_it_is(own):
    """Loops take a sequence apart: a ReLU that stands in two places is applied in both."""
    shared = """
def make(norm_layer, in_channels, num_classes):
    relu = nn.ReLU()
    return nn.Sequential(
        norm_layer.conv(in_channels, 8, 5, padding=2), norm_layer(8), relu, nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 14), relu, nn.Flatten(), nn.Linear(8, num_classes),
    )
"""
    from groupnorm_bench.training.way import choose_way

    config = TrainConfig(model=own(shared), compile="on")
    network = build_network(config)
    way = choose_way(network.model, config, torch.device("cpu"), 10**9)
    assert way.name != "torch"
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(way.forward(images), network.model(images))


BODY = "nn.Conv2d(in_channels, 8, 28), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, num_classes)"
REFUSED = {
    "raises": ("def make(a, b): raise OSError('no\\nluck')", {}, "cannot be built: OSError: no lu"),
    "exits": ("def make(a, b): sys.exit(3)", {}, "cannot be built: SystemExit: 3; it must be imp"),
    "no module": ("def make(a, b): return 3", {}, "returned int, not a torch.nn.Module; it must"),
    "one argument": ("def make(a): return a", {}, "cannot be built: TypeError: make() takes 1 pos"),
    "not there": ("", {}, "cannot be built: AttributeError: module"),
    "ignores classes": (
        f"def make(in_channels, num_classes): num_classes = 7; return nn.Sequential({BODY})",
        {"norm": "batch"},
        "returns 7 logits an image, and these have 10 classes; let it heed num_classes",
    ),
    "no norm": (
        "def make(a, b): return nn.Sequential(nn.Flatten(), nn.Linear(784, b))",
        {},
        "Sequential has no BatchNorm or GroupNorm to exchange",
    ),
    "no norm, but another": (
        "def make(a, b): return nn.Sequential(nn.Flatten(), nn.LayerNorm(784), nn.Linear(784, b))",
        {},
        "has no BatchNorm or GroupNorm to exchange; LayerNorm in it is left alone",
    ),
    "norm left out": (
        "def make(n, a, b): n(8); return nn.Sequential(nn.Flatten(), nn.Linear(784, b))",
        {},
        "calls norm_layer and leaves out what it returns",
    ),
    "other size": (
        "def make(a, b): return nn.Sequential(nn.Conv2d(a, 8, 32), nn.BatchNorm2d(8))",
        {},
        "cannot take images shaped [1, 28, 28]: RuntimeError: Calculated padded input size",
    ),
    "maps, not logits": (
        "def make(a, b): return nn.Sequential(nn.Conv2d(a, 8, 3), nn.BatchNorm2d(8))",
        {},
        "Sequential returned [64, 8, 26, 26] for 64 images; a classifier returns one row",
    ),
    "groups": (SWAPPED, {"num_groups": 16}, "num_groups=16 does not divide the 24 channels of nor"),
    "groups, remedy": (SWAPPED, {"num_groups": 16}, "set num_groups to one of [1, 2, 4, 8], or n"),
    "group size": (SWAPPED, {"group_size": 16}, "group_size=16 does not divide the 24 channels of"),
    "groups in parts": (GIVEN, {"num_groups": 3}, "num_groups=3 does not divide num_channels=16; "),
    "size in parts": (GIVEN, {"group_size": 3}, "group_size=3 does not divide num_channels=16; se"),
    "channels that nothing divides": (
        SWAPPED.replace("24", "23"),
        {},
        "num_groups=8 does not divide the 23 channels of norm layer '5'; set num_groups to one of "
        "[1], or num_groups to auto",
    ),
    "one element": (
        f"def make(in_channels, num_classes): return nn.Sequential({BODY})",
        {},
        "norm layer '1' (GroupNorm, 8 channels in 8 groups, features 1x1) would normalise each",
    ),
    "activation apart": (
        SWAPPED,
        {"norm": "frn"},
        "norm layer '1' (BatchNorm2d) has no activation in it, and the arm's norm brings one",
    ),
    "activation of its own": (
        GIVEN.replace("norm_layer.activation()", "nn.ReLU()"),
        {"norm": "evonorm-s0"},
        "norm='evonorm-s0' changes the activation behind the norm too, and model=",
    ),
    "convolution of its own": (
        SWAPPED,
        {"norm": "group-ws"},
        "norm='group-ws' changes the convolution too, and model=",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_one_line(why, own):
    code, settings, says = REFUSED[why]
    name = own(code)
    with pytest.raises(ConfigError, match=re.escape(says)) as told:
        build_network(TrainConfig(model=name, dataset="mnist-5k", **settings))
    assert "\n" not in str(told.value)
    assert name in str(told.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("torchvision:resnet81", "did you mean 'torchvision:resnet18'?"),
        ("torchvision:fcn_resnet50", "is unknown; "),  # no classifier
        ("timm:resnet", "is unknown; did you mean 'timm:"),
        ("timm:zzzz", "timm.list_models() has their names"),
        ("torchvision:vit_b_16", "has no BatchNorm or GroupNorm to exchange; LayerNorm"),
        ("torchvision:densenet121", "it may be made for images of another size"),
    ],
)
def test_a_librarys_network_that_does_not_fit_is_one_line(name, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as told:
        build_network(TrainConfig(model=name, norm="batch"))
    assert "\n" not in str(told.value)


def test_the_default_training_loads_nothing_of_networks_made_elsewhere(tmp_path):
    typed = ["train", "--dataset", "mnist-5k", "--train-limit", "64", "--max-steps", "1", "-q"]
    code = (
        "import sys; from groupnorm_bench.cli.app import run; "
        f"assert run({[*typed, '--wandb', 'disabled', '--out', str(tmp_path)]!r}) == 0; "
        "print(sorted(m for m in sys.modules if m in {'timm', 'torchvision', "
        "'torch.utils.flop_counter', 'groupnorm_bench.models.sites', "
        "'groupnorm_bench.models.elsewhere', 'groupnorm_bench.models.resnet'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

"""Sweep files: what is read, and that every bad one is refused by file, line, name and remedy."""

from __future__ import annotations

import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from groupnorm_bench.errors import SweepError
from groupnorm_bench.sweep.file.spec import Hyperband, Metric, SweepSpec, read_spec
from groupnorm_bench.sweep.plan.plan import build_plan

GRID = "method: grid\nparameters:\n"
RANDOM = "method: random\nrun_cap: 5\nparameters:\n"
BAYES = "method: bayes\nrun_cap: 5\nmetric: {name: val/accuracy, goal: maximize}\nparameters:\n"
LR = "  lr: {values: [0.1]}\n"
METRIC = "metric: {name: val/accuracy, goal: maximize}\n"
STOP = "early_terminate: "


def read(tmp_path: Path, text: str) -> SweepSpec:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    spec = read_spec(path)
    build_plan(spec)
    return spec


BAD = [
    # the whole file
    ("", "s.yaml is empty; write one `key: value` a line"),
    ("- a\n- b\n", "s.yaml holds a list or one value, not settings"),
    ("method: [grid\n", "s.yaml:2 is not valid YAML"),
    ("method: grid\nmethod: random\n", "s.yaml:2 has the key 'method' twice; keep one"),
    (GRID + LR + LR, "s.yaml:4 has the key 'lr' twice; keep one"),
    ("method: !!python/object:os.system\n", "s.yaml:1 has a tag that is not plain YAML"),
    # top-level keys
    (GRID + LR + "seeds: 3\n", "s.yaml:4 unknown key 'seeds'; use one of method, metric"),
    (GRID + LR + "metrc: {}\n", "s.yaml:4 unknown key 'metrc'; did you mean 'metric'?"),
    (GRID + LR + "job: j\n", "s.yaml:4 'job' is not supported: it is for W&B Launch; leave it out"),
    (GRID + LR + "controller: {type: local}\n", "s.yaml:4 'controller' is not supported: gnbench"),
    (GRID + LR + "scheduler: {engine: ax}\n", "s.yaml:4 'scheduler' is not supported: gnbench"),
    (GRID + LR + "name: 3\n", "s.yaml:4 name=3 is not text; write a word"),
    (GRID + LR + "project:\n", "s.yaml:4 project=None is not text"),
    ("parameters:\n" + LR, "s.yaml has no `method`; write `method: grid`"),
    ("method: gird\nparameters:\n" + LR, "s.yaml:1 method='gird' is unknown; did you mean 'grid'?"),
    ("method: custom\nparameters:\n" + LR, "s.yaml:1 method='custom' is not supported"),
    ("method: 3\nparameters:\n" + LR, "s.yaml:1 method=3 is unknown; use one of grid, random"),
    ("method: grid\n", "s.yaml has no parameters; write them under `parameters:`"),
    ("method: grid\nparameters: {}\n", "s.yaml:2 has no parameters; write them"),
    ("method: grid\nparameters: [lr]\n", "s.yaml:2 has no parameters; write them"),
    (GRID + LR + "run_cap: 0\n", "s.yaml:4 run_cap=0 is not a number of runs; use 1 or more"),
    (GRID + LR + "run_cap: many\n", "s.yaml:4 run_cap='many' is not a number of runs"),
    (GRID + LR + "run_cap: true\n", "s.yaml:4 run_cap=True is not a number of runs"),
    (GRID + LR + "command: gnbench\n", "s.yaml:4 command='gnbench' is not a list of words"),
    (
        GRID + LR + "command: [gnbench, train, --epochs=3, '${args}']\n",
        "s.yaml:4 command has '--epochs=3', which only W&B's agents would see; write `epochs:",
    ),
    (
        GRID + LR + "command: [gnbench, train, '--epochs 1', '${args}']\n",
        "s.yaml:4 command has '--epochs', which only W&B's agents would see; write `epochs:",
    ),
    (
        GRID + LR + "command: [gnbench, train, --set, lr=3, '${args}']\n",
        "s.yaml:4 command has '--set', whose settings only W&B's agents would see; write them",
    ),
    (
        GRID + LR + "command: [gnbench, train, '--config=other.yaml', '${args}']\n",
        "s.yaml:4 command has '--config=other.yaml', whose settings only W&B's agents would see",
    ),
    (
        GRID + LR + "command: [gnbench, train, --config, other.yaml]\n",
        "s.yaml:4 command has '--config', whose settings only W&B's agents would see",
    ),
    (
        GRID + LR + "command: [python, train.py, batch_size=3, '${args_no_hyphens}']\n",
        "s.yaml:4 command has 'batch_size=3', which only W&B's agents would see; write `batch_",
    ),
    # parameters
    (GRID + "  nrom: {values: [none]}\n", "s.yaml:3 unknown setting 'nrom'; did you mean 'norm'?"),
    (GRID + "  norm: {values: [gruop]}\n", "s.yaml:3 norm: norm='gruop' is unknown; did you mean"),
    (GRID + "  norm: batch\n", "s.yaml:3 norm: 'batch' is not a mapping; write `norm: {value: 'b"),
    (GRID + "  lr: {}\n", "s.yaml:3 lr: is empty; write `values: [...]` under it"),
    (GRID + "  lr: {values: []}\n", "s.yaml:3 lr: values=[] is not a list of values"),
    (GRID + "  lr: {values: 0.1}\n", "s.yaml:3 lr: values=0.1 is not a list of values"),
    (GRID + "  lr: {values: [fast]}\n", "s.yaml:3 lr: lr='fast' is not a number"),
    (GRID + "  lr: {values: [0.1, -1]}\n", "s.yaml:3 lr: lr=-1.0 is not a positive number"),
    (GRID + "  lr: {values: [.nan]}\n", "s.yaml:3 lr: lr=nan is not a positive number"),
    (GRID + "  epochs: {values: [1.5]}\n", "s.yaml:3 epochs: epochs=1.5 is not a whole number"),
    (GRID + "  epochs: {value: 0}\n", "s.yaml:3 epochs: epochs=0 is too small; set epochs to 1"),
    (GRID + "  lr: {value: [0.1]}\n", "s.yaml:3 lr: lr=[0.1] is not a number"),
    (GRID + "  lr: {vals: [0.1]}\n", "s.yaml:3 lr: unknown key 'vals'; did you mean 'values'?"),
    (GRID + "  lr: {values: [0.1], q: 2}\n", "s.yaml:3 lr: unknown key 'q'; categorical reads v"),
    (GRID + "  lr: {values: [0.1], value: 1}\n", "s.yaml:3 lr: unknown key"),
    (
        GRID + "  norm: {values: [batch, group]}\n  num_groups: {values: [8, 3]}\n",
        "s.yaml:4 num_groups=3 does not divide the CNN's 32 and 64 channels; set num_groups to",
    ),
    (
        GRID + "  num_groups: {values: [8, 32]}\n  model: {values: [cnn, resnet20]}\n",
        "s.yaml:4 num_groups=32 does not divide resnet20's 16, 32 and 64 channels; set num_groups",
    ),
    (
        GRID + "  model: {values: [cnn, resnet20]}\n  norm: {values: [batch, frn]}\n",
        "s.yaml:3 norm='frn' brings its own activation, and in resnet20 an addition stands",
    ),
    (
        GRID + "  num_groups: {values: [8, 32]}\n  model: {values: ['torchvision:resnet18x']}\n",
        "s.yaml:4 model='torchvision:resnet18x' is unknown; did you mean 'torchvision:resnet18'?",
    ),
    (
        GRID + "  num_groups: {values: [auto, 48]}\n  model: {value: 'torchvision:resnet18'}\n",
        "s.yaml:4 model='torchvision:resnet18': num_groups=48 does not divide the 64 channels of",
    ),
    (
        RANDOM + "  lr: {min: 0.1, max: 0.2}\n  model: {value: 'torchvision:vit_b_16'}\n",
        "s.yaml:5 model='torchvision:vit_b_16': VisionTransformer has no BatchNorm or GroupNorm",
    ),
    (
        BAYES + "  lr: {min: 0.1, max: 0.2}\n  norm: {values: ['no_such_module:make']}\n",
        "s.yaml:6 norm='no_such_module:make' cannot be built: ModuleNotFoundError",
    ),
    (GRID + "  num_groups: {values: [otto]}\n  norm: {value: group}\n", "is not a whole number or"),
    (GRID + "  model: {values: [resnet]}\n", "s.yaml:3 model: model='resnet' is unknown; did you"),
    (
        GRID + "  norm: {values: [batch]}\n  batch_size:\n    values: [1, 2]\n",
        "s.yaml:5 batch_size=1 gives norm='batch' no batch to take statistics over",
    ),
    (
        GRID + "  num_groups: {values: [2]}\n  group_size: {values: [2]}\n",
        "s.yaml:4 num_groups and group_size exclude each other; keep one of them",
    ),
    (
        GRID + "  epochs: {values: [2]}\n  max_steps: {values: [2]}\n",
        "s.yaml:4 epochs and max_steps exclude each other; keep one of them",
    ),
    (
        GRID + "  lr: {values: [0.1]}\n  optim: {parameters: {lr: {values: [0.2]}}}\n",
        "s.yaml:4 lr is set by 'optim.lr' and by 'lr'; keep one of them",
    ),
    (
        GRID + "  optim: {parameters: {lr: {values: [0.1]}}, value: 3}\n",
        "s.yaml:3 optim: 'value' beside `parameters`; keep one of them",
    ),
    (GRID + "  optim: {parameters: {}}\n", "s.yaml:3 optim: has no parameters"),
    (GRID + "  optim: {parameters: {rl: {values: [1]}}}\n", "s.yaml:3 unknown setting 'rl'"),
    (
        GRID + "  arm: {values: [{norm: none}, batch]}\n",
        "s.yaml:3 arm: mixes dictionaries of settings with other values",
    ),
    (
        GRID + "  arm: {values: [{norm: none}, {nrom: batch}]}\n",
        "s.yaml:3 arm: unknown setting 'nrom'; did you mean 'norm'?",
    ),
    (
        GRID + "  arm: {values: [{norm: group, num_groups: 3}]}\n",
        "s.yaml:3 num_groups=3 does not divide",
    ),
    (
        GRID + "  norm: {values: [{norm: none}]}\n",
        "s.yaml:3 norm: is a setting and takes no dictionaries; call the parameter 'arm'",
    ),
    (GRID + "  arm: {values: [{norm: none, seed: 1}]}\n", "s.yaml:3 arm: seed means repeats"),
    # seeds
    (GRID + LR + "  seed: {values: [0, 0]}\n", "s.yaml:4 seed has a value twice"),
    (GRID + LR + "  seed: {values: [-1]}\n", "s.yaml:4 seed: seed=-1 is out of range"),
    (GRID + LR + "  seed: {min: 0, max: 99999}\n", "s.yaml:4 seed has 100,000 values; 10,000"),
    (RANDOM + LR + "  seed: {min: 0, max: 1.5}\n", "s.yaml:5 seed means repeats, not a range"),
    # distributions
    (GRID + "  lr: {min: 0.1, max: 0.2}\n", "s.yaml:3 lr: a grid cannot walk uniform; list `v"),
    (
        GRID + "  lr: {values: [0.1, 0.2], probabilities: [0.5, 0.5]}\n",
        "s.yaml:3 lr: a grid cannot walk categorical_w_probabilities",
    ),
    (RANDOM + "  lr: {min: 0.2, max: 0.1}\n", "s.yaml:4 lr: min=0.2 is not below max=0.1; swap"),
    (RANDOM + "  lr: {min: 0.1}\n", "s.yaml:4 lr: uniform needs 'max'; add it"),
    (RANDOM + "  lr: {min: fast, max: 0.1}\n", "s.yaml:4 lr: min='fast' is not a number; write"),
    (RANDOM + "  lr: {min: 1e-, max: 0.1}\n", "s.yaml:4 lr: min='1e-' is not a number; write one"),
    (RANDOM + "  lr: {min: .inf, max: 0.1}\n", "s.yaml:4 lr: min=inf is not a number"),
    (RANDOM + "  lr: {min: -0.1, max: 0.1}\n", "s.yaml:4 lr: lr=-0.1 is not a positive number"),
    (
        RANDOM + "  lr: {distribution: log_unifrom_values, min: 0.1, max: 1}\n",
        "s.yaml:4 lr: distribution='log_unifrom_values' is unknown; did you mean 'log_uniform_va",
    ),
    (
        RANDOM + "  lr: {distribution: [normal], min: 0.1, max: 1}\n",
        "s.yaml:4 lr: distribution=\"['normal']\" is unknown",
    ),
    (
        RANDOM + "  lr: {distribution: log_uniform, min: -5, max: 0}\n",
        "s.yaml:4 lr: distribution='log_uniform' is not supported: W&B gave it up too; use log_u",
    ),
    (RANDOM + "  lr: {distribution: beta}\n", "s.yaml:4 lr: distribution='beta' is not supported"),
    (
        RANDOM + "  lr: {distribution: log_uniform_values, min: 0, max: 1}\n",
        "s.yaml:4 lr: min=0 has no logarithm; set it above 0",
    ),
    (
        RANDOM + "  epochs: {distribution: q_uniform, min: 1, max: 9, q: 0}\n",
        "s.yaml:4 epochs: q=0 is not a step; set it above 0",
    ),
    (
        RANDOM + "  lr: {distribution: normal, sigma: -1}\n",
        "s.yaml:4 lr: sigma=-1 is not a spread",
    ),
    (
        RANDOM + "  lr: {distribution: uniform, min: 1, max: 2, mu: 0}\n",
        "s.yaml:4 lr: unknown key 'mu'; uniform reads min, max, distribution",
    ),
    (
        RANDOM + "  batch_size: {min: 2.0, max: 64.0}\n",
        "s.yaml:4 batch_size: uniform draws fractions, but batch_size is a whole number; use int",
    ),
    (
        RANDOM + "  lr: {distribution: int_uniform, min: 0.5, max: 2}\n",
        "s.yaml:4 lr: int_uniform needs whole numbers, not min=0.5 and max=2; use uniform",
    ),
    (
        RANDOM + "  lr: {values: [0.1, 0.2], probabilities: [0.5, 0.6]}\n",
        "s.yaml:4 lr: probabilities sum to 1.1; make it 1",
    ),
    (
        RANDOM + "  lr: {values: [0.1, 0.2], probabilities: [1]}\n",
        "s.yaml:4 lr: 1 probabilities for 2 values; give one each",
    ),
    (
        BAYES + "  lr: {values: [0.1, 0.2], probabilities: [0.5, 0.5]}\n",
        "s.yaml:5 lr: probabilities are not supported with method bayes",
    ),
    (
        "method: random\nparameters:\n  lr: {min: 0.1, max: 0.2}\n",
        "s.yaml draws from a range and has no run_cap, so it never ends; add `run_cap: 50`",
    ),
    (
        "method: bayes\n" + METRIC + "parameters:\n" + LR,
        "s.yaml has method bayes and no run_cap, so it never ends",
    ),
    # metric and early_terminate
    ("method: bayes\nrun_cap: 5\nparameters:\n" + LR, "s.yaml has method bayes and no metric; wr"),
    (GRID + LR + "metric: val/loss\n", "s.yaml:4 metric='val/loss' is not a mapping; write `name"),
    (GRID + LR + "metric: {goal: maximize}\n", "s.yaml:4 metric has no name"),
    (GRID + LR + "metric: {name: val_loss}\n", "s.yaml:4 metric name='val_loss' is unknown; did"),
    (GRID + LR + "metric: {name: test/loss}\n", "s.yaml:4 metric name='test/loss' would choose by"),
    (
        GRID + LR + "metric: {name: val/loss, goal: minimise}\n",
        "s.yaml:4 metric goal='minimise' is unknown; did you mean 'minimize'?",
    ),
    (
        GRID + LR + "metric: {name: val/accuracy}\n",
        "s.yaml:4 metric val/accuracy has no goal, which to W&B means minimize; write `goal: max",
    ),
    (
        GRID + LR + "metric: {name: val/loss, impute: best}\n",
        "s.yaml:4 metric impute='best' is not supported",
    ),
    (
        GRID + LR + "metric: {name: val/loss, target: low}\n",
        "s.yaml:4 metric target='low' is not a number",
    ),
    (GRID + LR + "metric: {name: val/loss, gaol: x}\n", "s.yaml:4 metric: unknown key 'gaol'; did"),
    (
        GRID + LR + STOP + "{type: hyperband, min_iter: 1}\n",
        "s.yaml:4 early_terminate needs a metric; write `metric: {name: val/accuracy",
    ),
    (GRID + LR + METRIC + STOP + "{type: median}\n", "s.yaml:5 early_terminate type='median' is u"),
    (GRID + LR + METRIC + STOP + "{type: hyperband}\n", "s.yaml:5 early_terminate needs min_iter"),
    (
        GRID + LR + METRIC + STOP + "{type: hyperband, min_iter: 0}\n",
        "s.yaml:5 early_terminate min_iter=0 is not a whole number from 1 to",
    ),
    (
        GRID + LR + METRIC + STOP + "{type: hyperband, min_iter: 1, eta: 1.5}\n",
        "s.yaml:5 early_terminate eta=1.5 is not a whole number from 2 to",
    ),
    (
        GRID + LR + METRIC + STOP + "{type: hyperband, min_iter: 1, strict: false}\n",
        "s.yaml:5 early_terminate strict=False is not supported",
    ),
    (
        GRID + LR + METRIC + STOP + "{type: hyperband, min_iter: 1, s: 2}\n",
        "s.yaml:5 early_terminate takes min_iter, or max_iter and s, but not min_iter and s; leave",
    ),
    (
        GRID + LR + METRIC + STOP + "{type: hyperband, min_iter: 7, max_iter: 18, s: 2}\n",
        "s.yaml:5 early_terminate takes min_iter, or max_iter and s, but not min_iter and max_iter",
    ),
    (
        GRID + LR + METRIC + STOP + "{type: hyperband, max_iter: 2, s: 2}\n",
        "s.yaml:5 early_terminate max_iter=2 with eta=3 has no band; make max_iter eta or more",
    ),
    (
        GRID + LR + METRIC + STOP + "{type: hyperband, max_iter: 9}\n",
        "s.yaml:5 early_terminate needs min_iter, or max_iter and s",
    ),
    (
        'name: "\\e]0;OWNED\\a"\n' + GRID + LR,
        "s.yaml:1 name='\\x1b]0;OWNED\\x07' has line breaks or control characters",
    ),
    ('project: "a\\nb"\n' + GRID + LR, "s.yaml:1 project='a\\nb' has line breaks or control"),
    (
        GRID + LR + "metric: {name: train_seconds}\n" + STOP + "{type: hyperband, min_iter: 1}\n",
        "s.yaml:5 early_terminate goes by epochs, but metric train_seconds is known only at the",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_a_bad_file_is_refused_by_line_name_and_remedy(tmp_path, text, message):
    with pytest.raises(SweepError, match=re.escape(message)) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"\xff\xfe\x00\x01"),
        lambda path: path.write_bytes(b"method: grid # \xe9t\xe9\n"),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
    ],
    ids=["missing", "a folder", "not text", "Latin-1", "endless", "a pipe"],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, make):
    path = tmp_path / "s.yaml"
    make(path)
    with pytest.raises(SweepError, match=r"s\.yaml") as error:
        read_spec(path)
    assert "\n" not in str(error.value)


def refused_within(path: Path, match: str, seconds: float) -> None:
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(SweepError, match=match):
            read_spec(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < seconds
    assert peak < 200e6


def test_a_billion_laughs_are_refused_at_once(tmp_path):
    path = tmp_path / "s.yaml"
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path.write_text("\n".join(lines))
    refused_within(path, r"s\.yaml expands to over 100,000 values through its aliases", 5)


def test_an_alias_within_itself_is_refused(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("method: grid\nparameters: &p\n  lr: *p\n")
    refused_within(path, "an alias that contains itself", 5)


def test_a_file_of_50_mb_is_refused_unread(tmp_path):
    path = tmp_path / "s.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    refused_within(path, r"s\.yaml: is larger than 1,000,000 bytes; give the path", 1)


def test_a_deeply_nested_file_is_refused(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("method: grid\nparameters: " + "{a: " * 3000 + "1" + "}" * 3000)
    refused_within(path, r"s\.yaml", 10)


def test_everything_a_file_can_say_is_read(tmp_path):
    spec = read(
        tmp_path,
        "name: n\ndescription: d\nproject: p\nentity: e\nprogram: train.py\nkind: sweep\n"
        "command: ['${env}', gnbench, train, --out, runs, '${args}']\n"
        "method: bayes\nrun_cap: 9\n"
        "metric: {name: val/loss, goal: minimize, target: 0.01, impute: worst}\n"
        "early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 3, strict: true}\n"
        "parameters:\n  lr: {distribution: log_normal, mu: -6, sigma: 1}\n"
        "  seed: {min: 3, max: 5}\n",
    )
    assert (spec.name, spec.description, spec.project, spec.entity) == ("n", "d", "p", "e")
    assert (spec.method, spec.run_cap, spec.seeds) == ("bayes", 9, (3, 4, 5))
    assert spec.metric == Metric(name="val/loss", goal="minimize", target=0.01)
    assert spec.early_terminate == Hyperband(bands=(3, 9), eta=3)
    assert spec.settings == {"lr"}


NUMBERS = """\
method: random
run_cap: "7"
metric: {name: val/loss, goal: minimize, target: 1e-2}
early_terminate: {type: hyperband, min_iter: "2"}
parameters:
  lr: {min: 1e-5, max: 1e-1}
  optim: {parameters: {weight_decay: {distribution: normal, mu: 1e-3, sigma: "1e-4"}}}
  norm: {values: [batch, none], probabilities: ["0.25", 75e-2]}
"""


def test_text_that_is_a_number_is_that_number_here_and_for_wandb(tmp_path):
    """YAML 1.1 takes `1e-5` for text; W&B's own server would refuse it."""
    spec = read(tmp_path, NUMBERS)
    lr, decay, norm = (axis.distribution for axis in spec.axes)
    assert (lr.kind, lr.low, lr.high) == ("uniform", 1e-5, 0.1)
    assert (decay.mu, decay.sigma, norm.probabilities) == (1e-3, 1e-4, (0.25, 0.75))
    assert (spec.run_cap, spec.metric.target, spec.early_terminate.bands[:2]) == (7, 0.01, (2, 6))
    sent = spec.raw["parameters"]
    assert sent["lr"] == {"min": 1e-5, "max": 0.1}
    assert sent["optim"]["parameters"]["weight_decay"]["mu"] == 1e-3
    assert spec.raw["metric"]["target"] == 0.01


@pytest.mark.parametrize(
    ("text", "bands"),
    [
        ("max_iter: 150, s: 4", (1, 5, 16, 50)),
        ("max_iter: 10, s: 3, eta: 2", (1, 2, 5)),
        ("max_iter: 30, s: 9", (1, 3, 10)),
    ],
)
def test_the_bands_of_any_max_iter_are_wandbs(tmp_path, text, bands):
    stop = STOP + f"{{type: hyperband, {text}}}\n"
    assert read(tmp_path, GRID + LR + METRIC + stop).early_terminate.bands == bands


def test_what_is_for_wandbs_agents_alone_is_told(tmp_path):
    text = (
        GRID + LR + "program: train.py\ncommand: ['${env}', gnbench, train, --out, x, '${args}']\n"
    )
    assert read(tmp_path, text).notes == (
        "program='train.py' is for W&B's agents; gnbench trains the runs itself",
        "command: --out x is for W&B's agents; here the options of gnbench sweep count",
    )
    ours = "program: gnbench\ncommand: [gnbench, train, --quiet, --config, '${args_json_file}']\n"
    assert read(tmp_path, GRID + LR + ours).notes == ()


@pytest.mark.parametrize("name", ["seed", "batch_size", "num_groups", "epochs", "max_steps"])
def test_a_number_of_thousands_of_digits_is_refused_by_its_line(tmp_path, name):
    for digits in ("0x" + "f" * 5000, "9" * 5000, "0b" + "1" * 5000, "-" + "7" * 99):
        text = GRID + f"  {name}:\n    values:\n      - {digits}\n"
        with pytest.raises(SweepError, match=r"s\.yaml:5 has a number of [\d,]+ digits; write"):
            read(tmp_path, text)
    with pytest.raises(SweepError, match=r"s\.yaml:3 .*(too large|out of range|does not divide)"):
        read(tmp_path, GRID + f"  {name}: {{values: [{'9' * 30}]}}\n")


def test_a_file_is_named_for_itself_and_has_one_seed(tmp_path):
    spec = read(tmp_path, GRID + LR)
    assert (spec.name, spec.seeds, spec.metric, spec.run_cap) == ("s", (0,), None, None)


def test_reading_a_sweep_needs_neither_torch_nor_wandb_nor_optuna():
    import subprocess
    import sys

    code = (
        "import sys, groupnorm_bench.sweep.plan.plan, groupnorm_bench.sweep.plan.describe, "
        "groupnorm_bench.sweep.plan.sources\n"
        "assert not {'torch', 'wandb', 'optuna', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""A run that a function of the user's own does, from its config to its folder."""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import os
import random
import re
import sys

import numpy as np
import pytest
import torch

from groupnorm_bench.errors import ConfigError, RunFolderError, TrainingStopped, TrialError
from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.layers import make_config
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.trial import run_trial
from groupnorm_bench.trial.own import code_of


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Write a module of the user's own, and return what runs its `train`."""
    monkeypatch.chdir(tmp_path)
    number = iter(range(100))

    def write(code, **settings):
        module = f"study_{tmp_path.name.replace('-', '_')}_{next(number)}"
        (tmp_path / f"{module}.py").write_text(code)
        config = make_config([{"trial": f"{module}:train", "norm": "batch", **settings}])
        heard = []

        def start(seed=0, force=False, **hooks):
            return run_trial(
                config.replace(seed=seed),
                runs_dir=tmp_path / "runs",
                dataset=None,
                tracking=TrackingOptions(mode="disabled"),
                force=force,
                hooks=Hooks(say=heard.append, **hooks),
            )

        start.heard, start.config = heard, config
        start.folder = lambda seed=0: RunFolder.of(tmp_path / "runs", config.replace(seed=seed))
        return start

    yield write
    for name in [name for name in sys.modules if name.startswith("study_")]:
        del sys.modules[name]


def test_what_it_returns_and_logs_is_the_runs_result(study):
    start = study(
        "import numpy as np, torch\n"
        "def train(run):\n"
        "    assert run.norm == 'batch' and run.device.type in ('cpu', 'cuda', 'mps')\n"
        "    assert isinstance(run.norm_layer(8), torch.nn.BatchNorm2d)\n"
        "    (run.folder / 'note.txt').write_text('mine')\n"
        "    for epoch in range(3):\n"
        "        run.log({'val/dice': 0.5 + epoch / 10})\n"
        "    lr = run.settings['lr']\n"
        "    return {'dice': torch.tensor(0.75), 'loss': np.float32(2), 'lr': lr}\n",
        lr=0.1,
    )
    rows = []
    result = start(seed=7, on_epoch=rows.append)
    assert result.status == "finished"
    assert {k: result.summary[k] for k in ("dice", "loss", "lr")} == {
        "dice": 0.75,
        "loss": 2.0,
        "lr": 0.1,
    }
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert rows == result.history
    assert start.folder(7).read() == RunFolder(start.folder(7).path).read()
    assert start.folder(7).read().history[2]["val/dice"] == pytest.approx(0.7)
    assert (start.folder(7).path / "note.txt").read_text() == "mine"
    assert start.heard == []
    again = start(seed=7, on_epoch=lambda row: pytest.fail("it has its result"))
    assert again.summary == result.summary


def test_arms_of_a_seed_draw_alike_and_the_process_keeps_its_own_generators(study):
    code = (
        "import random, numpy, torch\n"
        "def train(run):\n"
        "    run.norm_layer(8)\n"
        "    draws = torch.rand(1).item(), numpy.random.rand(), random.random()\n"
        "    return dict(zip('tnr', draws))\n"
    )
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    drawn = []
    for norm, seed in (("batch", 0), ("group", 0), ("batch", 1)):
        summary = study(code, norm=norm)(seed=seed).summary
        drawn.append([summary[name] for name in "tnr"])
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ("None", "returned None; return metrics by name"),
        ("'0.71'", "returned '0.71'; return"),
        ("0.71", "returned 0.71; return"),
        ("{}", "returned {}; return"),
        ("{'dice': '0.71'}", "returned what is no result: dice='0.71' is not a number"),
        ("{'dice': None}", "dice=None is not a number"),
        ("{'dice': True}", "dice=True is not a number"),
        ("{'dice': [0.1, 0.2]}", "dice=.* is not a number"),
        ("{3: 0.71}", "3 is no name of a metric"),
        ("{'status': 1}", "metric 'status' is a word of others"),
        ("{'test/accuracy': 71.3}", "test/accuracy=71.3 is not between 0 and 1: a fraction"),
        ("{'dice': 0.7, 'hits': [1, 2]}", "hits of shape .* are no row of 0 and 1"),
        ("{'dice': 0.7, 'hits': [[1], [1, 0]]}", r"hits=\[\[1\], \[1, 0\]\] is no row of 0 and 1"),
        ("{'dice': type('Odd', (), {'__repr__': lambda it: 1 / 0})()}", "dice=a Odd is not a"),
        ("{'test/accuracy': 0.9, 'hits': [1, 0]}", "returned test/accuracy=0.9, but 0.5 of"),
    ],
)
def test_what_is_no_result_fails_the_run_in_one_line(study, returned, complaint):
    start = study(f"def train(run):\n    run.norm_layer(8)\n    return {returned}\n")
    with pytest.raises(TrialError, match=complaint) as caught:
        start()
    assert "\n" not in str(caught.value)
    assert start.folder().read().status == "failed"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("import sys; sys.exit(3)", r"called sys.exit\(3\)"),
        ("raise ValueError('a\\nb')", "raised ValueError: a b; see .*traceback.txt"),
        ("run.settings['lr']", "raised KeyError: .*no setting 'lr'; it has width"),
        ("run.log(0.5)", r"run.log\(0.5\) is no row"),
        ("run.log({'dice': 'x'})", "dice='x' is not a number"),
        ("run.log({'dice': 1, 'epoch': 0})", "epoch=0 is no whole number from 1 on"),
        ("run.log({'dice': 1, 'step': 2.5})", "step=2.5 is no whole number from 0 on"),
        ("run.log({'images_seen': float('nan')})", "images_seen=nan is no whole number from 0 on"),
    ],
)
def test_what_raises_fails_the_run_with_its_traceback_kept(study, body, complaint):
    start = study(f"def train(run):\n    {body}\n", width=2)
    with pytest.raises((TrialError, ConfigError), match=complaint) as caught:
        start()
    assert "\n" not in str(caught.value)
    folder = start.folder()
    assert folder.read().status == "failed"
    assert "in train" in folder.traceback_path.read_text()


def test_a_count_that_is_logged_as_a_float_is_read_back(study):
    """Its result was refused as foreign, set aside and trained again, for ever."""
    start = study(
        "import torch\n"
        "def train(run):\n"
        "    run.norm_layer(8)\n"
        "    run.log({'step': torch.tensor(20.0), 'images_seen': 160.0})\n"
        "    return {'dice': 1}\n"
    )
    assert start() == start.folder().read() == start()
    assert start.folder().read().history == [{"step": 20, "images_seen": 160, "epoch": 1}]
    assert start.heard == []


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_a_metric_that_is_not_finite_is_a_run_that_diverged(study, value):
    result = study(f"def train(run):\n    run.norm_layer(8)\n    return {{'dice': {value}}}\n")()
    assert result.status == "diverged"
    assert "dice is" in result.summary["error"]


def test_hits_are_kept_for_the_intervals_over_new_items(study):
    start = study(
        "import torch\n"
        "def train(run):\n"
        "    run.norm_layer(8)\n"
        "    return {'loss': 1.0, 'hits': torch.tensor([1, 0, 1, 1])}\n"
    )
    summary = start().summary
    assert (summary["test/accuracy"], summary["test/num_images"]) == (0.75, 4)
    assert start.folder().read_hits(4).tolist() == [True, False, True, True]


def test_what_it_prints_goes_to_stderr(study, capfd):
    study(
        "import os\n"
        "print('imported')\n"
        "def train(run):\n"
        "    run.norm_layer(8)\n"
        "    print('by python')\n"
        "    os.system('echo by a process')\n"
        "    return {'dice': 1}\n"
    )()
    told = capfd.readouterr()
    assert told.out == ""
    for line in ("imported", "by python", "by a process"):
        assert line in told.err


def test_a_forked_child_ends_with_the_function_and_leaves_no_result_of_its_own(study, tmp_path):
    result = study(
        "import os\n"
        "def train(run):\n"
        "    run.norm_layer(8)\n"
        "    pid = os.fork()\n"
        "    if pid:\n"
        "        os.waitpid(pid, 0)\n"
        "    (run.folder / ('parent' if pid else 'child')).touch()\n"
        "    written = (run.folder / 'result.json').read_text()\n"
        "    return {'dice': 0.9 if pid else 0.1, 'child': 1.0 * ('finished' in written)}\n"
    )()
    assert result.summary["dice"] == 0.9
    assert result.summary["child"] == 0, "it has written no result"
    (folder,) = (tmp_path / "runs").iterdir()
    assert {"parent", "child"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "result.json").read_text())["summary"]["dice"] == 0.9


def test_a_working_directory_that_it_left_is_entered_again_and_said(study, tmp_path):
    start = study(
        "import os\n"
        "def train(run):\n"
        "    run.norm_layer(8)\n"
        "    os.makedirs('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "    run.log({'dice': 0.1})\n"
        "    return {'dice': 1}\n"
    )
    assert start().status == "finished"
    assert os.getcwd() == str(tmp_path)
    assert any("changed the working directory; changed back" in line for line in start.heard)
    assert start.folder().read().history == [{"dice": 0.1, "epoch": 1}]


@pytest.mark.parametrize(("seeding", "is_said"), [("7", True), ("run.seed", False)])
def test_seeding_torch_anew_is_said_unless_by_the_runs_own_seed(study, seeding, is_said):
    start = study(
        "import torch\n"
        "def train(run):\n"
        "    run.norm_layer(8)\n"
        f"    torch.manual_seed({seeding})\n"
        "    return {'dice': 1}\n"
    )
    start(seed=3)
    assert any("seeded torch anew, with 7 where the run's seed is 3" in x for x in start.heard) == (
        is_said
    )


def test_a_setting_that_it_never_reads_is_said(study):
    start = study("def train(run):\n    return {'dice': run.settings['width']}\n", width=2, widht=3)
    start()
    assert [line.partition(" ")[2] for line in start.heard] == [
        "did not read widht: it changes nothing"
    ]


def test_what_torch_keeps_for_the_process_is_put_back(study):
    study(
        "import torch\n"
        "def train(run):\n"
        "    torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)\n"
        "    torch.set_default_device('meta'); torch.backends.cudnn.benchmark = True\n"
        "    return {'dice': 1}\n"
    )()
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert (torch.get_default_device().type, torch.backends.cudnn.benchmark) == ("cpu", False)


def test_stopped_it_goes_on_from_what_it_kept(study):
    start = study(
        "def train(run):\n"
        "    done = run.checkpoint_dir / 'epochs'\n"
        "    first = int(done.read_text()) if done.exists() else 0\n"
        "    for epoch in range(first, 4):\n"
        "        run.log({'val/dice': epoch / 10, 'epoch': epoch + 1})\n"
        "        done.write_text(str(epoch + 1))\n"
        "        if run.should_stop():\n"
        "            return\n"
        "    return {'dice': 1, 'first': first}\n"
    )
    rows = []
    with pytest.raises(TrainingStopped, match="stopped after 2 logged epochs"):
        start(on_epoch=rows.append, should_stop=lambda: len(rows) == 2)
    assert start.folder().read().status == "interrupted"
    result = start(on_epoch=rows.append)
    assert result.summary["first"] == 2
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["val/dice"] for row in result.history] == [0.0, 0.1, 0.2, 0.3]
    assert not start.folder().own_checkpoint_dir.exists()


def test_stopped_without_a_checkpoint_it_starts_again_with_no_row_left(study):
    start = study(
        "def train(run):\n"
        "    for epoch in range(3):\n"
        "        run.log({'val/dice': epoch / 10})\n"
        "        if run.should_stop():\n"
        "            return\n"
        "    return {'dice': 1}\n"
    )
    with pytest.raises(TrainingStopped, match="stopped after 1"):
        start(should_stop=lambda: True)
    assert [row["epoch"] for row in start().history] == [1, 2, 3]


def test_hyperband_stops_a_run_that_asks(study):
    start = study(
        "def train(run):\n"
        "    for epoch in range(9):\n"
        "        run.log({'val/dice': epoch / 10})\n"
        "        if run.should_stop():\n"
        "            return\n"
        "    return {'dice': 1}\n"
    )
    result = start(should_prune=lambda row: row["epoch"] == 3)
    assert result.status == "pruned"
    assert result.summary == {"val/dice": 0.2, "status": "pruned"}
    assert len(result.history) == 3


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("train = 3\n", "is int, no function"),
        ("def train():\n    pass\n", "takes other arguments"),
        ("def train(run, width):\n    pass\n", "takes other arguments"),
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError"),
        ("import sys; sys.exit(1)\n", "cannot be imported: SystemExit"),
        ("def other(run):\n    pass\n", "cannot be imported: AttributeError"),
    ],
)
def test_what_is_no_function_of_a_run_is_refused_with_nothing_left(
    study, code, complaint, tmp_path
):
    with pytest.raises(ConfigError, match=complaint):
        study(code)()
    assert not (tmp_path / "runs").exists()


def test_a_result_tells_which_code_it_is_of(study):
    start = study("def train(run):\n    return {'dice': 1}\n")
    module = start.config.trial.removesuffix(":train")
    assert re.fullmatch(rf"{module}\.py@[0-9a-f]{{8}}", start().environment["trial_code"])


def test_code_is_known_by_what_it_says_and_what_it_imports_from_beside_it(tmp_path, monkeypatch):
    def told(folder, text, helper):
        path = tmp_path / folder
        path.mkdir()
        (path / "helper.py").write_text(helper)
        (path / "study.py").write_text(f"import helper\n{text}")
        monkeypatch.syspath_prepend(path)
        for name in ("helper", "study"):
            sys.modules.pop(name, None)
        return code_of(importlib.import_module("study").train)

    code = "def train(run):\n    return {'dice': 1}\n"
    one = told("one", code, "x = 1\n")
    assert one == told("two", code, "x = 1\n")
    assert one != told("three", code + "# changed\n", "x = 1\n")
    assert one != told("four", code, "x = 2\n")
    for name in ("helper", "study"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("end", ["return {'dice': 1.0}", "raise ValueError('of the other')"])
def test_a_run_that_another_process_took_over_is_left_to_that_one(study, monkeypatch, end):
    """Without flock, a process that was stopped for minutes may lose its claim."""

    def no_locks(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    start = study(f"def train(run):\n    run.log({{'val/dice': 0.5}})\n    {end}\n")

    def take_over(row):
        claim = start.folder().path / "lock.1"
        claim.unlink()
        claim.with_name("lock.2").write_text("1 1 elsewhere 0123abcd\n")

    with pytest.raises(RunFolderError, match="taken over by another process"):
        start(on_epoch=take_over)
    assert start.folder().read().status == "interrupted"
    assert not start.folder().traceback_path.exists()
    assert (start.folder().path / "lock.2").exists()

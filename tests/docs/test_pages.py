"""What README and docs show exists: commands parse, files are there, Python runs."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.main import get_command

from groupnorm_bench.cli import app
from tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEW = {"groupnorm_bench/sweep/executors/here.py"}
"""What docs/extending.md has a person make."""
PLACEHOLDERS = {"ENTITY/PROJECT/SWEEP", "NAME", "URL"}


def commands() -> list[tuple[str, str]]:
    """Return (page, command line) for every `gnbench ...` in code on a page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^(?:    |\$ )(.*gnbench .*)$", text, re.M)
        blocks += re.findall(r"^(?:\$ )?(gnbench .*)$", text, re.M)
        blocks += [span for span in re.findall(r"`([^`\n]+)`", text) if span.startswith("gnbench ")]
        for line in blocks:
            for part in re.split(r"&&|\||;|>", line):
                part = re.sub(r"\s#.*", "", part).strip().removeprefix("$ ")
                if part.startswith("gnbench ") and "..." not in part:
                    found.append((page.name, part))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_shown_is_one_that_exists(page, line):
    words = shlex.split(line)[1:]
    group = get_command(app)
    with group.make_context("gnbench", list(words), resilient_parsing=True) as context:
        rest = [*getattr(context, "_protected_args", []), *context.args]
        while rest and hasattr(group, "get_command"):
            command = group.get_command(context, rest[0])
            assert command is not None, f"{page} shows `{line}`, but there is no {rest[0]!r}"
            group, rest = command, rest[1:]
            if "--help" in rest:
                return
            if hasattr(group, "get_command"):
                continue
            group.make_context(command.name, list(rest), parent=context)


CHEAP = {
    "gnbench norms": "group",
    "gnbench data": "mnist-5k",
    "gnbench init norm": "norm.yaml",
    "gnbench sweep --norm none,batch,group --num-groups 4,8 --batch-size 32,128 --seeds 8"
    " --save mine.yaml --dry-run": "8 cells x 8 seeds = 64 runs",
}
"""Commands of the README that ask nothing of anybody, and what they print."""

ON_RUNS = {
    "gnbench compare runs": (0, "best: "),
    "gnbench compare runs --explain": (0, "p Holm"),
    "gnbench compare runs --claim 'group-g8 = batch' --margin 0.5": (5, "group-g8"),
    "gnbench status runs": (0, "8 runs: 8 finished"),
    "gnbench report runs": (0, "report.html"),
}
"""Those that ask for a folder of runs; exit code and what they print."""

ELSEWHERE = {
    "gnbench --help": "tests/cli/test_help.py",
    "gnbench --install-completion": "tests/cli/test_help.py",
    "gnbench agent": "tests/tracking/test_agent_pool.py",
    "gnbench bench": "tests/bench/test_bench.py",
    "gnbench compare": "tests/cli/test_compare.py",
    "gnbench compare ENTITY": "tests/compare/test_foreign_wandb.py",
    "gnbench compare my-team": "tests/compare/test_foreign_wandb.py",
    "gnbench compare runs --arm": "tests/docs/test_your_own_page.py",
    "gnbench compare study.csv": "tests/compare/test_foreign.py",
    "gnbench compare sweep.gnb": "tests/runs/test_pack.py",
    "gnbench dashboard": "tests/tracking/test_workspace.py",
    "gnbench data cifar10": "tests/datasets/test_load.py",
    "gnbench data mnist": "tests/datasets/test_load.py",
    "gnbench data my_data:load": "tests/docs/test_your_data_page.py",
    "gnbench doctor": "tests/cli/test_train.py",
    "gnbench model": "tests/docs/test_your_own_page.py",
    "gnbench pack": "tests/runs/test_pack.py",
    "gnbench power": "tests/sweep/plan/test_power.py",
    "gnbench publish": "tests/tracking/test_publish.py",
    "gnbench quick": "tests/test_wheel.py",
    "gnbench report my-team": "tests/compare/test_foreign_wandb.py",
    "gnbench report runs --open": "tests/report/test_page.py",
    "gnbench report study.csv": "tests/report/test_tables.py",
    "gnbench show": "tests/cli/test_ways_in.py",
    "gnbench status": "tests/cli/test_sweep.py",
    "gnbench sweep FILE": "tests/cli/test_sweep.py",
    "gnbench sweep fit.yaml": "tests/docs/test_your_training_page.py",
    "gnbench sweep mine.yaml": "tests/docs/test_your_own_page.py",
    "gnbench sweep norm": "tests/test_wheel.py",
    "gnbench sweep study.yaml": "tests/docs/test_your_training_page.py",
    "gnbench sweep sweeps/": "tests/sweep/plan/test_plan.py",
    "gnbench sweep sweeps/norm.yaml --executor ray": "tests/sweep/executors/test_ray.py",
    "gnbench sweep sweeps/norm.yaml --executor slurm": "tests/sweep/executors/test_slurm.py",
    "gnbench sweep sweeps/smoke.yaml": "tests/cli/test_sweep.py",
    "gnbench sync": "tests/tracking/test_sync.py",
    "gnbench train": "tests/cli/test_train.py",
    "gnbench unpack": "tests/runs/test_pack.py",
}
"""How the others begin, and the tests that run them, on less data or against a test server."""


@pytest.mark.parametrize("line", CHEAP)
def test_commands_of_the_readme_do_what_they_say(line, tmp_path, monkeypatch, capsys):
    from groupnorm_bench.cli.app import run

    shown = {command for page, command in commands() if page == "README.md"}
    assert line in shown
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNBENCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("groupnorm_bench.datasets.fetch.recently_failed", lambda *_: "not now")
    assert run(shlex.split(line)[1:]) == 0
    assert CHEAP[line] in capsys.readouterr().out


@pytest.mark.parametrize("line", ON_RUNS)
def test_commands_of_the_readme_on_runs_do_what_they_say(line, tmp_path, monkeypatch, capsys):
    from groupnorm_bench.cli.app import run
    from tests.support.run_folders import make_runs

    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "runs", arms=[{"norm": "batch"}, {"norm": "group"}], seeds=4)
    exit_code, printed = ON_RUNS[line]
    assert run(shlex.split(line)[1:]) == exit_code
    assert printed in capsys.readouterr().out


def test_every_command_shown_is_run_by_some_test():
    assert {command for page, command in commands() if page == "README.md"} >= ON_RUNS.keys()
    shown = {command for _, command in commands()}
    rest = shown - CHEAP.keys() - ON_RUNS.keys()
    homes = {
        line: [path for start, path in ELSEWHERE.items() if line.startswith(start)] for line in rest
    }
    assert [line for line, found in homes.items() if not found] == []
    for start, path in ELSEWHERE.items():
        word = start.split()[1]
        assert word in (ROOT / path).read_text(encoding="utf-8"), f"{path} runs no {start}"


def test_the_pages_show_commands_at_all():
    assert len(commands()) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_the_repository_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_python_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert 0.5 < float(capsys.readouterr().out) <= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_repository_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:tests|docs|benchmarks|groupnorm_bench|sweeps)/[\w/.-]*\w", text):
        assert (ROOT / path).exists() or path in NEW, f"{page.name} names {path}"

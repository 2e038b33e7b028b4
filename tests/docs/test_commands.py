"""Every command line in README and docs is typed, and ends and prints as it is shown to."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator

import pytest

from tests.docs import scenes, shown
from tests.docs.scenes import ELSEWHERE, INSTEAD, SCENES, Place, Scene, Typed
from tests.support import ROOT
from tests.support.screen import Terminal
from tests.support.shell import Done, Shell, plain
from tests.support.wandb_server.server import API_KEY

WORDS = {"root": str(ROOT), "packages": sysconfig.get_paths()["purelib"], "key": API_KEY}


@pytest.fixture(scope="module")
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    with Shell(request.config.cache.mkdir("loops")) as ready:
        yield ready


def test_every_command_shown_is_typed_by_a_test():
    typed = [t.line for scene in SCENES.values() for t in scene.commands if t.shown]
    typed += [instead.line for instead in INSTEAD] + list(ELSEWHERE)
    pages = shown.commands()
    assert {line: pages[line] for line in pages.keys() - set(typed)} == {}, "typed by no test"
    assert set(typed) - pages.keys() == set(), "typed here, and on no page"


def test_what_stands_where_commands_do_is_a_command():
    assert {page.name: shown.read(page).strangers for page in shown.PAGES} == {
        page.name: () for page in shown.PAGES
    }, "begin it with a program of tests/docs/shown.py, or fence it and name its language"


@pytest.mark.parametrize(("line", "path"), ELSEWHERE.items())
def test_what_is_typed_elsewhere_stands_there_in_whole(line, path):
    code = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert line in {node.value for node in ast.walk(code) if isinstance(node, ast.Constant)}


PAGE = """
Type `gnbench
norms`, or `make`, or `python x.py`.

    $ gnbench compare runs \\
        --json   # at once
    best: batch
    wandb login

- `pip install x`

   ```text
   gnbench is no command here
   ```

```sh
A=1 .venv/bin/gnbench data
who knows
```
"""


def test_commands_are_found_wherever_they_stand():
    found = shown.take_apart(PAGE)
    assert set(found.commands) == {
        *("gnbench norms", "python x.py", "gnbench compare runs --json", "pip install x"),
        "A=1 .venv/bin/gnbench data",
    }
    assert found.strangers == ("who knows",)
    assert found.blocks == (("text", "   gnbench is no command here\n"),)


def _marked() -> list[object]:
    return [
        pytest.param(scene, id=name, marks=[pytest.mark.slow] * scene.slow)
        for name, scene in SCENES.items()
    ]


@pytest.mark.parametrize("scene", _marked())
def test_commands_do_what_the_page_says(scene: Scene, request, tmp_path, shell):
    folder = tmp_path / "here"
    folder.mkdir()
    place = Place(folder, **{_PLACES[name]: request.getfixturevalue(name) for name in scene.needs})
    for make in scene.given:
        make(place)
    for typed in scene.commands:
        check(shell, scene, typed, place)


_PLACES = {"wandb_server": "server", "slurm_stand_ins": "slurm"}


@pytest.mark.slow
@pytest.mark.parametrize("instead", INSTEAD, ids=lambda instead: instead.line)
def test_what_cannot_be_run_here_is_what_its_program_takes(instead, tmp_path, shell):
    place = Place(tmp_path)
    scenes.checkout(place)
    check(shell, Scene((), env=scenes.NO_NETWORK), instead.does, place)


def check(shell: Shell, scene: Scene, typed: Typed, place: Place) -> None:
    """Type a command, and hold its exit code and output against what is shown."""
    line = typed.line
    for name, stands_for in scene.names.items():
        if re.search(rf"(?<!\S){re.escape(name)}(?!\w)", line):
            line = line.replace(name, stands_for(place))
    env = {name: value.format(**WORDS) for name, value in (scene.env | typed.env).items()}
    line = f"{line.replace('{root}', str(ROOT))} {typed.more}"
    if typed.answers:
        done = in_a_terminal(shell, line, typed, place, env)
    else:
        done = shell.type(line, cwd=place.path, env=env, forked=typed.forked)
    told = plain(done.out) + plain(done.err)
    assert done.code == typed.code, f"{line}: exit code {done.code}\n{told}"
    for words in typed.prints:
        assert re.search(words, told, re.M), f"{line}: no {words!r} in\n{told}"


def in_a_terminal(shell: Shell, line: str, typed: Typed, place: Place, env) -> Done:
    words = shell.words(line)
    with Terminal(
        "-c", RUN, *words, module=None, cwd=place.path, **shell.environment(env, forked=False)
    ) as terminal:
        for seen, keys in typed.answers:
            terminal.wait_for(lambda text, seen=seen: re.search(seen, text) is not None)
            terminal.type(keys.format(**WORDS))
        text = terminal.wait()
        assert terminal.exit_code is not None
        return Done(terminal.exit_code, text, "")


RUN = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"

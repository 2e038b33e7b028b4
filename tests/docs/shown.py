"""What the pages show: each command line, wherever it stands, and each block of other text.

A command is a line of an indented block, or of a fenced one that names no other language, or a
span of code in the text that begins with a program's name and goes on. What is indented or fenced
without a language is taken for commands, whatever it is: other text has to say what it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {
    *("gnbench", "python", "python3", "pip", "pytest", "make", "wandb", "docker", "ray", "git"),
    *("sbatch", "srun", "scancel", "squeue", "ssh", "curl", "conda", "uv", "pipx", "export", "cd"),
}
TEXTS = {"python", "yaml", "text", "csv"}
"""Languages of fenced blocks that are no commands."""
PROGRAM = re.compile(r"[\w./-]*/bin/\w+|[A-Z_]+=\S*")
"""The first word of what is a command as well: `.venv/bin/pip`, `NAME=value`."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page, taken apart."""

    commands: tuple[str, ...]
    """In their order; continued lines joined, without prompt and comment."""
    blocks: tuple[tuple[str, str], ...]
    """Language and text of the other blocks."""
    strangers: tuple[str, ...]
    """Lines that stand where commands do, and begin with no program that is known."""


def read(page: Path) -> Page:
    return take_apart(page.read_text(encoding="utf-8"))


def take_apart(text: str) -> Page:
    """Return what stands on a page of Markdown."""
    commands: list[str] = []
    blocks: list[tuple[str, str]] = []
    strangers: list[str] = []
    prose: list[str] = []

    def shell(lines: list[str]) -> None:
        prompts = any(line.startswith("$ ") for line in lines)
        for line in "\n".join(lines).replace("\\\n", " ").splitlines():
            if not line.strip() or line.startswith("#") or (prompts and line[:2] != "$ "):
                continue  # nothing, a comment, or what a command printed
            command = normal(line.removeprefix("$ "))
            (commands if begins_with_a_program(command) else strangers).append(command)

    lines = iter([*text.splitlines(), ""])
    before = ""
    indented: list[str] = []
    for line in lines:
        if line.startswith("    ") and (indented or not before.strip() or before.startswith("#")):
            indented.append(line[4:])
            continue
        if indented and line.strip():
            shell(indented)
            indented = []
        fence = re.match(r" *(```+)(\w*)", line)
        if fence:
            inside: list[str] = []
            for inner in lines:
                if inner.lstrip().startswith(fence[1]):
                    break
                inside.append(inner)
            if fence[2] in TEXTS:
                blocks.append((fence[2], "\n".join([*inside, ""])))
            else:
                shell(inside)
            _take_spans(prose, commands)
        else:
            prose.append(line)
        before = line
    shell(indented)
    _take_spans(prose, commands)
    return Page(tuple(commands), tuple(blocks), tuple(strangers))


def _take_spans(prose: list[str], commands: list[str]) -> None:
    """Put the commands in the text so far to the others, and the text away."""
    for paragraph in "\n".join(prose).split("\n\n"):
        for span in re.findall(r"`([^`]+)`", paragraph):
            command = normal(span)
            if " " in command and begins_with_a_program(command):
                commands.append(command)
    prose.clear()


def begins_with_a_program(command: str) -> bool:
    first = command.split(" ")[0]
    return first in PROGRAMS or PROGRAM.fullmatch(first) is not None


def normal(line: str) -> str:
    """Return a line as it is typed: without a comment, on one line, with single spaces."""
    return " ".join(re.sub(r"\s#\s.*", "", line).split())


def commands() -> dict[str, set[str]]:
    """Return the pages that show a command, by command."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for command in read(page).commands:
            found.setdefault(command, set()).add(page.name)
    return found

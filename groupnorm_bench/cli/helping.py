"""`--help`: options in groups, choices and defaults shown, nothing cut off; typos understood."""

from __future__ import annotations

import difflib
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.fields import SETTINGS
from groupnorm_bench.wording import printable

_TRAINING = "What to train"
_REST = "Options"
_PANELS = {
    "W&B": ("wandb", "project", "entity", "suite"),
    "Machine": (
        *("device", "precision", "compile", "threads", "workers", "workers_per_device"),
        *("executor", "trial_timeout", "max_failures"),
    ),
    "Where": ("out", "data_dir", "page", "figures"),
    "Output": ("as_json", "quiet", "output", "help", "plot", "open_it", "explain", "runs_csv"),
    _TRAINING: (*SETTINGS, "trial", "config_file", "assignments"),
}
"""Which option stands under which heading; a command's own stand under `Options`."""
_ORDER = (_TRAINING, _REST, "Where", "W&B", "Machine", "Output")
_FEW = 8
"""So few options need no headings."""
_NAMES = 26
"""Columns of an option's name; a longer one has a line of its own."""

_COMMANDS = {
    "Begin": ("quick", "train", "sweep", "init", "power"),
    "Read": ("compare", "report", "show", "status"),
    "W&B": ("agent", "sync", "dashboard", "publish"),
    "This machine": ("norms", "model", "data", "bench", "doctor", "pack", "unpack"),
}
"""In the order of `gnbench --help`; others come under `More`."""

_WORDS = {"int": "N", "float": "NUMBER", "path": "PATH", "file": "FILE", "Path": "PATH"}
"""How a value is called whose option has no better word for it."""


class HelpfulCommand(TyperCommand):
    """A command whose help is in groups, and which takes empty text for nothing that was meant."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not ctx.resilient_parsing:
            _refuse_empty_text(self, args)
            _tell_of_second_values(self, args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        _write_options(self, ctx, formatter)


def _refuse_empty_text(command: TyperCommand, typed: Sequence[str]) -> None:
    """Refuse empty text, as of `--out "$UNSET"`: a path would be the folder here, a number unset.

    Raises:
        ConfigError: an argument, or the value of an option, is the empty text.
    """
    takes_value = {
        name
        for param in command.params
        if isinstance(param, TyperOption) and not param.is_flag
        for name in param.opts
    }
    for before, word in zip(["", *typed], typed, strict=False):
        name = word[:-1] if word.endswith("=") else before if word == "" else None
        if name in takes_value or word == "":
            what = name if name in takes_value else "an argument"
            raise ConfigError(f"{what} is empty text; leave it out, or give a value")


def _tell_of_second_values(command: TyperCommand, typed: Sequence[str]) -> None:
    """Say that the last value wins where an option is typed twice, unless `--quiet` is typed."""
    options = {
        name: param
        for param in command.params
        if isinstance(param, TyperOption) and not param.is_flag and not param.multiple
        for name in param.opts
    }
    given: dict[str | None, str] = {}
    lines = []
    words = iter(typed)
    for word in words:
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name not in options:
            continue
        value = value if equals else next(words, "")
        before = given.get(options[name].name, value)
        if before != value:
            lines.append(f"{name} {before} gives way to {value}, which is typed after it")
        given[options[name].name] = value
    if lines and not {"-q", "--quiet"} & set(typed):
        typer.echo("\n".join(printable(line, limit=300) for line in lines), err=True)


class HelpfulGroup(TyperGroup):
    """A group of commands, told in groups as well."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        _write_options(self, ctx, formatter)
        shown = {name: one for name, one in self.commands.items() if not one.hidden}
        width = max(map(len, shown))
        sections = _COMMANDS if ctx.parent is None else {}
        placed = {name for names in sections.values() for name in names}
        rest = tuple(name for name in shown if name not in placed)
        for title, names in (sections | {"More" if sections else "Commands": rest}).items():
            rows = [
                (f"{name:<{width}}", _first_paragraph(shown[name].help or ""))
                for name in names
                if name in shown
            ]
            if rows:
                _write(formatter, title, rows)


class App(typer.Typer):
    """A Typer app whose commands have the help of this module, also under `-h`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            cls=HelpfulGroup,
            rich_markup_mode=None,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
            **settings,
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a command, as Typer does."""
        return super().command(name, **{"cls": HelpfulCommand} | settings)


def _write_options(command: Any, ctx: typer.Context, formatter: Any) -> None:
    arguments: list[tuple[str, str]] = []
    panels: dict[str, list[tuple[str, str]]] = {title: [] for title in _ORDER}
    for param in command.get_params(ctx):
        if getattr(param, "hidden", False):
            continue
        if isinstance(param, TyperArgument):
            arguments.append((_argument_name(param), _told(param, ctx)))
            continue
        panels[_panel_of(param)].append((_option_names(param, ctx), _told(param, ctx)))
    if sum(map(len, panels.values())) <= _FEW:
        panels = {_REST: [row for rows in panels.values() for row in rows]}
    for title, rows in ({"Arguments": arguments} | panels).items():
        if rows:
            _write(formatter, title, rows)


def _panel_of(param: Any) -> str:
    given = getattr(param, "rich_help_panel", None)
    return given or next((t for t, names in _PANELS.items() if param.name in names), _REST)


def _write(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    formatter.write_paragraph()
    formatter.write(typer.style(title, bold=True) + "\n" if _is_drawn() else f"{title}\n")
    names = min(max(len(name) for name, _ in rows), _NAMES)
    for name, told in rows:
        lines = textwrap.wrap(told, formatter.width - names - 4, break_on_hyphens=False) or [""]
        if len(name) > names:
            formatter.write(f"  {name}\n")
            name = ""
        for line in lines:
            formatter.write(f"  {name:<{names}}  {line}".rstrip() + "\n")
            name = ""


def _is_drawn() -> bool:
    return sys.stdout.isatty()


def _argument_name(param: TyperArgument) -> str:
    name = param.metavar or (param.name or "").upper()
    name = name.removesuffix("...").removeprefix("[").removesuffix("]")
    return name + ("..." if param.nargs != 1 else "")


def _option_names(param: Any, ctx: typer.Context) -> str:
    """Return `-q, --quiet` or `--batch-size N`: one spelling where underscores spell another."""
    long = [name for name in param.opts if name.startswith("--")]
    spelled = list(dict.fromkeys(name.replace("_", "-") for name in long))
    short = [name for name in param.opts if not name.startswith("--")]
    names = ", ".join([*short, *spelled])
    if not isinstance(param, TyperOption) or param.is_flag:
        return names
    return f"{names} {param.metavar or _word_for(param, ctx)}"


def _word_for(param: TyperOption, ctx: typer.Context) -> str:
    kind = param.display_type(ctx).strip("<>").removeprefix("list[").removesuffix("]")
    return _WORDS.get(kind.removesuffix(" range"), "TEXT")


def _told(param: Any, ctx: typer.Context) -> str:
    """Return a parameter's help, its default and the variable that gives it."""
    text = param.help or ""
    default = param.show_default if isinstance(param.show_default, str) else None
    is_flag = isinstance(param, TyperOption) and param.is_flag
    if default is None and param.show_default and not is_flag and param.default is not None:
        default = str(param.default)
    extras = [] if default is None else [f"default: {default}"]
    if param.envvar and getattr(param, "show_envvar", False):
        extras.append(f"or {param.envvar}")
    if param.required:
        extras.append("required")
    return f"{text} [{'; '.join(extras)}]" if extras else text


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def meant(error: Exception, typed: Sequence[str]) -> str | None:
    """Return the message for an option that does not exist, with the one that was meant.

    Args:
        error: what the parser raised.
        typed: the words of the command line.

    Returns:
        None where the error is another one.
    """
    name = getattr(error, "option_name", None)
    ctx = getattr(error, "ctx", None)
    if ctx is None or not isinstance(name, str) or not str(error).startswith("No such option"):
        return None
    if not name.startswith("--"):  # `-nrom` is read as -n, -r, ...
        name = next((word for word in typed if word.startswith(name)), name).partition("=")[0]
    known = {option for param in ctx.command.get_params(ctx) for option in param.opts}
    long = [option for option in known if option.startswith("--")]
    close = difflib.get_close_matches("--" + name.lstrip("-"), sorted(long), n=1)
    remedy = f"did you mean {close[0]}?" if close else f"see {ctx.command_path} --help"
    return f"No such option: {name}; {remedy}"

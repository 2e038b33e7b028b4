"""The options that are settings of a run: one for each field of `TrainConfig`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.helping import HelpfulCommand
from groupnorm_bench.datasets import AUTO, DATASETS
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.norms import NORMS
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import SETTINGS
from groupnorm_bench.settings.layers import make_config, names_in, read_settings
from groupnorm_bench.settings.own_config import TRIAL, OwnConfig
from groupnorm_bench.tracking.options import Say

_METAVARS = {"int": "N", "float": "NUMBER", "bool": "true|false", "str": "NAME"}
_COMPLETED: dict[str, completing.Complete] = {
    "norm": completing.norms,
    "model": completing.models,
    "dataset": completing.data_sets,
    "device": completing.words(("auto", "cpu", "cuda", "mps")),
}


class SettingsCommand(HelpfulCommand):
    """A command whose settings that are true or false may stand without a value.

    So W&B's agents write them for `${args_no_boolean_flags}`: `--weight_decay_all` for true, and
    nothing for false.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give `true` to each of them that no value follows."""
        typed: list[str] = []
        for word, following in itertools.zip_longest(args, args[1:]):
            alone = following is None or following.startswith("-")
            typed.append(f"{word}=true" if word in _SWITCHES and alone else word)
        return super().parse_args(ctx, typed)


def with_settings(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command's `config` parameter an option for every setting.

    Options are text, so that files, `--set` and options are judged by the same rules, and each
    also exists with underscores, as a W&B agent's `${args}` spells them. Later wins: defaults,
    `--config FILE`, `--set key=value`, the option itself. A parameter `given` is told which
    settings came from any of them, whatever their value; a parameter `lists` takes the options
    that name several values, as `--norm none,batch`, which are otherwise refused as any value is.
    """
    wants_lists = "lists" in inspect.signature(command).parameters
    wants_given = "given" in inspect.signature(command).parameters

    @functools.wraps(command)
    def wrapper(
        *, config_file: Path | None, assignments: list[str] | None, **options: Any
    ) -> int | None:
        names = [field.name for field in dataclasses.fields(TrainConfig)]
        given = {name: options.pop(name) for name in (TRIAL, *names)}
        if wants_lists:
            options["lists"] = {
                name: [part.strip() for part in value.split(",")]
                for name, value in given.items()
                if value is not None and "," in value
            }
            given = {n: None if n in options["lists"] else value for n, value in given.items()}
        layers = _layers(config_file, assignments or [], given)
        if wants_given:
            options["given"] = names_in(layers)
        return command(config=make_config(layers), **options)

    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.name not in ("config", "given", "lists")
    ]
    parameters = [*_setting_parameters(), *own]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def refuse_data_dir(context: typer.Context, config: TrainConfig) -> None:
    """Refuse a folder of data sets that was typed for a trial, which loads its own data.

    One that the environment names is not meant for this run.

    Raises:
        ConfigError: it was typed.
    """
    source = context.get_parameter_source("data_dir")
    if isinstance(config, OwnConfig) and source is not None and source.name == "COMMANDLINE":
        raise ConfigError(
            f"--data-dir is not read by trial={config.trial!r}, which loads its own data; leave it "
            "out, or have it read a setting, as --set folder=data"
        )


def _is_in_data_dir(name: str) -> bool:
    return name == AUTO or (name in DATASETS and DATASETS[name].torchvision is not None)


def note_data_dir(context: typer.Context, datasets: Iterable[str], note: Say) -> None:
    """Say that a typed folder of data sets does nothing where none of the data lies in one."""
    source = context.get_parameter_source("data_dir")
    names = list(datasets)
    if source is None or source.name != "COMMANDLINE" or any(map(_is_in_data_dir, names)):
        return
    verb = "is" if len(names) == 1 else "are"
    note(f"--data-dir is not read: {', '.join(names)} {verb} not kept there")


def _spellings(name: str) -> tuple[str, ...]:
    """Return the options that a setting is given by."""
    names = (SETTINGS[name].alias, name.replace("_", "-"), name)
    return tuple(dict.fromkeys(f"--{spelling}" for spelling in names if spelling is not None))


_SWITCHES = frozenset(
    spelling
    for field in dataclasses.fields(TrainConfig)
    if isinstance(field.default, bool)
    for spelling in _spellings(field.name)
)


def _setting_parameters() -> list[inspect.Parameter]:
    parameters = []
    defaults = TrainConfig()
    for field in dataclasses.fields(TrainConfig):
        name = field.name
        default = getattr(defaults, name)
        told = field.metadata["help"]
        if name == "norm":
            told += f" One of {', '.join(NORMS)}."
        unsaid = [choice for choice in SETTINGS[name].choices if choice not in told]
        option = typer.Option(
            *_spellings(name),
            help=f"{told} One of {', '.join(SETTINGS[name].choices)}." if unsaid else told,
            metavar=_metavar(field.type),
            show_default=False if default is None else str(default).lower(),
            autocompletion=_COMPLETED.get(name) or completing.words(SETTINGS[name].choices),
        )
        parameters.append(_keyword(name, Annotated[str | None, option], None))
    trial = typer.Option(
        f"--{TRIAL}",
        help="A training function of your own, package.module:train; settings may have any names.",
        metavar="NAME",
        show_default=False,
    )
    parameters.append(_keyword(TRIAL, Annotated[str | None, trial], None))
    config_file = typer.Option(
        "--config",
        help="YAML file of settings.",
        metavar="FILE",
        show_default=False,
        autocompletion=completing.yaml_files,
    )
    assignment = typer.Option(
        "--set", help="key=value, as often as you like.", show_default=False, metavar="KEY=VALUE"
    )
    parameters.append(_keyword("config_file", Annotated[Path | None, config_file], None))
    parameters.append(_keyword("assignments", Annotated[list[str] | None, assignment], None))
    return parameters


def _metavar(annotation: Any) -> str:
    kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return _METAVARS.get(kind.partition(" |")[0], "VALUE")


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _layers(
    config_file: Path | None, assignments: list[str], options: dict[str, str | None]
) -> list[dict[str, Any]]:
    """Collect settings from all sources; the config is built once, so that order is free."""
    layers: list[dict[str, Any]] = []
    if config_file is not None:
        layers.append(read_settings(config_file, options[TRIAL]))
    pairs: dict[str, str] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text!r} is not key=value; write --set lr=0.01")
        if pairs.setdefault(key, value) != value:
            raise ConfigError(f"--set {key}={pairs[key]} and {key}={value}; leave one of them out")
    layers.append(pairs)
    layers.append({name: value for name, value in options.items() if value is not None})
    return layers

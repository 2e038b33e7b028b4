"""A network under some arms for a person: its norm layers under each, within 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from groupnorm_bench.bench.arms import ArmSurvey
from groupnorm_bench.models.sites import NormUse
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.wording import count

_NAME, _CALLS = 28, 6
"""Columns of a layer's name, and those that it yields where calls are told for each."""
_BRIEF = {"running statistics": "stats"}


def lines_of(arms: list[ArmSurvey]) -> Iterator[str]:
    """Yield what `gnbench model` prints, the command to type next last."""
    first = arms[0]
    shape = "x".join(map(str, first.image_shape))
    classes = count(first.survey.output_shape[0], "class").replace("classs", "classes")
    yield first.config.model
    yield (
        f"images {shape}, {classes}, batch size {first.config.batch_size}, "
        f"{count(len(first.survey.uses), 'norm layer')}"
    )
    for note in dict.fromkeys(note for arm in arms for note in arm.notes):
        yield note.removeprefix(f"{first.config.model}: ")
    for arm in arms:
        yield ""
        yield from _sites(arm)
    yield ""
    yield f"{'arm':<24}{'parameters':>13}{'multiply-adds':>15}{'ms a step':>11}{'images/s':>11}"
    for arm in arms:
        yield _size(arm)
    yield ""
    yield f"train it: {_command(arms[-1].config)}"


def _sites(arm: ArmSurvey) -> Iterator[str]:
    config, uses = arm.config, arm.survey.uses
    told = [config.arm]
    if config.norm_spec.reads_groups:
        size, groups = config.group_size, config.num_groups
        told.append(f"{groups} groups asked" if size is None else f"groups of {size} asked")
    once = all(use.calls == 1 for use in uses)
    if once:
        told.append("each layer called once a pass")
    yield ": ".join([told[0], ", ".join(told[1:])]) if told[1:] else told[0]
    width = _NAME if once else _NAME - _CALLS
    calls = "" if once else f"{'calls':>{_CALLS}}"
    yield f" {'norm layer':<{width}} channels     map groups elements{calls} carried"
    for use in uses:
        pixels = "x".join(map(str, use.map_size)) or "-"
        groups, elements = (_number(n) for n in (use.num_groups, use.elements))
        calls = "" if once else f"{use.calls:>{_CALLS}}"
        yield (
            f" {_fitted(use.site.name, width):<{width}}{use.site.num_channels:>9,}{pixels:>8}"
            f"{groups:>7}{elements:>9}{calls} {_carried(use)}"
        )


def _carried(use: NormUse) -> str:
    """Say what became of the layer that stood there."""
    site = use.site
    if site.kept:
        return "kept"
    if site.carried:
        return "+".join(_BRIEF.get(word, word) for word in site.carried)
    return "-" if site.was == site.became else "nothing"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _fitted(name: str, width: int) -> str:
    """Return the end of a name that is too long: its beginning is that of many."""
    return name if len(name) <= width else "..." + name[3 - width :]


def _size(arm: ArmSurvey) -> str:
    step = arm.milliseconds
    speed = ("-", "-") if step is None else (f"{step:,.1f}", _rate(arm.config.batch_size, step))
    return (
        f"{arm.config.arm[:23]:<24}{arm.survey.parameters:>13,}"
        f"{_operations(arm.survey.multiply_adds):>15}{speed[0]:>11}{speed[1]:>11}"
    )


def _rate(images: int, milliseconds: float) -> str:
    return f"{1_000 * images / milliseconds:,.0f}"


def _operations(number: int) -> str:
    return f"{number / 1e6:,.1f} million"


def _command(config: TrainConfig) -> str:
    words = ["gnbench", "train", "--model", config.model, "--norm", config.norm]
    if config.norm_spec.reads_groups:
        name = "groups" if config.group_size is None else "group-size"
        value = config.num_groups if config.group_size is None else config.group_size
        words += [f"--{name}", str(value)]
    if config.dataset != "auto":
        words += ["--dataset", config.dataset]
    return shlex.join(words)

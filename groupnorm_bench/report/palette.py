"""One colour, marker and dash per arm, the same in every figure and in every report.

Hues are Okabe and Ito's where they read on both a white and a dark page (contrast about 3:1 or
more on both: `tests/test_palette.py` holds it); arms of one norm with 1 to 32 groups, or ghosts
of 2 to 64 images, walk a ramp.
Colour is never the only sign: the marker tells an arm too, and every figure has its numbers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from groupnorm_bench.compare.order import num_groups_of
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.settings.config import TrainConfig

LIGHT_PAGE, DARK_PAGE = "#ffffff", "#14171c"

_PLAIN = {
    "none": ("#808080", "x"),
    "batch": ("#d55e00", "square"),
    "layer": ("#cc79a7", "triangle-up"),
    "instance": ("#b8860b", "triangle-down"),
    "batch-renorm": ("#a0522d", "square-open"),
    "frn": ("#7b5cd6", "triangle-up-open"),
}
_RAMPS = {
    "group": ("#36a67f", "#00a096", "#0096a6", "#0085ae", "#2772af", "#465ea7"),
    "group-ws": ("#a39230", "#95922e", "#7f8b2a", "#698329", "#527b2a", "#3a732c"),
    "rms-group": ("#d771a4", "#c668a5", "#b45fa5", "#a157a4", "#8e4fa1", "#814ea4"),
    "evonorm-s0": ("#bd885c", "#b87e57", "#af7252", "#a5654d", "#9a5a48", "#8f4e44"),
    "ghost-batch": ("#e0685f", "#d8535e", "#cf415d", "#c22e5c", "#b53a6b", "#a8487a"),
}
_RAMP_MARKERS = ("circle", "diamond", "cross", "star", "triangle-left", "triangle-right")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_OPEN_MARKERS = ("circle-open", "diamond-open", "square-open", "triangle-up-open")
_OTHERS = ("#7b5cd6", "#a0522d", "#5b7f95", "#c22e5c", "#6b8e23")

GLYPHS = {
    "circle": "●",
    "circle-open": "○",
    "cross": "✚",
    "diamond": "◆",
    "diamond-open": "◇",
    "square": "■",
    "square-open": "□",
    "star": "★",
    "triangle-down": "▼",
    "triangle-left": "◀",
    "triangle-right": "▶",
    "triangle-up": "▲",
    "triangle-up-open": "△",
    "x": "✖",
}
"""A character for each marker, for legends in text."""


@dataclass(frozen=True, slots=True)
class Style:
    """How an arm looks; marker and dash in Plotly's words."""

    color: str
    marker: str
    dash: str = "solid"

    @property
    def glyph(self) -> str:
        """The marker as a character; the selector after it keeps phones from drawing an emoji."""
        return GLYPHS[self.marker] + "\ufe0e"


def style_of(config: TrainConfig) -> Style:
    """Return the style of a config's arm; it depends on nothing else."""
    if config.norm in _RAMPS:
        step = _ramp_step(config)
        return Style(_RAMPS[config.norm][step], _RAMP_MARKERS[step], _DASHES[step])
    if config.norm in _PLAIN:
        return Style(*_PLAIN[config.norm])
    digest = zlib.crc32(config.arm.encode())
    color = _OTHERS[digest % len(_OTHERS)]
    return Style(color, "circle-open", _DASHES[digest // 8 % len(_DASHES)])


def style_of_run(row: RunRow) -> Style:
    """Return the style of a run's arm; arms that are no norms take theirs by their places."""
    if not row.armed:
        return style_of(row.cell_config)
    if row.arm in _PLAIN or row.arm in _RAMPS:
        return style_of(TrainConfig(norm=row.arm))
    at = row.position
    marker = _OPEN_MARKERS[at % len(_OPEN_MARKERS)]
    return Style(_OTHERS[at % len(_OTHERS)], marker, _DASHES[at % len(_DASHES)])


def styles_of(rows: Iterable[RunRow]) -> dict[str, Style]:
    """Return the style of each arm, in the order in which they come."""
    first: dict[str, RunRow] = {}
    for row in rows:
        first.setdefault(row.arm, row)
    return {arm: style_of_run(row) for arm, row in first.items()}


def _ramp_step(config: TrainConfig) -> int:
    if config.norm_spec.reads_ghost_size:
        step = round(math.log2(config.ghost_size)) - 1  # 2 images and more
    else:
        step = round(math.log2(num_groups_of(config) or 1))
    return max(0, min(step, len(_RAMP_MARKERS) - 1))

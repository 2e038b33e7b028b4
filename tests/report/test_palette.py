"""Arms keep one colour; colours read on both pages and for the colour-blind."""

import itertools

import numpy as np
import pytest

from groupnorm_bench.norms import NORMS
from groupnorm_bench.report.draw_paper import _DASHES, _MARKERS
from groupnorm_bench.report.palette import DARK_PAGE, GLYPHS, LIGHT_PAGE, Style, style_of
from groupnorm_bench.settings.config import TrainConfig

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
COLOR_BLINDNESS = {
    "none": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def every_style() -> dict[str, Style]:
    configs = []
    for name, spec in NORMS.items():
        counts = (1, 2, 4, 8, 16, 32) if spec.reads_groups else (8,)
        sizes = (2, 4, 8, 16, 32, 64) if spec.reads_ghost_size else (16,)
        configs += [
            TrainConfig(norm=name, num_groups=count, ghost_size=size)
            for count in counts
            for size in sizes
        ]
    return {config.arm: style_of(config) for config in configs}


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    dark, light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (light + 0.05) / (dark + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    opponents = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return opponents @ np.cbrt(np.clip(cones @ rgb, 0, None))


@pytest.mark.parametrize(("arm", "style"), every_style().items())
def test_a_color_reads_on_a_white_and_on_a_dark_page(arm, style):
    assert contrast(style.color, LIGHT_PAGE) >= 2.8
    assert contrast(style.color, DARK_PAGE) >= 2.8


@pytest.mark.parametrize("sight", COLOR_BLINDNESS)
def test_the_arms_people_compare_first_differ_in_any_sight(sight):
    arms = ["none", "batch", "layer", "instance", "group-g1", "group-g8", "group-g32"]
    styles = every_style()
    seen = {
        arm: oklab(np.asarray(COLOR_BLINDNESS[sight]) @ linear(styles[arm].color)) for arm in arms
    }
    for a, b in itertools.combinations(arms, 2):
        apart = float(np.linalg.norm(seen[a] - seen[b]))
        assert apart > 0.04 or styles[a].marker != styles[b].marker, (a, b, apart)
    assert (
        min(
            float(np.linalg.norm(seen["batch"] - seen[arm]))
            for arm in arms
            if arm.startswith("group")
        )
        > 0.1
    )


def test_no_two_arms_look_alike():
    styles = every_style()
    assert len(set(styles.values())) == len(styles)


def test_group_size_arms_walk_the_same_ramp():
    by_size = style_of(TrainConfig(norm="group", group_size=4))  # 8 groups of 32 channels
    assert by_size == style_of(TrainConfig(norm="group", num_groups=8))


def test_a_norm_of_the_users_own_has_a_style_that_does_not_change():
    config = TrainConfig(norm="some.module:make")
    assert style_of(config) == style_of(config.replace(seed=4, batch_size=2))


def test_every_marker_and_dash_is_known_to_both_drawers():
    import plotly.graph_objects

    for style in [*every_style().values(), style_of(TrainConfig(norm="some.module:make"))]:
        plotly.graph_objects.scatter.Marker(symbol=style.marker)  # raises for an unknown one
        plotly.graph_objects.scatter.Line(dash=style.dash)
        assert style.marker in _MARKERS
        assert style.dash in _DASHES
        assert style.glyph[0] == GLYPHS[style.marker]

"""Activations of a network with many norm layers: a few of them, from the first to the last."""

from groupnorm_bench.models import MODELS
from groupnorm_bench.report.diagnostics import MAX_LAYERS, activations
from tests.support.run_folders import row_of


def rows_of(model: str):
    rows = [row_of("batch", seed=seed, model=model) for seed in (0, 1)]
    for row in rows:
        for layer in MODELS[model].norm_channels:
            for measured in row.history:
                measured |= {
                    f"norm/{layer}/activation_mean": 0.1,
                    f"norm/{layer}/activation_std": 1.0,
                }
    return rows


def titles(rows) -> list[list[str]]:
    return [[panel.title for panel in view.panels] for view in activations(rows).views]


def test_all_layers_of_a_small_network_are_shown_in_its_order():
    (shown,) = titles(rows_of("cnn"))
    assert shown == [
        f"{layer}: {what}"
        for layer in ("norm1", "norm2")
        for what in ("mean", "standard deviation")
    ]
    assert "are shown" not in activations(rows_of("cnn")).caption


def test_of_many_layers_a_few_are_shown_from_the_first_to_the_last():
    (shown,) = titles(rows_of("resnet20"))
    layers = list(dict.fromkeys(title.partition(":")[0] for title in shown))
    assert len(layers) == MAX_LAYERS
    assert (layers[0], layers[-1]) == ("norm", "stage3.2.norm2")
    order = list(MODELS["resnet20"].norm_channels)
    assert sorted(layers, key=order.index) == layers
    caption = activations(rows_of("resnet20")).caption
    assert caption.endswith("8 of 19 norm layers are shown, from first to last.")


def test_each_network_shows_its_own_layers():
    first, second = titles([*rows_of("cnn"), *rows_of("resnet20")])
    assert {len(first), len(second)} == {4, 2 * MAX_LAYERS}

"""What of a comparison of thousands of contrasts is listed for people, and that it says so."""

from __future__ import annotations

import io

from rich.console import Console

from groupnorm_bench.cli.views.answer import draw_answer
from groupnorm_bench.compare import excerpt as module
from groupnorm_bench.compare.excerpt import MOST_ALIKE, excerpt, first_of
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs
from tests.support.run_folders import row_of

EFFECTS = {1: 0.00001, 2: 0.02, 4: -0.01, 8: 0.003}
"""By batch size: what `none` is better by. The first is undecided."""


def comparison():
    rows = [
        row_of(arm, 0.9 + 0.001 * (seed % 3) + effect, seed=seed, batch_size=2 * size)
        for size, gain in EFFECTS.items()
        for seed in range(8)
        for arm, effect in (("batch", 0), ("none", gain * (1 + 0.1 * (seed % 2))))
    ]
    return compare_runs(RunTable(rows=tuple(rows)))


def test_what_is_no_larger_is_whole():
    whole = comparison()
    assert excerpt(whole, 4) is whole


def test_decided_and_large_contrasts_are_listed_in_their_order_with_their_baselines():
    whole = comparison()
    assert [c.verdict for c in whole.contrasts] == ["undecided", "better", "worse", "better"]
    part = excerpt(whole, 2)
    assert [c.label for c in part.contrasts] == ["batch_size=4", "batch_size=8"]
    assert [(c.setting["batch_size"], c.arm) for c in part.cells] == [
        *((4, "none"), (4, "batch"), (8, "none"), (8, "batch")),
    ]
    assert part.notes == (
        *whole.notes,
        "listed: 4 cells of 8, those of the 2 contrasts of 4 that tell most (asked for, "
        "decided, large); gnbench compare --format csv has all",
    )


def test_of_many_seeds_without_a_partner_the_first_are_named():
    rows = [row_of("batch", 0.9, seed=seed) for seed in (0, 1)]
    rows += [row_of("none", 0.8, seed=seed) for seed in range(1_500)]
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    (note,) = contrast.notes
    assert note.startswith("seeds 2, 3, ")
    assert note.endswith("31 and 1,468 more of none have no partner in batch: left out")


def test_cells_without_a_contrast_are_listed_too():
    rows = [row_of("none", 0.9, seed=0, batch_size=size) for size in (2, 4, 8, 16)]
    part = excerpt(compare_runs(RunTable(rows=tuple(rows))), 1)
    assert len(part.cells) == 1
    assert "listed: 1 cell of 4" in part.notes[-1]


def test_a_terminal_shows_the_listed_ones_and_counts_all(monkeypatch):
    monkeypatch.setattr(module, "MOST_READ", 2)
    console = Console(width=200, file=io.StringIO())
    console.print(draw_answer(comparison()))
    text = console.file.getvalue()
    assert "decided: 3 of 4 contrasts" in text
    assert text.count("\n") < 30
    assert "note: listed: 4 cells of 8" in text
    assert text.count("baseline") == 2


def test_notes_that_say_the_same_of_each_cell_are_counted_beyond_a_few():
    rows = [row_of("batch", 0.9, seed=0, batch_size=2)]
    rows += [row_of("none", 0.9, seed=0, batch_size=size) for size in range(3, 40)]
    rows += [row_of("none", None, seed=1, batch_size=s, status="failed") for s in range(3, 40)]
    notes = compare_runs(RunTable(rows=tuple(rows))).notes
    assert sum("has no batch to compare with" in note for note in notes) == MOST_ALIKE
    assert "and 17 more cells without their baseline" in notes
    assert sum("1 run failed" in note for note in notes) == MOST_ALIKE
    assert "and 17 more cells with such runs" in notes
    assert first_of(["a"] * (MOST_ALIKE + 1), "b") == ["a"] * (MOST_ALIKE + 1)

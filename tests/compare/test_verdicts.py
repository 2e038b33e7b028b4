"""Verdicts: hand-worked cases, what counts as a pair, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from groupnorm_bench.compare import judge
from groupnorm_bench.compare.choice import choose
from groupnorm_bench.compare.claims import answer_claim
from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.compare.question import Family, Question
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.errors import CompareError
from tests.support.run_folders import (
    arms,
    config_of,
    hits_of,
    make_run,
    make_runs,
    result_of,
    row_of,
    table_of,
    write_run,
)

BASE = np.array([0.970, 0.968, 0.973, 0.971, 0.969, 0.972, 0.970, 0.974])


def contrast_of(differences, base=None, **options):
    """Return the contrast of group-g8 with batch, given differences in points."""
    base = BASE[: len(differences)] if base is None else base
    table = table_of({"batch": base, "group-g8": base + np.array(differences) / 100})
    (contrast,) = compare_runs(table, **options).contrasts
    return contrast


# differences in points, margin, then by hand: sign-flip p, verdict. The bundled test set has 1,000
# images, so the least sd is half of 0.1 points
HAND_WORKED = [
    ([1, 1, 1, 1, 1, 1, 1, 1], None, 2 / 256, "better"),
    ([-1, -1, -1, -1, -1, -1, -1, -1], None, 2 / 256, "worse"),
    ([0, 0, 0, 0, 0, 0], 0.1, 1.0, "equal"),
    ([0, 0, 0, 0, 0, 0], 0.09, 1.0, "undecided"),  # half an image off each, +-0.098
    ([0, 0, 0, 0, 0], 1.0, 1.0, "undecided"),  # five pairs show no equality
    ([0, 0, 0, 0, 0, 0], None, 1.0, "undecided"),  # without a margin nothing is equal
    ([0.5, 0.5], 1.0, 0.5, "undecided"),
    ([0.5, 0.4, 0.6, 0.5, 0.4], None, 2 / 32, "undecided"),  # the first look is at six
    ([0.5, 0.4, 0.6, 0.5, 0.4, 0.5], None, 2 / 64, "better"),
    ([0.5, 0.4, 0.6, 0.5, 0.4, 0.5], 1.0, 2 / 64, "better"),  # though inside the margin
    ([0.5, 0.4, 0.6, 0.5, 0.4, -0.1], None, 4 / 64, "undecided"),
    ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 5], None, 2 / 256, "better"),  # decided at the seventh
    ([1, -1], None, 1.0, "undecided"),
    ([1], None, 1.0, "undecided"),
]


@pytest.mark.parametrize(("differences", "margin", "p", "verdict"), HAND_WORKED)
def test_hand_worked_verdicts(differences, margin, p, verdict):
    contrast = contrast_of(differences, margin=margin)
    n = len(differences)
    assert contrast.n_pairs == contrast.n_prefix == n
    assert contrast.mean_difference == pytest.approx(np.mean(differences))
    assert contrast.p == pytest.approx(p)
    assert contrast.verdict == verdict
    if n == 1:
        assert contrast.ci_low is contrast.anytime_low is contrast.t_p is None
        return
    error = max(np.std(differences, ddof=1), 0.05) / math.sqrt(n)
    half = scipy.stats.t.ppf(0.975, n - 1) * error
    mean = np.mean(differences)
    assert (contrast.ci_low, contrast.ci_high) == pytest.approx((mean - half, mean + half))
    assert contrast.t_p == pytest.approx(2 * scipy.stats.t.sf(abs(mean) / error, n - 1))


def test_a_decided_contrast_stays_decided_and_says_so_by_its_interval():
    base = np.full(12, 0.97)
    grows = [0.5, 0.4, 0.6, 0.5, 0.4, 0.5, -2.0, 3.0, -1.0, 2.0, -3.0, 1.5]
    looks = [contrast_of(grows[:n], base[:n]) for n in range(6, 13)]
    assert {look.verdict for look in looks} == {"better"}
    assert all(look.anytime_low > 0 for look in looks)
    assert looks[-1].e_value < 1 < 20 < 1 / looks[-1].anytime_p


def test_looks_that_contradict_each_other_decide_nothing_and_say_so():
    base = np.full(30, 0.95)
    drift = [1.0, 1.1, 0.9, 1.0, 1.1, 0.9] + [-1.0, -1.1, -0.9] * 8
    contrast = contrast_of(drift, base)
    assert contrast.anytime_low > contrast.anytime_high
    assert contrast.verdict == "undecided"
    assert "its earlier and its later seeds contradict each other" in contrast.sentence


def test_plain_differences_of_six_seeds_in_a_family_of_six_are_decided():
    rng = np.random.default_rng(0)
    base = np.round(0.97 + 0.003 * rng.normal(size=6), 4)
    for seed in range(20):
        draws = np.random.default_rng(seed).normal(2.55, 0.1, (6, 6))
        arms = {"batch": base} | {
            f"group-g{2**k}": base + np.round(draws[k], 2) / 100 for k in range(6)
        }
        contrasts = compare_runs(table_of(arms, dataset="mnist")).contrasts
        assert [c.verdict for c in contrasts] == ["better"] * 6


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_under_six_pairs_nothing_is_decided_and_what_it_takes_is_said(n):
    contrast = contrast_of([2.0, 2.1, 1.9, 2.0, 2.2][:n])
    assert contrast.verdict == "undecided"
    assert "significant" not in contrast.sentence
    assert contrast.seeds_needed_low == 6 - n
    assert f"{6 - n} more seed" in contrast.sentence
    if n > 2:
        assert "better with a probability of over 99 %" in contrast.sentence


def test_the_planned_rule_takes_its_verdict_from_the_t_test_and_says_so():
    d = [0.3, 0.1, 0.4, 0.0, 0.35, 0.2, 0.15, 0.25]
    anytime, planned = contrast_of(d), contrast_of(d, rule="planned")
    assert (anytime.rule, planned.rule) == ("anytime", "planned")
    assert planned.t_p < anytime.anytime_p
    assert f"8 pairs, p = {planned.t_p:.3f}" in planned.sentence
    assert "anytime p" in anytime.sentence
    assert contrast_of([0.5, 0.4, 0.6, 0.5], rule="planned").verdict == "better"
    assert contrast_of([0.01, -0.01] * 3, margin=0.1, rule="planned").verdict == "equal"
    assert contrast_of([0.01, -0.01] * 2, margin=0.1, rule="planned").verdict == "undecided"


def test_probabilities_of_worse_equal_and_better_are_those_of_the_posterior():
    d = np.array([0.3, 0.1, 0.4, 0.0, 0.35, 0.2])
    contrast = contrast_of(d, margin=0.1)
    t = scipy.stats.t(5, loc=d.mean(), scale=scipy.stats.sem(d))
    assert contrast.probability_worse == pytest.approx(t.cdf(-0.1))
    assert contrast.probability_equal == pytest.approx(t.cdf(0.1) - t.cdf(-0.1))
    assert contrast.probability_better == pytest.approx(t.sf(0.1))


def test_less_loss_is_better():
    table = table_of({"batch": BASE, "group-g8": BASE + 0.01})
    (contrast,) = compare_runs(table, metric="test/loss").contrasts
    assert contrast.probability_better == 1.0
    assert contrast.mean_difference == pytest.approx(-0.01)
    assert (contrast.verdict, contrast.unit) == ("better", "")
    assert contrast.probability_of_improvement == 1.0
    (contrast,) = compare_runs(table, metric="test/loss", baseline="group-g8").contrasts
    assert contrast.verdict == "worse"


def test_pairs_go_by_seed_value_and_not_by_order():
    rows = [row_of("batch", a, seed=s) for s, a in ((3, 0.93), (1, 0.91), (2, 0.92))]
    rows += [row_of("group-g8", a, seed=s) for s, a in ((2, 0.93), (3, 0.94), (1, 0.92))]
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    assert contrast.seeds == (1, 2, 3)
    assert contrast.differences == pytest.approx((1.0, 1.0, 1.0))


def test_a_seed_without_partner_is_left_out_and_said():
    rows = [row_of("batch", 0.9, seed=s) for s in (0, 1, 2, 7)]
    rows += [row_of("group-g8", 0.91, seed=s) for s in (0, 1, 2, 8, 9)]
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    assert contrast.n_pairs == contrast.n_arm == contrast.n_baseline == 3
    assert "seeds 8, 9 of group-g8 have no partner in batch: left out" in contrast.sentence
    assert "seeds 7 of batch have no partner in group-g8: left out" in contrast.sentence


def test_diverged_and_nan_runs_are_left_out_and_said():
    rows = [row_of("batch", 0.9, seed=s) for s in range(4)]
    rows[1] = row_of("batch", None, seed=1, status="diverged")
    rows[2] = row_of("batch", float("nan"), seed=2)
    rows += [row_of("group-g8", 0.91, seed=s) for s in range(4)]
    comparison = compare_runs(RunTable(rows=tuple(rows)))
    (contrast,) = comparison.contrasts
    assert contrast.seeds == (0, 3)
    assert "1 run of batch diverged" in contrast.sentence
    assert (contrast.lost_arm, contrast.lost_baseline, contrast.n_settled) == (0, 2, 4)
    assert "batch: 1 run diverged" in comparison.notes
    assert "batch: 1 run without the metric" in comparison.notes


def test_without_a_common_seed_the_test_is_welchs():
    a, b = [0.95, 0.952, 0.951, 0.953], [0.90, 0.904, 0.902]
    rows = [row_of("group-g8", x, seed=s) for s, x in enumerate(a)]
    rows += [row_of("batch", x, seed=10 + s) for s, x in enumerate(b)]
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    expected = scipy.stats.ttest_ind(np.array(a) * 100, np.array(b) * 100, equal_var=False)
    assert contrast.p == pytest.approx(expected.pvalue)
    assert (contrast.ci_low, contrast.ci_high) == pytest.approx(
        tuple(expected.confidence_interval())
    )
    assert (contrast.n_pairs, contrast.n_arm, contrast.n_baseline) == (0, 4, 3)
    assert contrast.verdict == "undecided"
    assert "no seed is in both arms" in contrast.sentence
    assert "unpaired runs decide only by --planned" in contrast.sentence
    (planned,) = compare_runs(RunTable(rows=tuple(rows)), rule="planned").contrasts
    assert planned.verdict == "better"


def test_one_run_each_without_a_pair_is_undecided():
    rows = (row_of("batch", 0.9, seed=0), row_of("group-g8", 0.95, seed=1))
    (contrast,) = compare_runs(RunTable(rows=rows)).contrasts
    assert (contrast.verdict, contrast.p, contrast.seeds_needed_low) == ("undecided", None, 6)


def test_holm_runs_over_the_whole_family():
    d = np.array([0.5, 0.4, 0.6, 0.5, 0.4, 0.5, 0.3, 0.2]) / 100
    rows = [
        row_of(arm, value, seed=seed, batch_size=size)
        for size in (2, 4, 8)
        for arm, values in {"batch": BASE, "group-g8": BASE + d}.items()
        for seed, value in enumerate(values)
    ]
    contrasts = compare_runs(RunTable(rows=tuple(rows))).contrasts
    assert [c.setting["batch_size"] for c in contrasts] == [2, 4, 8]
    assert [c.p_adjusted for c in contrasts] == pytest.approx([6 / 256] * 3)
    assert [c.verdict for c in contrasts] == ["better"] * 3
    assert all("after Holm over 3 contrasts" in c.sentence for c in contrasts)


def family_of(arms, rows):
    runs = frozenset(row.name for row in rows if row.arm in arms)
    return Family(name="norm", runs=runs, contrasts=len(arms) - 1)


BORDERLINE = np.array([0.5, 0.4, 0.6, 0.5, 0.4, 0.1]) / 100


def test_arms_that_the_question_does_not_name_change_no_verdict():
    asked = {"batch": BASE[:6], "group-g8": BASE[:6] + BORDERLINE}
    others = {"none": BASE[:6], "layer": BASE[:6] + 0.001, "instance": BASE[:6] - 0.002}
    alone = compare_runs(table_of(asked)).contrasts[0]
    assert alone.verdict == "better"
    table = table_of(asked | others)
    by_arms = compare_runs(table, Question(arms=("group-g8",)))
    by_sweep = compare_runs(table, families=[family_of(list(asked), table.rows)])
    for comparison in (by_arms, by_sweep):
        contrast = next(c for c in comparison.contrasts if c.arm == "group-g8")
        assert contrast.family_size == 1
        same = ("verdict", "anytime_p_adjusted", "p_adjusted", "t_p_adjusted", "sentence")
        assert all(getattr(contrast, name) == getattr(alone, name) for name in same)
        rest = [c for c in comparison.contrasts if c.arm != "group-g8"]
        assert {(c.family, c.family_size) for c in rest} == {("not asked", 3)}
        assert any("3 contrasts of 4 the question does not name" in n for n in comparison.notes)
    everything = compare_runs(table)
    assert {c.family_size for c in everything.contrasts} == {4}


def test_contrasts_of_a_sweep_that_have_not_run_yet_count_in_its_family():
    table = table_of({"batch": BASE[:6], "group-g8": BASE[:6] + BORDERLINE})
    family = dataclasses.replace(family_of(["batch", "group-g8"], table.rows), contrasts=9)
    (contrast,) = compare_runs(table, families=[family]).contrasts
    assert contrast.family_size == 9
    assert contrast.anytime_p_adjusted == pytest.approx(9 * contrast.anytime_p)


# status of a third of the runs, by arm; then the verdict and what is said of it
SURVIVORS = [
    ("diverged", "group-g8", "undecided", "group-g8 would win, but it lost 6 of 12 runs"),
    ("pruned", "group-g8", "undecided", "group-g8 would win, but it lost 6 of 12 runs"),
    ("diverged", "batch", "better", "6 runs of batch diverged"),
]


@pytest.mark.parametrize(("status", "loser", "verdict", "said"), SURVIVORS)
def test_survivors_never_win(status, loser, verdict, said):
    rows = []
    for seed in range(12):
        for arm, gain in (("batch", 0.0), ("group-g8", 0.01)):
            lost = arm == loser and seed % 2
            accuracy = None if lost else 0.96 + 0.0001 * seed + gain
            rows.append(row_of(arm, accuracy, seed=seed, status=status if lost else "finished"))
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    assert contrast.n_pairs == 6
    assert contrast.verdict == verdict
    assert said in contrast.sentence
    lost = {"group-g8": contrast.lost_arm, "batch": contrast.lost_baseline}
    assert lost[loser] == 6
    assert contrast.n_settled == 12
    # a second way: half the pairs at chance, which is 10 % on ten digits
    half = np.mean([10.0 - (96 + 0.01 * seed) for seed in range(1, 12, 2)])
    expected = (half + 1.0) / 2 if loser == "group-g8" else (1.0 - half + 1.0) / 2
    assert contrast.chance_difference == pytest.approx(expected)


def test_a_winner_that_lost_as_many_must_win_with_its_lost_runs_at_chance_too():
    rows = []
    for seed in range(16):
        for arm, gain in (("batch", 0.0), ("group-g8", 0.01)):
            lost = seed in ((3, 9) if arm == "batch" else (5, 11))
            accuracy = None if lost else 0.96 + gain
            rows.append(row_of(arm, accuracy, seed=seed, status="diverged" if lost else "finished"))
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    assert contrast.anytime_p < 0.05 < contrast.chance_p
    assert contrast.verdict == "undecided"
    assert "not with its lost runs at chance" in contrast.sentence


def test_equality_of_arms_of_which_one_lost_runs_is_none():
    rows = [row_of("batch", 0.96, seed=s) for s in range(8)]
    rows += [row_of("group-g8", 0.96, seed=s) for s in range(7)]
    rows.append(row_of("group-g8", None, seed=7, status="diverged"))
    (contrast,) = compare_runs(RunTable(rows=tuple(rows)), margin=0.5).contrasts
    assert contrast.verdict == "undecided"
    assert "group-g8 lost 1 of 8 runs and batch 0" in contrast.sentence


@pytest.mark.parametrize(
    ("status", "counted", "said"),
    [
        ("diverged", 9, None),
        ("failed", 3, "seed 3 of group-g8 failed: 3 of 9 pairs count"),
        ("interrupted", 3, "seed 3 of group-g8 is interrupted: 3 of 9 pairs count"),
    ],
)
def test_only_what_is_settled_in_the_order_of_seeds_counts_at_any_time(status, counted, said):
    rows = [row_of("batch", 0.96 + 0.001 * (s % 3), seed=s) for s in range(10)]
    rows += [row_of("group-g8", 0.97, seed=s) for s in range(10) if s != 3]
    rows.append(row_of("group-g8", None, seed=3, status=status))
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    assert (contrast.n_prefix, contrast.n_pairs) == (counted, 9)
    assert (said is None) or (said in contrast.sentence)


def test_further_seeds_of_the_baseline_do_not_end_what_counts():
    rows = [row_of("batch", 0.96, seed=s) for s in range(10)]
    rows += [row_of("group-g8", 0.97, seed=s) for s in range(7)]
    (contrast,) = compare_runs(RunTable(rows=tuple(rows))).contrasts
    assert (contrast.n_prefix, contrast.verdict) == (7, "better")


def by_batch_size(gains, seeds=8, noise=0.004):
    """Return runs of two arms whose difference at each batch size is a gain plus noise."""
    rng = np.random.default_rng(5)
    return RunTable(
        rows=tuple(
            row_of(
                arm,
                float(np.round(0.95 + gain * (arm != "batch") + noise * rng.normal(), 4)),
                seed=seed,
                batch_size=size,
                dataset="mnist",
            )
            for size, gain in gains.items()
            for arm in ("batch", "group-g8")
            for seed in range(seeds)
        )
    )


def test_the_mean_over_settings_is_one_contrast_by_seed():
    table = by_batch_size({8: 0.004, 32: 0.005, 128: 0.006})
    each = compare_runs(table).contrasts
    comparison = compare_runs(table, decide="mean")
    over = comparison.contrasts[0]
    by_seed = np.mean([c.differences for c in each], axis=0)
    assert over.label == "mean over batch_size (3 settings)"
    assert over.differences == pytest.approx(tuple(by_seed))
    assert (over.family, over.family_size, over.n_pairs) == ("", 1, 8)
    assert over.t_p == pytest.approx(scipy.stats.ttest_1samp(by_seed, 0).pvalue)
    assert "batch_size" not in over.setting
    assert {c.family for c in comparison.contrasts[1:]} == {"not asked"}


def test_the_slope_is_that_of_least_squares_per_doubling():
    table = by_batch_size({8: 0.012, 32: 0.006, 128: 0.0})
    each = compare_runs(table).contrasts
    over = compare_runs(table, decide="slope").contrasts[0]
    table_of_differences = np.array([c.differences for c in each])
    slopes = np.polyfit([3, 5, 7], table_of_differences, 1)[0]
    assert over.label == "slope per doubling of batch_size (3 settings)"
    assert over.differences == pytest.approx(tuple(slopes))
    assert over.verdict == "worse"  # the advantage shrinks as batches grow
    assert over.mean_difference == pytest.approx(-0.3, abs=0.1)


def test_a_slope_over_what_is_no_number_is_refused():
    rows = [
        row_of(arm, 0.95, seed=s, optimizer=optimizer)
        for arm in ("batch", "group-g8")
        for optimizer in ("adam", "sgd")
        for s in range(3)
    ]
    with pytest.raises(CompareError, match="decide='slope' runs over one number, not over opt"):
        compare_runs(RunTable(rows=tuple(rows)), decide="slope")


def test_all_pairs_group_the_arms_that_cannot_be_told_apart():
    rng = np.random.default_rng(1)
    values = {
        arm: np.round(np.linspace(0.95, 0.96, 10) + gain + 0.001 * rng.normal(size=10), 3)
        for arm, gain in (("none", 0.0), ("batch", 0.01), ("group-g8", 0.0101), ("layer", -0.02))
    }
    comparison = compare_runs(table_of(values), all_pairs=True)
    assert len(comparison.contrasts) == 6
    assert {c.family_size for c in comparison.contrasts} == {6}
    (groups,) = comparison.groups
    letters = groups.letters
    assert letters["batch"] == letters["group-g8"]
    assert len({letters["batch"], letters["none"], letters["layer"]}) == 3


def test_another_baseline_does_not_escape_the_correction_unseen():
    table = table_of({"none": BASE, "batch": BASE, "layer": BASE})
    assert any("--all-pairs" in note for note in compare_runs(table, baseline="none").notes)
    assert not any("--all-pairs" in note for note in compare_runs(table).notes)


def test_aggregates_over_settings_are_means_of_means_with_intervals():
    table = by_batch_size({8: 0.01, 32: 0.02})
    comparison = compare_runs(table)
    batch, group = comparison.aggregates
    means = [c.arm_mean for c in comparison.contrasts]
    assert (group.arm, group.n_settings, group.n) == ("group-g8", 2, 16)
    assert group.mean == pytest.approx(np.mean(means))
    assert group.mean_low < group.mean < group.mean_high
    every = sorted(row.printed("test/accuracy") for row in table.rows if row.arm == "group-g8")
    assert group.iqm == pytest.approx(scipy.stats.trim_mean(every, 0.25))
    assert batch.improvement is None
    assert group.improvement_low < group.improvement <= group.improvement_high
    assert compare_runs(table.where("batch_size==8")).aggregates == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": "mnist"}, "2 data sets (mnist, mnist-5k) are compared apart"),
        ({"precision": "bf16"}, "2 precisions (bf16, fp32) are compared apart"),
    ],
)
def test_data_sets_and_precisions_are_never_mixed_in_one_contrast(change, said):
    rows = [row_of("batch", 0.9, seed=s) for s in range(3)]
    rows += [row_of("group-g8", 0.91, seed=s) for s in range(3)]
    rows += [row_of("group-g8", 0.97, seed=s, **change) for s in range(3, 6)]
    comparison = compare_runs(RunTable(rows=tuple(rows)))
    (contrast,) = comparison.contrasts
    assert contrast.n_pairs == 3
    assert contrast.mean_difference == pytest.approx(1.0)
    assert said in comparison.notes
    assert any(note.endswith("has no batch to compare with") for note in comparison.notes)


def test_versions_of_the_code_are_never_mixed_in_one_contrast():
    table = table_of({"batch": BASE, "group-g8": BASE + 0.01})
    for row in table.rows:
        if row.seed >= 5:
            row.result.environment["commit"] = "fedcba"
    comparison = compare_runs(table)
    assert sorted(c.n_pairs for c in comparison.contrasts) == [3, 5]
    assert any("2 versions of the code" in note for note in comparison.notes)
    assert all("code 0.1.0@" in contrast.label for contrast in comparison.contrasts)
    only = compare_runs(table.where("commit == fedcba"))
    assert [c.n_pairs for c in only.contrasts] == [3]


def test_two_devices_are_told_since_times_do_not_compare():
    table = table_of({"batch": BASE, "group-g8": BASE + 0.01})
    table.rows[0].result.environment["device"] = "cuda"
    assert any("times are not comparable" in note for note in compare_runs(table).notes)


def test_the_least_spread_reckoned_with_is_half_a_test_image():
    assert contrast_of([0.1] * 8).floor == pytest.approx(50 / 1_000)
    assert contrast_of([0.1] * 8, metric="val/accuracy").floor == pytest.approx(50 / 500)
    assert contrast_of([0.1] * 8, metric="test/loss").floor == 0.0


def test_hits_give_mcnemar_and_the_interval_for_new_digits(tmp_path):
    for seed in range(6):
        write_run(tmp_path, result_of("batch", 0.96, seed=seed), hits_of(0.96, 1000, seed))
        write_run(tmp_path, result_of("group-g8", 0.97, seed=seed), hits_of(0.97, 1000, 50 + seed))
    (contrast,) = compare_runs(load_runs([tmp_path])).contrasts
    first = contrast.discordant[0]
    ours, theirs = hits_of(0.97, 1000, 50), hits_of(0.96, 1000, 0)
    assert (first.only_arm, first.only_baseline) == (
        (ours & ~theirs).sum(),
        (theirs & ~ours).sum(),
    )
    assert first.only_arm - first.only_baseline == 10
    assert contrast.new_digits_low < contrast.ci_low
    assert contrast.new_digits_high > contrast.ci_high


def test_no_interval_for_new_digits_is_narrower_than_the_one_for_these(tmp_path):
    rng = np.random.default_rng(3)
    for seed in range(4):
        right = rng.permutation(1000) < rng.integers(900, 980)  # seeds differ, images hardly
        write_run(tmp_path, result_of("batch", 0.9, seed=seed), hits_of(0.9, 1000, 1))
        result = result_of("group-g8", float(right.mean()), seed=seed)
        write_run(tmp_path, result, right)
    (contrast,) = compare_runs(load_runs([tmp_path])).contrasts
    assert contrast.new_digits_low <= contrast.ci_low
    assert contrast.new_digits_high >= contrast.ci_high


def test_a_run_that_got_no_image_right_keeps_what_images_tell(tmp_path):
    for seed, accuracy in enumerate([0.9, 0.91, 0.0]):
        make_run(tmp_path, config_of("batch", seed=seed), accuracy=accuracy)
        make_run(tmp_path, config_of("layer", seed=seed), accuracy=0.9)
    (contrast,) = compare_runs(load_runs([tmp_path])).contrasts
    assert [pair.only_arm - pair.only_baseline for pair in contrast.discordant] == [0, -10, 900]
    assert contrast.new_digits_low is not None


def test_what_is_likeliest_within_a_margin_is_equality_and_a_range_of_one_number_is_one():
    table = table_of({"batch": [0.9, 0.91], "layer": [0.905, 0.915]})
    (contrast,) = compare_runs(table, margin=1.0).contrasts
    assert "; equal with a probability of 97 %; 4 more seeds would likely" in contrast.sentence


def test_one_run_without_hits_leaves_only_the_image_level_out(tmp_path):
    for seed in range(6):
        for arm in ("batch", "group-g8"):
            hits = None if (arm, seed) == ("batch", 3) else hits_of(0.96, 1000, seed)
            write_run(tmp_path, result_of(arm, 0.96, seed=seed), hits)
    (contrast,) = compare_runs(load_runs([tmp_path])).contrasts
    assert contrast.discordant == ()
    assert contrast.new_digits_low is None
    assert contrast.verdict == "undecided"


def test_measured_correlation_and_effect_size_are_given():
    d = np.array([0.5, 0.4, 0.6, 0.5, 0.4, 0.5, 0.3, 0.2])
    contrast = contrast_of(d)
    assert contrast.correlation == pytest.approx(np.corrcoef(BASE, BASE + d / 100)[0, 1])
    assert contrast.effect_size == pytest.approx(
        d.mean() / d.std(ddof=1) * (1 - 3 / (4 * 7 - 1)), rel=5e-3
    )


def test_baseline_is_batch_then_none_then_the_first_and_can_be_named():
    assert compare_runs(table_of({"none": [0.9], "batch": [0.9]})).baseline == "batch"
    comparison = compare_runs(table_of({"none": [0.9], "layer": [0.9]}))
    assert comparison.baseline == "none"
    assert "there is no batch among the arms, so none is the baseline" in comparison.notes
    named = compare_runs(table_of({"none": [0.9], "batch": [0.9]}), baseline="none")
    assert [(c.arm, c.baseline) for c in named.contrasts] == [("batch", "none")]


def test_one_arm_alone_has_cells_and_no_contrast():
    comparison = compare_runs(table_of({"batch": BASE}))
    assert comparison.contrasts == ()
    assert comparison.cells[0].n == 8


REFUSED = [
    ({"baseline": "bacth"}, "baseline='bacth' has no finished run; did you mean 'batch'"),
    ({"metric": "test/acuracy"}, "metric='test/acuracy' is in no finished run; did you mean"),
    ({"alpha": 0.0}, "alpha=0.0 is not between 0 and 1"),
    ({"alpha": 1.5}, "alpha=1.5 is not between 0 and 1"),
    ({"margin": -1.0}, "margin=-1.0 is not a number from 0 on"),
    ({"margin": float("nan")}, "margin=nan is not a number from 0 on"),
    ({"arms": ("layer",)}, "arm='layer' has no finished run"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(CompareError, match=message.replace("[", r"\[")):
        contrast_of([0.1] * 6, **options)


def test_nothing_finished_is_refused():
    table = RunTable(rows=(row_of("batch", None, status="interrupted"),))
    with pytest.raises(CompareError, match="no run of 1 is finished"):
        compare_runs(table)


def test_numbers_are_plain_and_json_can_hold_them(tmp_path):
    import json

    make_runs(tmp_path, arms=arms(groups=(8,)), batch_sizes=(2, 8), seeds=3)
    comparison = compare_runs(load_runs([tmp_path]))
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    back = json.loads(text)["contrasts"][0]
    fields = [field.name for field in dataclasses.fields(comparison.contrasts[0])]
    assert list(back) == fields


def test_same_runs_in_any_order_give_the_same_comparison(tmp_path):
    make_runs(tmp_path, arms=arms(groups=(8,)), batch_sizes=(2, 8), seeds=11)
    table = load_runs([tmp_path])
    shuffled = RunTable(rows=tuple(reversed(table.rows)))
    assert compare_runs(table).to_dict() == compare_runs(shuffled).to_dict()


# claims: differences in points, claim, margin, outcome
CLAIMS = [
    ([1.0] * 8, "group-g8 > batch", 0.1, "supported"),
    ([1.0] * 8, "batch < group-g8", 0.1, "supported"),
    ([1.0] * 8, "batch>group-g8", 0.1, "refuted"),
    ([1.0] * 8, "group-g8 = batch", 0.1, "refuted"),
    ([0.0] * 8, "group-g8 == batch", 0.1, "supported"),
    ([0.0] * 8, "group-g8 > batch", 0.1, "refuted"),
    ([1.0, -1.0, 0.5, -0.2], "group-g8 > batch", 0.1, "undecided"),
    ([1.0, -1.0, 0.5, -0.2], "group-g8 = batch", 0.1, "undecided"),
]


@pytest.mark.parametrize(("differences", "claim", "margin", "outcome"), CLAIMS)
def test_claims(differences, claim, margin, outcome):
    base = BASE[: len(differences)]
    table = table_of({"batch": base, "group-g8": base + np.array(differences) / 100})
    answer = answer_claim(table, claim, margin=margin)
    assert answer.outcome == outcome
    assert answer.exit_code == {"supported": 0, "refuted": 4, "undecided": 5}[outcome]
    assert answer.sentence.startswith(f"{outcome}: ")
    assert "\n" not in answer.sentence


def test_a_claim_speaks_of_every_setting_and_its_family_is_its_own():
    rows = [
        row_of(arm, value, seed=seed, batch_size=size)
        for size, gain in ((2, 0.02), (32, 0.0))
        for arm, values in {"batch": BASE, "group-g8": BASE + gain, "none": BASE}.items()
        for seed, value in enumerate(values)
    ]
    table = RunTable(rows=tuple(rows))
    answer = answer_claim(table, "group-g8 > batch", margin=0.1)
    assert answer.outcome == "refuted"
    assert "1 of 2 settings so; first: group-g8 against batch at batch_size=32" in answer.sentence
    assert {c.family_size for c in answer.comparison.contrasts} == {2}
    assert answer_claim(table.where("batch_size==2"), "group-g8 > batch").outcome == "supported"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("group-g8 beats batch", "is not clear; write it as in"),
        ("group-g8 >= batch", "is not clear"),
        ("", "is not clear"),
        ("batch > batch", "names one arm twice"),
        ("group-g4 > batch", "arm='group-g4' has no finished run; did you mean 'group-g8'"),
        ("group-g8 > btch", "baseline='btch' has no finished run; did you mean 'batch'"),
    ],
)
def test_bad_claims_are_refused(claim, message):
    with pytest.raises(CompareError, match=message):
        answer_claim(table_of({"batch": BASE, "group-g8": BASE}), claim)


def test_a_claim_over_settings_is_a_conjunction_that_needs_no_correction():
    d = np.array([0.3, 0.1, 0.4, 0.0, 0.35, 0.2, 0.15, 0.25]) / 100
    rows = [
        row_of(arm, value, seed=seed, batch_size=2**k)
        for k in range(1, 6)
        for arm, values in {"batch": BASE, "group-g8": BASE + d}.items()
        for seed, value in enumerate(values)
    ]
    table = RunTable(rows=tuple(rows))
    contrasts = compare_runs(table).contrasts
    assert all(c.anytime_p < 0.05 < c.anytime_p_adjusted for c in contrasts)
    assert {c.verdict for c in contrasts} == {"undecided"}
    answer = answer_claim(table, "group-g8 > batch")
    assert answer.outcome == "supported"
    assert "significantly better" in answer.sentence


def test_equality_cannot_be_claimed_without_saying_what_is_equal():
    with pytest.raises(CompareError, match="needs a margin"):
        answer_claim(table_of({"batch": BASE, "group-g8": BASE}), "group-g8 = batch")


def test_a_choice_on_the_seeds_that_are_reported_supports_no_claim_and_says_why():
    rows = [
        _with_validation(row_of(arm, test, seed=seed, lr=lr), test)
        for arm, lr, test in (
            ("batch", 0.001, 0.90),
            ("group-g8", 0.001, 0.93),
            ("group-g8", 0.01, 0.91),
        )
        for seed in range(8)
    ]
    table = RunTable(rows=tuple(rows))
    chosen = choose(table, ["lr"])
    answer = answer_claim(chosen, "group-g8 > batch")
    assert (answer.outcome, answer.exit_code) == ("undecided", 5)
    assert "chosen on the seeds that are reported, which supports no claim" in answer.sentence
    assert any("in 8 % of cases by the planned t" in n for n in compare_runs(chosen).notes)
    apart = choose(table, ["lr"], seeds=[0, 1])
    assert {row.seed for row in apart.rows} == set(range(2, 8))
    assert {row.config.lr for row in apart.rows} == {0.001}
    assert answer_claim(apart, "group-g8 > batch").outcome == "supported"
    with pytest.raises(CompareError, match="seeds=77 to choose by have no run"):
        choose(table, ["lr"], seeds=[77])


def test_a_claim_about_arms_that_share_no_setting_is_refused():
    rows = (row_of("batch", batch_size=2), row_of("group-g8", batch_size=4))
    with pytest.raises(CompareError, match="share no setting"):
        answer_claim(RunTable(rows=rows), "group-g8 > batch")


def _with_validation(row, value):
    row.result.summary["val/accuracy"] = value
    return row


def test_the_best_lr_is_chosen_on_validation_and_reported_on_test():
    rows = [
        # on test 0.01 would win for batch; validation says 0.001
        _with_validation(row_of(arm, test, seed=seed, lr=lr), val)
        for arm, lr, val, test in (
            ("batch", 0.001, 0.95, 0.90),
            ("batch", 0.01, 0.94, 0.99),
            ("group-g8", 0.001, 0.93, 0.99),
            ("group-g8", 0.01, 0.96, 0.91),
        )
        for seed in range(6)
    ]
    chosen = choose(RunTable(rows=tuple(rows)), ["lr"])
    (contrast,) = compare_runs(chosen).contrasts
    assert contrast.mean_difference == pytest.approx(1.0)
    assert "lr" not in contrast.setting
    assert "batch: lr=0.001 chosen on validation" in contrast.sentence
    assert "group-g8: lr=0.01 chosen on validation" in contrast.sentence


def test_the_best_groups_are_chosen_within_their_norm_at_each_setting():
    rows = [
        _with_validation(row_of(arm, val, seed=seed, batch_size=size), val)
        for size, best in ((2, 4), (32, 8))
        for arm, val in (
            ("batch", 0.9),
            ("group-g4", 0.95 if best == 4 else 0.9),
            ("group-g8", 0.95 if best == 8 else 0.9),
        )
        for seed in range(3)
    ]
    chosen = compare_runs(choose(RunTable(rows=tuple(rows)), ["num_groups"]))
    assert [(c.arm, c.setting["batch_size"]) for c in chosen.contrasts] == [
        ("group-g4", 2),
        ("group-g8", 32),
    ]


def test_a_choice_compares_candidates_on_common_seeds_and_a_diverged_one_loses():
    def rows_of(lr, values, **options):
        return [
            _with_validation(row_of("batch", v, seed=s, lr=lr, **options), v)
            for s, v in values.items()
        ]

    # seed 2, which only 0.01 has, must not count for it
    rows = rows_of(0.001, {0: 0.95, 1: 0.95}) + rows_of(0.01, {0: 0.94, 1: 0.94, 2: 0.99})
    assert {row.config.lr for row in choose(RunTable(rows=tuple(rows)), ["lr"]).rows} == {0.001}
    rows = rows_of(0.001, {0: 0.9, 1: 0.9}) + rows_of(0.01, {0: 0.99, 1: 0.99})
    rows.append(row_of("batch", None, seed=2, lr=0.01, status="diverged"))
    assert {row.config.lr for row in choose(RunTable(rows=tuple(rows)), ["lr"]).rows} == {0.001}
    rows = rows_of(0.001, {0: 0.9}) + rows_of(0.01, {1: 0.9})
    with pytest.raises(CompareError, match="no seed was finished by every candidate"):
        choose(RunTable(rows=tuple(rows)), ["lr"])


def test_nothing_is_chosen_where_no_run_was_validated():
    """As a trial of one's own may leave it: the first value was taken for the best."""
    rows = [row_of(lr=lr, seed=seed) for lr in (0.001, 0.01) for seed in range(2)]
    for row in rows:
        del row.result.summary["val/accuracy"]
    with pytest.raises(CompareError, match="no run of batch tells val/accuracy"):
        choose(RunTable(rows=tuple(rows)), ["lr"])


@pytest.mark.parametrize("name", ["seed", "norm", "lrr", "dataset"])
def test_what_cannot_be_chosen_is_refused(name):
    with pytest.raises(CompareError, match=f"choose='{name}' cannot be chosen"):
        choose(table_of({"batch": [0.9]}), [name])


def test_accuracies_of_run_folders_agree_with_their_contrast(tmp_path):
    make_run(tmp_path, config_of("batch"), accuracy=0.95)
    make_run(tmp_path, config_of("group-g8"), accuracy=0.97)
    (contrast,) = compare_runs(load_runs([tmp_path])).contrasts
    assert contrast.mean_difference == pytest.approx(2.0)
    assert contrast.discordant[0].only_arm - contrast.discordant[0].only_baseline == 20


def test_seeds_are_estimated_for_so_many_undecided_contrasts_and_no_more(monkeypatch):
    rng = np.random.default_rng(0)
    arms = ("batch", "layer", "none", "instance")
    table = table_of({arm: list(0.97 + rng.normal(0, 0.002, 8)) for arm in arms})
    monkeypatch.setattr(judge, "MOST_ESTIMATED", 2)
    found = [contrast.seeds_needed for contrast in compare_runs(table).contrasts]
    assert [seeds is None for seeds in found] == [False, False, True]

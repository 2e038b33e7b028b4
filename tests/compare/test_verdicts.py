"""Verdicts: hand-worked cases, what counts as a pair, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from groupnorm_bench.compare.choice import choose
from groupnorm_bench.compare.claims import answer_claim
from groupnorm_bench.compare.load import load_runs
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


# differences in points, margin, then by hand: p, verdict. The sign-flip p is 2 (more extreme
# sums) / 2^n; Student's interval is mean -+ t sd / sqrt(n)
HAND_WORKED = [
    ([1, 1, 1, 1, 1, 1, 1, 1], 0.1, 2 / 256, "better"),
    ([-1, -1, -1, -1, -1, -1, -1, -1], 0.1, 2 / 256, "worse"),
    ([0, 0, 0, 0, 0, 0], 0.1, 1.0, "equal"),
    ([0.01, -0.01, 0.01, -0.01, 0.02, -0.02], 0.1, 1.0, "equal"),
    ([0.01, -0.01, 0.01, -0.01, 0.02, -0.02], 0.0, 1.0, "undecided"),
    ([0.5, 0.4, 0.6, 0.5, 0.4], 0.1, 2 / 32, "undecided"),  # five can never be significant
    ([0.5, 0.4, 0.6, 0.5, 0.4], 1.0, 2 / 32, "equal"),
    ([0.5, 0.4, 0.6, 0.5, 0.4, 0.5], 0.1, 2 / 64, "better"),
    ([0.5, 0.4, 0.6, 0.5, 0.4, -0.1], 0.1, 4 / 64, "undecided"),  # -0.1, and its mirror
    ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 5], 0.1, 2 / 256, "undecided"),  # 0 is in [-0.73, 2.15]
    ([1, -1], 0.1, 1.0, "undecided"),
    ([1], 0.1, 1.0, "undecided"),
]


@pytest.mark.parametrize(("differences", "margin", "p", "verdict"), HAND_WORKED)
def test_hand_worked_verdicts(differences, margin, p, verdict):
    contrast = contrast_of(differences, margin=margin)
    assert contrast.n_pairs == len(differences)
    assert contrast.mean_difference == pytest.approx(np.mean(differences))
    assert contrast.p == pytest.approx(p)
    assert contrast.verdict == verdict
    if len(differences) > 1:
        half = scipy.stats.t.ppf(0.975, len(differences) - 1) * scipy.stats.sem(differences)
        interval = (np.mean(differences) - half, np.mean(differences) + half)
        assert (contrast.ci_low, contrast.ci_high) == pytest.approx(interval, abs=1e-9)
    else:
        assert contrast.ci_low is None


def test_bootstrap_interval_from_ten_pairs_on():
    base = np.full(10, 0.97)
    differences = np.array([0.1, 0.3, -0.1, 0.2, 0.4, 0.0, 0.1, 0.2, 0.3, 0.1])
    assert contrast_of(differences, base).interval == "bootstrap"
    assert contrast_of(differences[:9], base[:9]).interval == "student-t"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_under_six_pairs_nothing_is_called_significant_and_what_n_can_show_is_said(n):
    contrast = contrast_of([2.0, 2.1, 1.9, 2.0, 2.2][:n])
    assert "significant" not in contrast.sentence
    assert f"can show no p below {2 ** (1 - n):g}" in contrast.sentence
    assert contrast.verdict == "undecided"
    assert contrast.seeds_needed == 6 - n


def test_six_pairs_may_be_significant():
    contrast = contrast_of([2.0, 2.1, 1.9, 2.0, 2.2, 2.1])
    assert "significantly better" in contrast.sentence


def test_less_loss_is_better():
    table = table_of({"batch": BASE, "group-g8": BASE + 0.01})
    (contrast,) = compare_runs(table, metric="test/loss", margin=0.0).contrasts
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
    assert "1 run of batch diverged: this speaks of the rest" in contrast.sentence
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
    assert contrast.verdict == "better"
    assert "no seed is in both arms" in contrast.sentence
    assert "significant" not in contrast.sentence


def test_one_run_each_without_a_pair_is_undecided():
    rows = (row_of("batch", 0.9, seed=0), row_of("group-g8", 0.95, seed=1))
    (contrast,) = compare_runs(RunTable(rows=rows)).contrasts
    assert (contrast.verdict, contrast.p, contrast.seeds_needed) == ("undecided", None, 6)


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


def test_a_family_too_large_for_its_seeds_says_so_and_how_many_could():
    d = np.array([0.5, 0.4, 0.6, 0.5, 0.4, 0.5]) / 100
    values = {"batch": BASE[:6], "group-g8": BASE[:6] + d, "layer": BASE[:6] + 2 * d}
    contrast = compare_runs(table_of(values)).contrasts[0]
    assert contrast.verdict == "undecided"
    assert "no 6 pairs can pass Holm's first hurdle of 2 contrasts, 0.025; 7 could" in (
        contrast.sentence
    )
    assert contrast.seeds_needed == 1


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


def test_default_margin_is_one_standard_error_of_the_baseline_on_its_test_images():
    contrast = contrast_of([0.1] * 8)
    share = BASE.mean()
    assert contrast.margin == pytest.approx(100 * math.sqrt(share * (1 - share) / 1000))
    on_validation = contrast_of([0.1] * 8, metric="val/accuracy").margin
    assert on_validation == pytest.approx(100 * math.sqrt(share * (1 - share) / 500))
    assert contrast_of([0.1] * 8, metric="test/loss").margin is None


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


def test_one_run_without_hits_leaves_only_the_image_level_out(tmp_path):
    for seed in range(6):
        for arm in ("batch", "group-g8"):
            hits = None if (arm, seed) == ("batch", 3) else hits_of(0.96, 1000, seed)
            write_run(tmp_path, result_of(arm, 0.96, seed=seed), hits)
    (contrast,) = compare_runs(load_runs([tmp_path])).contrasts
    assert contrast.discordant == ()
    assert contrast.new_digits_low is None
    assert contrast.verdict == "equal"


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
    ({"arms": ["layer"]}, "arm='layer' has no finished run"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(CompareError, match=message.replace("[", r"\[")):
        contrast_of([0.1] * 6, **options)


def test_nothing_finished_is_refused():
    table = RunTable(rows=(row_of("batch", None, status="interrupted"),))
    with pytest.raises(CompareError, match="none of 1 runs is finished"):
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
    answer = answer_claim(table, "group-g8 > batch")
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

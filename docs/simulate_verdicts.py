"""The tables of simulated rates in docs/statistics.md, by the functions that verdicts are made of.

python docs/simulate_verdicts.py            # about half a minute on one core
python docs/simulate_verdicts.py --quick    # a tenth of the experiments
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare import anytime
from groupnorm_bench.compare.stats import holm_adjusted, student_quantile

Floats = npt.NDArray[np.float64]
EXPERIMENTS = 2_000 if "--quick" in sys.argv else 20_000
LOOKS = 60
FIXED = (4, 6, 10, 16)


def worlds() -> dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], Floats], float]]:
    """Return how differences of equal arms are drawn, and the floor of their sd."""

    def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return rng.normal(size=shape)

    def images(sd: float) -> Callable[[np.random.Generator, tuple[int, ...]], Floats]:
        return lambda rng, shape: np.round(sd * rng.normal(size=shape))

    def failing(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        lost = [rng.random(shape) < 0.04 for _ in range(2)]
        return rng.normal(size=shape) + 500.0 * (lost[1].astype(float) - lost[0])

    def bimodal_arms(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        low = [rng.random(shape) < 0.2 for _ in range(2)]
        return 0.3 * rng.normal(size=shape) + 3.0 * (low[0].astype(float) - low[1])

    return {
        "normal": (normal, 0.0),
        "whole images, sd 3": (images(3.0), 0.5),
        "whole images, sd 0.8": (images(0.8), 0.5),
        "heteroscedastic (0.3, 1, 3)": (
            lambda rng, shape: rng.normal(size=shape) * rng.choice([0.3, 1.0, 3.0], size=shape),
            0.0,
        ),
        "Student's t, 2 degrees": (lambda rng, shape: rng.standard_t(2, size=shape), 0.0),
        "4 % of seeds of either arm at chance": (failing, 0.0),
        "bimodal arms (a fifth 10 sd lower)": (bimodal_arms, 0.0),
        "bimodal differences (+-1, sd 0.3)": (
            lambda rng, shape: rng.choice([-1.0, 1.0], size=shape) + 0.3 * rng.normal(size=shape),
            0.0,
        ),
        "uniform differences": (lambda rng, shape: rng.uniform(-1, 1, size=shape), 0.0),
        "skewed (exponential): arms not exchangeable": (
            lambda rng, shape: rng.exponential(size=shape) - 1,
            0.0,
        ),
    }


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def false_verdicts() -> None:
    """Equal arms, looked at after every seed from 4 to 60; one contrast and a family of five."""
    rows = []
    for name, (draw, floor) in worlds().items():
        rng = np.random.default_rng(1)
        one = draw(rng, (EXPERIMENTS, LOOKS))
        p = anytime.running_p(anytime.log_e_values(one, floor=floor))[:, -1]
        family = draw(rng, (EXPERIMENTS // 4, 5, LOOKS))
        adjusted = holm_adjusted(
            anytime.running_p(anytime.log_e_values(family, floor=floor))[..., -1], axis=1
        )
        fixed = [percent(float(np.mean(_t_rejects(one[:, :n], floor)))) for n in FIXED]
        five = float((adjusted < 0.05).any(axis=1).mean())
        rows.append([name, percent(float((p < 0.05).mean())), percent(five), " / ".join(fixed)])
    table(["equal arms", "any time, 1", "any time, 5", "planned t at 4 / 6 / 10 / 16"], rows)


def _t_rejects(x: Floats, floor: float) -> Floats:
    n = x.shape[1]
    error = np.maximum(x.std(axis=1, ddof=1), floor) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(x.mean(axis=1)) / error > student_quantile(0.05, n - 1)


def decided() -> None:
    """Seeds to a decision by the size of the difference; also for other prior variances."""
    rows = []
    paths = EXPERIMENTS // 5
    z = np.random.default_rng(2).normal(size=(paths, 200))
    for d in (0.3, 0.5, 1.0, 2.0, 4.0, 10.0):
        row = [f"{d:g}"]
        for contrasts in (1, 5):
            for g in (1.0, anytime.PRIOR_VARIANCE, 4.0):
                p = anytime.running_p(anytime.log_e_values(z + d, g=g))
                hit = p < 0.05 / contrasts
                first = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 201)
                low, middle, high = np.quantile(first, [0.1, 0.5, 0.9]).astype(int)
                row.append(f"{middle} ({low} to {high if high < 201 else 'over 200'})")
        rows.append(row)
    heads = [f"{k}, g = {g:g}" for k in ("one", "first of five") for g in (1, 2, 4)]
    table(["difference in sd", *heads], rows)


def coverage() -> None:
    """Coverage of the true mean: planned at one n, any time at all looks from 4 to 60."""
    rows = []
    for name, (draw, floor) in list(worlds().items())[:7]:
        x = draw(np.random.default_rng(3), (EXPERIMENTS, LOOKS))
        low, high = anytime.intervals(x, 0.05, floor=floor)
        held = ((low <= 0) & (high >= 0))[:, 3:].all(axis=1)
        fixed = [percent(1 - float(np.mean(_t_rejects(x[:, :n], floor)))) for n in FIXED]
        rows.append([name, percent(float(held.mean())), " / ".join(fixed)])
    table(["differences", "any time, all looks", "planned t at 4 / 6 / 10 / 16"], rows)


def equality() -> None:
    """True differences of exactly the margin, called equal."""
    rows = []
    for margin in (0.5, 1.0, 2.0):
        row = [f"{margin:g}"]
        for contrasts in (1, 5):
            x = np.random.default_rng(4).normal(margin, 1.0, (EXPERIMENTS // 5, contrasts, LOOKS))
            p = holm_adjusted(anytime.equality_p(x, margin)[..., -1], axis=1)
            row.append(percent(float((p < 0.05).any(axis=1).mean())))
        rows.append(row)
    table(["margin in sd", "one contrast", "any of five"], rows)


def tuning() -> None:
    """Equal arms, one with k learning rates to choose from: by reported seeds, or by others."""
    rows = []
    rng = np.random.default_rng(5)
    n, m = 12, 4
    for k in (2, 4, 8):
        baseline = rng.normal(size=(EXPERIMENTS, n))
        arm = rng.normal(size=(EXPERIMENTS, k, n + m))
        row = [str(k)]
        for seeds in (slice(0, n), slice(n, n + m)):
            best = arm[:, :, seeds].mean(axis=2).argmax(axis=1)
            x = np.take_along_axis(arm, best[:, None, None], 1)[:, 0, :n] - baseline
            better = _t_rejects(x, 0.0) & (x.mean(axis=1) > 0)
            p = anytime.running_p(anytime.log_e_values(x))[:, -1]
            any_time = (p < 0.05) & (x.mean(axis=1) > 0)
            row += [percent(float(better.mean())), percent(float(any_time.mean()))]
        rows.append(row)
    heads = ["reported seeds: planned t", "any time", "others: planned t", "any time"]
    table(["values", *heads], rows)


if __name__ == "__main__":
    for part in (false_verdicts, decided, coverage, equality, tuning):
        print(f"{(part.__doc__ or '').strip()}\n")
        part()

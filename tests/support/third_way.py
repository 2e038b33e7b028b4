"""The numbers of `gnbench compare` a third way: json, pandas and scipy only, as in a notebook.

Usage: python third_way.py RUNS, which prints the contrasts as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, special, stats


def contrasts(runs: Path, baseline: str = "batch", alpha: float = 0.05) -> pd.DataFrame:
    """Return a row per (batch size, arm) with the numbers of its contrast, in points."""
    records = [json.loads(path.read_text()) for path in sorted(runs.glob("*/result.json"))]
    frame = pd.json_normalize([r for r in records if r["status"] == "finished"])
    frame["points"] = 100 * frame["summary.test/accuracy"]
    images = 1000 if (frame["config.dataset"] == "mnist-5k").all() else 10_000
    wide = frame.pivot(index=["config.batch_size", "seed"], columns="arm", values="points")
    rows = []
    for size, block in wide.groupby(level=0):
        for arm in block.columns.drop(baseline):
            pairs = block[[arm, baseline]].dropna()
            rows.append({"batch_size": size, "arm": arm, **numbers(pairs, alpha, images)})
    table = pd.DataFrame(rows)
    for name in ("p", "t_p", "anytime_p"):
        table[f"{name}_adjusted"] = holm(table[name])
    decided = table["anytime_p_adjusted"] < alpha
    table["verdict"] = "undecided"
    table.loc[decided & (table["anytime_low"] > 0), "verdict"] = "better"
    table.loc[decided & (table["anytime_high"] < 0), "verdict"] = "worse"
    return table


def numbers(pairs: pd.DataFrame, alpha: float, images: int) -> dict:
    arm, base = pairs.iloc[:, 0], pairs.iloc[:, 1]
    d = (arm - base).to_numpy()
    n, floor = len(d), 50 / images  # half an image
    error = max(d.std(ddof=1), floor) / np.sqrt(n)
    t = stats.t(n - 1)
    half = t.ppf(1 - alpha / 2) * error
    counts = np.rint(d / 100 * images)  # whole images, so that equal sums compare as equal
    test = stats.permutation_test(
        (counts,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    looks = [e_value(d[:k], 0.0, floor) for k in range(6, n + 1)]
    return {
        "n_pairs": n,
        "mean_difference": d.mean(),
        "ci_low": d.mean() - half,
        "ci_high": d.mean() + half,
        "p": test.pvalue,
        "t_p": 2 * t.sf(abs(d.mean()) / error),
        "e_value": looks[-1],
        "anytime_p": min(1.0, 1 / max(looks)),
        **anytime_interval(d, alpha, floor),
        "correlation": arm.corr(base),
    }


def e_value(d: np.ndarray, null: float, floor: float, g: float = 2.0) -> float:
    """Return the ratio of the differences' likelihoods, integrated over their sd on a grid.

    Given the sd, the mean is normal around null with variance sd^2 (1 / n + g) or sd^2 / n.
    """
    n, shift = len(d), d.mean() - null
    within = (n - 1) * max(d.var(ddof=1), floor**2)
    middle = np.log((within + n * shift**2) / n) / 2
    log_sd = middle + np.linspace(-8, 8, 4001)  # its prior is flat

    def log_likelihood(spread: float) -> float:
        squares = within + n * shift**2 / spread
        return special.logsumexp(-n * log_sd - squares / (2 * np.exp(2 * log_sd)))

    ratio = log_likelihood(1 + n * g) - np.log(1 + n * g) / 2 - log_likelihood(1.0)
    return float(np.exp(ratio))


def anytime_interval(d: np.ndarray, alpha: float, floor: float) -> dict:
    """Return the means at no look refuted, found by bisection of the e-value."""
    lows, highs = [], []
    for k in range(6, len(d) + 1):
        seen = d[:k]
        reach = 50 * max(seen.std(ddof=1), floor)
        edges = [
            optimize.brentq(
                lambda mu, seen=seen: e_value(seen, mu, floor) - 1 / alpha,
                seen.mean(),
                seen.mean() + side * reach,
                xtol=1e-12,
            )
            for side in (-1, 1)
        ]
        lows.append(edges[0])
        highs.append(edges[1])
    return {"anytime_low": max(lows), "anytime_high": min(highs)}


def holm(p: pd.Series) -> pd.Series:
    """Return Holm's adjusted p: sorted, times how many are left, never falling, at most 1."""
    sorted_p = p.sort_values(kind="stable")
    left = np.arange(len(p), 0, -1)
    return (sorted_p * left).cummax().clip(upper=1.0).reindex(p.index)


if __name__ == "__main__":
    print(contrasts(Path(sys.argv[1])).to_json(orient="records", indent=1))

"""The numbers of `gnbench compare` a third way: json, pandas and scipy only, as in a notebook.

Usage: python third_way.py RUNS, which prints the contrasts as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats


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
    table["p_adjusted"] = holm(table["p"])
    clear = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    share = table["baseline_mean"] / 100
    margin = 100 * np.sqrt(share * (1 - share) / images)
    inside = (table["ci_low"] >= -margin) & (table["ci_high"] <= margin)
    table["verdict"] = np.where(inside, "equal", "undecided")
    decided = (table["p_adjusted"] < alpha) & clear
    table.loc[decided & (table["mean_difference"] > 0), "verdict"] = "better"
    table.loc[decided & (table["mean_difference"] < 0), "verdict"] = "worse"
    return table


def numbers(pairs: pd.DataFrame, alpha: float, images: int) -> dict:
    arm, base = pairs.iloc[:, 0], pairs.iloc[:, 1]
    d = (arm - base).to_numpy()
    if len(d) < 10:
        interval = stats.ttest_1samp(d, 0).confidence_interval(1 - alpha)
    else:
        rng = np.random.default_rng(20180613)
        interval = stats.bootstrap(
            (d,), np.mean, confidence_level=1 - alpha, method="BCa", rng=rng
        ).confidence_interval
    counts = np.rint(d / 100 * images)  # whole images, so that equal sums compare as equal
    test = stats.permutation_test(
        (counts,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    return {
        "n_pairs": len(d),
        "baseline_mean": base.mean(),
        "mean_difference": d.mean(),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "p": test.pvalue,
        "correlation": arm.corr(base),
    }


def holm(p: pd.Series) -> pd.Series:
    """Return Holm's adjusted p: sorted, times how many are left, never falling, at most 1."""
    sorted_p = p.sort_values(kind="stable")
    left = np.arange(len(p), 0, -1)
    return (sorted_p * left).cummax().clip(upper=1.0).reindex(p.index)


if __name__ == "__main__":
    print(contrasts(Path(sys.argv[1])).to_json(orient="records", indent=1))

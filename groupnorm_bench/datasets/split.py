"""The fixed split: one for everybody, so that results can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np

SPLIT_KEY = 20180613
"""Seed of the fixed split."""


def stratified_order(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a fixed shuffled order in which every prefix holds the classes in proportion.

    Each image is given its rank in a shuffle of its own class, as a fraction of that class;
    sorting by it interleaves the classes evenly.
    """
    generator = np.random.default_rng(SPLIT_KEY)
    fraction = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        fraction[members] = (generator.permutation(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, fraction))

"""A run on disk, the only source of truth: sweeps resume from it, `compare` reads it."""

from groupnorm_bench.runs.folder import (
    SETTLED,
    FoundRun,
    RunFolder,
    RunResult,
    Status,
    find_runs,
    finite,
    write_atomic,
)

__all__ = [
    "SETTLED",
    "FoundRun",
    "RunFolder",
    "RunResult",
    "Status",
    "find_runs",
    "finite",
    "write_atomic",
]

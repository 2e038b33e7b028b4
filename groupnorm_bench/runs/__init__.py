"""A run on disk, the only source of truth: sweeps resume from it, `compare` reads it."""

from groupnorm_bench.files import write_atomic
from groupnorm_bench.runs.environment import (
    SENT_COMMIT,
    describe_environment,
    device_name,
    source_commit,
)
from groupnorm_bench.runs.exclusive import is_claim
from groupnorm_bench.runs.facts import FactColumns
from groupnorm_bench.runs.find import FoundRun, find_runs, list_folders, packs_in, tell_of_packs
from groupnorm_bench.runs.folder import RunFolder
from groupnorm_bench.runs.pack import (
    PackedRun,
    PackedRuns,
    is_pack,
    pack_runs,
    packed_facts,
    packed_sweeps,
    unpack_runs,
)
from groupnorm_bench.runs.result import (
    SETTLED,
    TRIAL_CODE,
    WHOLE_NUMBERS,
    RunResult,
    Status,
    finite,
)

__all__ = [
    "SENT_COMMIT",
    "SETTLED",
    "TRIAL_CODE",
    "WHOLE_NUMBERS",
    "FactColumns",
    "FoundRun",
    "PackedRun",
    "PackedRuns",
    "RunFolder",
    "RunResult",
    "Status",
    "describe_environment",
    "device_name",
    "find_runs",
    "finite",
    "is_claim",
    "is_pack",
    "list_folders",
    "pack_runs",
    "packed_facts",
    "packed_sweeps",
    "packs_in",
    "source_commit",
    "tell_of_packs",
    "unpack_runs",
    "write_atomic",
]

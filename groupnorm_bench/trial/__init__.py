"""One run end to end: config -> train -> track -> run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import SETTLED, RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.training.hooks import Hooks

if TYPE_CHECKING:
    from groupnorm_bench.datasets.tensors import Dataset
    from groupnorm_bench.trial.attempt import Attempt


def run_trial(
    config: TrainConfig,
    *,
    runs_dir: Path,
    dataset: Dataset | None,
    tracking: TrackingOptions | None = None,
    force: bool = False,
    hooks: Hooks | None = None,
) -> RunResult:
    """Train a run and keep it, or return what its folder already holds.

    The folder is claimed while this works, a checkpoint in it is continued, and its
    `result.json` is rewritten after every epoch, with status `interrupted` until the end.

    Args:
        config: the run; its dataset is resolved, not `auto`. An `OwnConfig` is done by the
            function that it names.
        runs_dir: the folder of run folders.
        dataset: the loaded data set called `config.dataset`; None for an `OwnConfig`.
        tracking: where the run goes on W&B.
        force: train again even if a result is there; the old one is set aside, not deleted.
        hooks: what to call as it goes; `save` is the run folder's and is not read.

    Returns:
        the result, with status `finished`, `pruned` or `diverged`.

    Raises:
        TrainingStopped: `should_stop` said so; the run is `interrupted` and can be continued.
        CheckpointError: the folder's checkpoint is truncated, foreign or of another config.
        RunFolderError: another process works in the folder, or it cannot be written.
        TrialError: the function of an `OwnConfig` raised, or returned what is no result.
        ConfigError, DataError, DeviceError: see `training.train`.
    """
    hooks = hooks or Hooks()
    if isinstance(config, OwnConfig):
        runs_dir = runs_dir.absolute()  # the function may leave this directory
    folder = RunFolder.of(runs_dir, config)
    is_new = not folder.path.exists()
    with folder.claim():
        found = _read_or_set_aside(folder, hooks.say)
        if found is not None and found.status in SETTLED and not force:
            folder.tidy()  # what a kill right after the result left
            return found
        if force:
            folder.set_aside()
            found = None
        try:
            attempt = _attempt(config, folder, dataset, hooks, found)
            folder.write(attempt.result)
        except BaseException:  # Ctrl-C too
            if is_new:
                folder.remove_empty()
            raise
        attempt.begin()
        return attempt.run(tracking or TrackingOptions())


def _attempt(
    config: TrainConfig,
    folder: RunFolder,
    dataset: Dataset | None,
    hooks: Hooks,
    previous: RunResult | None,
) -> Attempt:
    if isinstance(config, OwnConfig):
        from groupnorm_bench.trial.own import OwnAttempt

        return OwnAttempt(config, folder, hooks, previous)
    from groupnorm_bench.trial.network import NetworkAttempt

    assert dataset is not None, "a network of ours trains on a data set"
    return NetworkAttempt(config, folder, dataset, hooks, previous)


def _read_or_set_aside(folder: RunFolder, say: Callable[[str], None]) -> RunResult | None:
    """Return the folder's result; one that cannot be read is renamed, and the run starts again."""
    try:
        return folder.read()
    except RunFolderError as error:
        kept = folder.set_aside()
        say(f"{error}; kept as {kept}, training again")
        return None

"""What Tab offers: names from the tables, files and run folders from the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

_MOST = 50
"""Offers of one kind."""

Complete = Callable[[str], list[tuple[str, str]]]


def words(choices: Iterable[str]) -> Complete:
    """Return what completes one of these words."""
    offered = [(choice, "") for choice in choices]
    return lambda incomplete: _starting(offered, incomplete)


def norms(incomplete: str) -> list[tuple[str, str]]:
    """Offer the norms."""
    from groupnorm_bench.norms import NORMS

    return _starting([(name, spec.help) for name, spec in NORMS.items()], incomplete)


def models(incomplete: str) -> list[tuple[str, str]]:
    """Offer our networks, and how others are named."""
    from groupnorm_bench.models import LIBRARIES, MODELS

    ours = [(name, spec.help) for name, spec in MODELS.items()]
    others = [(f"{name}:resnet18", f"any classifier of {name}") for name in LIBRARIES]
    return _starting([*ours, *others], incomplete)


def metrics(incomplete: str) -> list[tuple[str, str]]:
    """Offer what a run's summary holds."""
    from groupnorm_bench.metrics import METRICS

    named = [(name, spec.title) for name, spec in METRICS.items() if spec.in_summary]
    return _starting(named, incomplete)


def data_sets(incomplete: str) -> list[tuple[str, str]]:
    """Offer the data sets."""
    from groupnorm_bench.datasets import DATASETS

    return _starting([(name, spec.help) for name, spec in DATASETS.items()], incomplete)


def sweeps(incomplete: str) -> list[tuple[str, str]]:
    """Offer the sweeps that come with the package, and YAML files here."""
    from groupnorm_bench.sweep.file.shipped import shipped_sweeps

    ours = [(name, "comes with gnbench") for name in shipped_sweeps()]
    return _starting(ours, incomplete) + yaml_files(incomplete)


def yaml_files(incomplete: str) -> list[tuple[str, str]]:
    """Offer YAML files, and the folders on the way to some."""
    return _paths(incomplete, lambda path: path.is_dir() or path.suffix in (".yaml", ".yml"))


def folders(incomplete: str) -> list[tuple[str, str]]:
    """Offer folders."""
    return _paths(incomplete, Path.is_dir)


def run_folders(incomplete: str) -> list[tuple[str, str]]:
    """Offer folders that hold runs, and those on the way to some."""
    found = _paths(incomplete, Path.is_dir)
    holds = [offer for offer in found if next(Path(offer[0]).glob("*/result.json"), None)]
    return holds or found


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Offer the runs in `runs`, by name, and folders of one run elsewhere."""
    here = sorted(path.parent.name for path in Path("runs").glob("*/result.json"))
    return _starting([(name, "") for name in here], incomplete) or folders(incomplete)


def _starting(offers: Iterable[tuple[str, str]], incomplete: str) -> list[tuple[str, str]]:
    return [offer for offer in offers if offer[0].startswith(incomplete)][:_MOST]


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> list[tuple[str, str]]:
    head, slash, tail = incomplete.rpartition("/")
    place = Path(head + slash) if slash else Path(".")
    try:
        found = sorted(place.iterdir())
    except OSError:
        return []
    hidden = tail.startswith(".")
    names = [p.name for p in found if (hidden or not p.name.startswith(".")) and wanted(p)]
    ends = {p.name: "/" if p.is_dir() else "" for p in found}
    return _starting([(f"{head}{slash}{name}{ends[name]}", "") for name in names], incomplete)

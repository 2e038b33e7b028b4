"""What `pip install -e .` brings is all that the package imports; `dev` is for its makers."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.support import ROOT


def imported() -> dict[str, str]:
    """Return the packages that are imported at run time, each with a file that does."""
    found = {}
    for path in (ROOT / "groupnorm_bench").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0]: path.name for name in names}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names}


def test_versions_and_dates_agree():
    import groupnorm_bench

    version = groupnorm_bench.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    heads = re.findall(r"^## (.+)$", changes, re.M)
    released = [re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)", head) for head in heads]
    assert heads[0] == "Unreleased" or heads[0].startswith(version)
    assert all(released[1:])


def test_workflows_and_citation_are_yaml():
    import yaml

    for path in [*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "CITATION.cff"]:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path


def test_everything_imported_is_a_dependency_or_in_an_extra_that_users_install():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(x for n, e in extras.items() if n != "dev" for x in e)]
    names = {re.split(r"[<>=\[ ]", line)[0].lower() for line in asked} | {"groupnorm-bench"}
    homes = packages_distributions()
    missing = {
        package: file
        for package, file in imported().items()
        if package != "groupnorm_bench"
        and names.isdisjoint(home.lower() for home in homes.get(package, []))
    }
    assert missing == {}

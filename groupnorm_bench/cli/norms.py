"""`gnbench norms`: what can be built."""

from __future__ import annotations

import importlib.util

import typer

from groupnorm_bench.cli.app import AsJson, app, print_json
from groupnorm_bench.models import MODELS
from groupnorm_bench.norms import NORMS, NormSpec


@app.command("norms")
def norms_command(as_json: AsJson = False) -> None:
    """List the norms: what each does, the parameters it adds, whether it depends on the batch."""
    rows = [_row(name, spec) for name, spec in NORMS.items()]
    if as_json:
        print_json(rows)
        return
    typer.echo(f"{'norm':<14}{'groups':<8}{'parameters':>10}  {'batch':<6}help")
    for row in rows:
        typer.echo(
            f"{row['norm']:<14}{_yes(row['reads_groups']):<8}{'+' + str(row['parameters']):>10}  "
            f"{_yes(row['batch_dependent']):<6}{row['help']}{_missing(row['needs'])}"
        )
    typer.echo(
        "\ngroups: reads --groups / --group-size.  parameters: added to the network cnn.\n"
        "batch: in training, an image's output depends on the rest of its batch.\n"
        "Your own: --norm package.module:make_norm, called with (num_channels, num_groups)."
    )


def _row(name: str, spec: NormSpec) -> dict[str, object]:
    return {
        "norm": name,
        "help": spec.help,
        "paper": spec.paper,
        "parameters": spec.parameters_per_channel * sum(MODELS["cnn"].norm_channels.values()),
        "batch_dependent": spec.uses_batch_statistics,
        "running_statistics": spec.has_running_statistics,
        "replaces_activation": spec.fuses_activation,
        "standardizes_weights": spec.standardizes_weights,
        "reads_groups": spec.reads_groups,
        "needs": spec.needs,
    }


def _yes(value: object) -> str:
    return "yes" if value else "-"


def _missing(package: object) -> str:
    if package is None or importlib.util.find_spec(str(package)) is not None:
        return ""
    return f"  (needs {package}: pip install 'groupnorm-bench[norms]')"

"""The command line: reads options, calls the rest, prints."""

from groupnorm_bench.cli import (
    bench,
    compare,
    data,
    doctor,
    init,
    model,
    norms,
    pack,
    power,
    publish,
    quick,
    report,
    show,
    status,
    sweep,
    train,
    wandb,
)
from groupnorm_bench.cli.app import app, main

__all__ = ["app", "main"]

# importing a module registers its commands
_COMMANDS = (
    bench,
    compare,
    data,
    doctor,
    init,
    model,
    norms,
    pack,
    power,
    publish,
    quick,
    report,
    show,
    status,
    sweep,
    train,
    wandb,
)

"""The command line: reads options, calls the rest, prints."""

from groupnorm_bench.cli import compare, data, doctor, norms, train
from groupnorm_bench.cli.app import app, main

__all__ = ["app", "main"]

_COMMANDS = (compare, data, doctor, norms, train)  # importing a module registers its commands

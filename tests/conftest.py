"""Fixtures that several test modules share."""

from wandb_server.fixture import wandb_env, wandb_server

__all__ = ["wandb_env", "wandb_server"]

"""A small W&B server on loopback, for tests of everything that talks to W&B.

It speaks the protocol that the unmodified wandb 0.31 client uses: GraphQL, the file stream and
file uploads. It is a test double: what it *decides* (which run next, when to stop, when a run is
crashed) follows W&B's documentation, not W&B's code. A request it does not know is refused, and
the test that caused it fails.
"""

from tests.support.wandb_server.server import API_KEY, Fault, WandbServer

__all__ = ["API_KEY", "Fault", "WandbServer"]

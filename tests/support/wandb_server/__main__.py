"""`python -m wandb_server`: run the test server by hand, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from tests.support.wandb_server.server import API_KEY, WandbServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path, help="a new SQLite file; default: a temporary one")
    options = parser.parse_args()
    state = options.state or Path(tempfile.mkdtemp()) / "server.sqlite"
    with WandbServer(state, options.port) as server:
        print(f"export WANDB_BASE_URL={server.url} WANDB_API_KEY={API_KEY}", flush=True)
        seen = 0
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(0.5)
                for refusal in server.refusals[seen:]:
                    print(f"refused: {refusal}", file=sys.stderr, flush=True)
                seen = len(server.refusals)


if __name__ == "__main__":
    main()

"""Whether W&B is to be had now, asked in seconds: its own client may take minutes to say no."""

from __future__ import annotations

import os
import threading

from groupnorm_bench.errors import TrackingError, brief
from groupnorm_bench.tracking.options import Mode, Say
from groupnorm_bench.tracking.variables import mode_asked, under_agent

START_SECONDS = 10.0
"""All that W&B may delay the start of a training by."""
NO_LOGIN = "no login found"


def login_problem(seconds: float = START_SECONDS / 2) -> str | None:
    """Ask W&B whether it takes our key; return None if so, else why not, within `seconds`.

    Without a key nothing is sent and the answer is `NO_LOGIN`. `wandb.init` alone may take 101 s
    to fail, and a login check 11 s, so the check runs in a thread that is left behind when it
    takes too long.
    """
    import wandb

    os.environ.setdefault("WANDB_HTTP_TIMEOUT", "3")  # seconds; read by wandb alone
    os.environ.setdefault("WANDB_SILENT", "true")  # or it tells the terminal who is logged in
    answer: list[str | None] = []

    def ask() -> None:
        try:
            answer.append(None if wandb.login(prompt=False) else NO_LOGIN)
        except Exception as error:  # any failure means: not online now
            answer.append(brief(error))

    thread = threading.Thread(target=ask, daemon=True, name="wandb-login")
    thread.start()
    thread.join(seconds)
    return answer[0] if answer else f"no answer within {seconds:.0f} s"


def require_login() -> None:
    """Check that W&B takes our key.

    Raises:
        TrackingError: there is no key, it is refused, or W&B cannot be reached.
    """
    problem = login_problem(15)
    if problem == NO_LOGIN:
        raise TrackingError("W&B: no login found; type wandb login, or set WANDB_API_KEY")
    if problem is not None:
        raise TrackingError(f"W&B: not online ({problem}); check the key and the network")


def login_variables() -> tuple[tuple[str, str], ...]:
    """Return the environment variables that log another machine in as we are here.

    Raises:
        TrackingError: there is no key.
    """
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    host = wandb.setup().settings.base_url
    key = os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=host)
    if not key:
        raise TrackingError("ship_wandb_key: no login found; type wandb login, or leave it out")
    return (("WANDB_API_KEY", key), ("WANDB_BASE_URL", host))


def resolve_mode(mode: Mode, say: Say, hint: Say | None = None) -> Mode:
    """Return the mode that can be had: `auto` is online where a login is found, else offline.

    `auto` obeys WANDB_MODE, as W&B's own client does. A server that cannot be reached makes
    online offline too, with one line.

    Args:
        mode: what was asked for.
        say: called where W&B cannot be used as asked.
        hint: called where nobody asked and nobody is logged in; `say` if None.

    Raises:
        ConfigError: WANDB_MODE is none of W&B's.
    """
    asked = mode_asked()
    if asked is not None:
        os.environ["WANDB_MODE"] = asked  # W&B's client takes lower case alone
    if mode == "auto" and asked is not None:
        mode = asked
    if mode in ("offline", "disabled"):
        return mode
    if under_agent():
        return "online"  # W&B's agent, which asked for this run, has just talked to W&B
    problem = login_problem()
    if problem is None:
        return "online"
    if problem == NO_LOGIN and mode == "auto":
        (hint or say)(
            "W&B: no login found, keeping the run offline (wandb login; later: gnbench sync)"
        )
    else:
        say(f"W&B: not online ({problem}), keeping the run offline (later: gnbench sync)")
    return "offline"

"""The agent as a twistd plugin: ``twistd clusteragent``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.python.usage import Options as UsageOptions

if TYPE_CHECKING:
    from .service import AgentService


class Options(UsageOptions):
    """No options: everything is in config.toml, in the state directory."""

    synopsis = "[options]"
    longdesc = "Runs commands on this machine for its coordinator. State and config.toml: $CLUSTERSH_HOME."


def makeService(options: Any) -> AgentService:
    """Return the service. Ends the program with one line where it can't start: not enrolled, running already."""
    from twisted.internet import reactor

    from ..config import ConfigError, load
    from ..home import HomeError, default_home, private_folder, read_running
    from .service import AgentService
    from .state import load_identity

    environ = dict(os.environ)
    home = default_home(environ)
    try:
        folder = private_folder(home / "agent")
        config = load(home)
        load_identity(folder)
        running = read_running(folder)
    except (HomeError, ConfigError) as error:
        raise SystemExit(f"ERROR: {error}") from error
    if running is not None:
        raise SystemExit(f"ERROR: an agent runs already in {folder} (process {running.pid})")
    return AgentService(reactor, folder, config.agent, environ)

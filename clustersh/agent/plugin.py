"""The agent as a twistd plugin: ``twistd clusteragent``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.python.usage import Options as UsageOptions

from ..config import ConfigError, load
from ..home import HomeError, default_home, private_folder, read_running

if TYPE_CHECKING:
    from .service import AgentService


class Options(UsageOptions):
    """What may be said on the command line; everything else is in config.toml, in the state directory."""

    synopsis = "[--home FOLDER]"
    longdesc = "Runs commands on this machine for its coordinator. State and config.toml: $CLUSTERSH_HOME."
    optParameters = [["home", None, None, "the state directory; before $CLUSTERSH_HOME"]]  # noqa: RUF012 - Twisted's way

    @property
    def home(self) -> Path:
        """The state directory."""
        given: str | None = self["home"]
        return Path(given).expanduser().absolute() if given else default_home(os.environ)


def makeService(options: Options) -> AgentService:
    """Return the service. Ends the program with one line where it can't start: not enrolled, running already."""
    from twisted.internet import reactor

    from ..clocks import use_boot_clock
    from ..daemon import stop_when_interrupted, told
    from ..heap import begin_collections
    from .service import AgentService
    from .state import load_identity

    begin_collections()
    try:
        folder = private_folder(options.home / "agent")
        config = load(options.home)
        load_identity(folder)
        running = read_running(folder)
    except (HomeError, ConfigError) as error:
        raise SystemExit(told(error)) from error
    if running is not None:
        raise SystemExit(f"ERROR: an agent runs already in {folder} (process {running.pid})")
    use_boot_clock(reactor)
    stop_when_interrupted(reactor)
    return AgentService(reactor, folder, config.agent, dict(os.environ))

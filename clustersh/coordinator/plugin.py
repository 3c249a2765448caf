"""The coordinator as a twistd plugin: ``twistd clusterd``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from ..config import Config, ConfigError, Listen, load, parse_listen
from ..home import HomeError, default_home, read_running

if TYPE_CHECKING:
    from .service import CoordinatorService


class Options(UsageOptions):
    """What may be said on the command line; everything else is in config.toml, in the state directory."""

    synopsis = "[--listen ADDRESS] [--port PORT] [--home FOLDER]"
    longdesc = (
        "Lets machines and users in, hands out commands and records them. State and config.toml: $CLUSTERSH_HOME."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["listen", "l", None, "where to listen, such as '*:5672' or 127.0.0.1:5672; before [coordinator] listen"],
        ["port", "p", None, "the same address, but this port"],
        ["home", None, None, "the state directory; before $CLUSTERSH_HOME"],
    ]

    def postOptions(self) -> None:
        """Refuse what can't be an address or a port."""
        port = self["port"]
        if port is not None and not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise UsageError("--port: expected a number between 0 (any free one) and 65535")
        if self["listen"] is not None:
            try:
                self["listen"] = parse_listen(self["listen"])
            except ValueError as error:
                raise UsageError(f"--listen: {error}") from error

    @property
    def home(self) -> Path:
        """The state directory."""
        given: str | None = self["home"]
        return Path(given).expanduser().absolute() if given else default_home(os.environ)

    def listen(self, config: Config) -> Listen:
        """Where to listen."""
        where: Listen = self["listen"] or config.coordinator.listen
        port = self["port"]
        return where if port is None else Listen(f"{where.rpartition(':')[0]}:{int(port)}")


def makeService(options: Options) -> CoordinatorService:
    """Return the service. Ends the program with one line where it can't start."""
    from twisted.internet import reactor

    from ..clocks import use_boot_clock
    from ..daemon import stop_when_interrupted, told
    from ..heap import begin_collections
    from ..trust.errors import TrustError
    from .door import DoorError
    from .service import make_service

    begin_collections()
    try:
        config = load(options.home)
        running = read_running(options.home / "coordinator")
        if running is not None:  # said here: twistd in the background only logs what its service finds out
            raise HomeError(f"{options.home / 'coordinator'} is in use by process {running.pid}", "stop that one first")
        use_boot_clock(reactor)
        stop_when_interrupted(reactor)
        return make_service(reactor, options.home, config, options.listen(config))
    except (HomeError, ConfigError, TrustError, DoorError) as error:
        raise SystemExit(told(error)) from error

"""``python -m clustersh.installation``: for the scripts that install, not for people."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from ..cli.commands import Start
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.program import run_program
from ..services import Scope
from ..trust.tokens import TOKEN_VARIABLE
from . import agent, client
from .layout import check_whole, layout
from .wish import Wish

_PROGRAMS = {"clusteragent": agent, "clustersh": client}


class Installing:
    """One call, ready to start. Nothing in it needs a reactor."""

    def __init__(self, invocation: Invocation) -> None:
        parser = Parser("installer", "The second half of the installers.", (), json=False)
        parser.add_argument("verb", choices=("check", "install", "uninstall"))
        parser.add_argument("program", choices=_PROGRAMS, nargs="?")
        for name in ("data", "venv"):
            parser.add_argument(f"--{name}", type=Path, default=Path())
        for name in ("address", "ca", "line", "name", "run-as"):
            parser.add_argument(f"--{name}", default="")
        scope = partial(parser.add_argument, action="store_const", dest="scope")
        scope("--user", const=Scope.USER)
        scope("--system", const=Scope.SYSTEM)
        parser.add_argument("--no-service", action="store_false", dest="service")
        self._invocation = invocation
        self._options = parser.read(invocation, invocation.argv)

    def at_once(self) -> int:
        """Do it and return the exit status. Raises CliError."""
        options = self._options
        if options.verb == "check":
            check_whole()
            return 0
        invocation = self._invocation
        environ = dict(invocation.environ)
        token = environ.pop(TOKEN_VARIABLE, "")
        home = Path(environ.get("HOME") or Path.home())
        wish = Wish(
            layout=layout(options.data, options.scope, home),
            scope=options.scope,
            environ=environ,
            console=invocation.console,
            venv=options.venv,
            address=options.address,
            ca_sha256=options.ca,
            name=options.name,
            run_as=options.run_as,
            service=options.service,
            line=options.line,
            token=token,
        )
        try:
            getattr(_PROGRAMS[options.program], options.verb)(wish)
        except CliError as error:
            raise CliError(error.message, (*error.hints, f"log: {wish.layout.log}")) from error
        return 0

    def __call__(self, reactor: Any) -> Coroutine[Any, Any, int]:
        """Needed for a command's type; `at_once` is always enough."""
        raise AssertionError("an installation needs no reactor")


def choose(invocation: Invocation) -> Start:
    """Return the start of what *invocation* asks for."""
    return Installing(invocation)


if __name__ == "__main__":
    run_program("installer", choose)

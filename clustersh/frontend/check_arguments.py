"""The arguments of ``clustersh check``, and the request that they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, add_exclude, reads
from ..probe.grammar import DEFAULT_TIMEOUT_S, read
from ..wire import units
from ..wire.checks import MAX_CHECKS
from ..wire.fleet import MAX_TARGET
from ..wire.jobs import PROBE, Command
from ..wire.rest import RunRequest
from .run_arguments import wait_limit

EXAMPLES = (
    "clustersh check all                  (do they answer, and can they start something?)",
    "clustersh check @web --http http://localhost:8080/health --service nginx",
    "clustersh check db1 --tcp 5432 --disk '/var < 80%' --disk '/ > 10GB free'",
    "clustersh check ws1 --command 'test -f /etc/backup.ok'",
)
PROBE_MAY_TAKE_S = 10.0
"""Beyond a check's own time: to start, and to see that a check never comes to its end."""
HEARD_WITHIN_S = 20.0
"""Beyond that: to be sent to the machine, and to be told from there."""
_HELP = {
    "http": ("URL", "GET it from there: 2xx and 3xx pass, certificates are verified"),
    "tcp": ("[HOST:]PORT", "connect to it from there"),
    "service": ("UNIT", "this service runs (systemd, launchd, Windows)"),
    "disk": ("RULE", "'/ < 90%%' used, '/ > 10GB free', '/ > 5%% free'"),
    "command": ("LINE", "this shell line ends with 0"),
}


class CheckOptions(NamedTuple):
    """What was asked for: *checks* are pairs of a kind and its text, in the order they were given. Times in seconds."""

    target: str
    exclude: str
    checks: tuple[tuple[str, str], ...]
    timeout_s: float
    wait_s: float
    dry_run: bool
    force: bool = False

    @property
    def command(self) -> Command:
        """The probe, as machines are asked for it."""
        words = [word for kind, text in self.checks for word in (f"--{kind}", text)]
        if self.timeout_s != DEFAULT_TIMEOUT_S:
            words = ["--timeout", f"{self.timeout_s:g}s", *words]
        return Command(argv=(*PROBE, *words))

    @property
    def request(self) -> RunRequest:
        """The run that is asked for. Its answer holds no output: that is read with the ends."""
        return RunRequest(
            self.target,
            self.command,
            timeout_s=self.timeout_s + PROBE_MAY_TAKE_S,
            limit_bytes=0,
            exclude=self.exclude,
            force=self.force,
        )


def read_check_options(invocation: Invocation, arguments: Sequence[str]) -> CheckOptions:
    """Return what *arguments* and the caller's environment ask for. Raises UsageError or Answer."""
    given = _parser().read(invocation, arguments)
    checks = tuple(given.checks)
    if len(checks) > MAX_CHECKS:
        raise UsageError(f"at most {MAX_CHECKS} checks at once, these are {len(checks)}")
    if max(len(given.target), len(given.exclude)) > MAX_TARGET:
        raise UsageError(f"a target is at most {MAX_TARGET} characters")
    if not given.target.strip():
        raise UsageError("which machines? the target is empty", (EXAMPLES[1],))
    if not 0 < given.timeout <= units.MAX_DURATION_S / 2:
        raise UsageError("a check takes some time: --timeout 10s, for example")
    waited = wait_limit(given.wait, invocation.environ)
    heard = given.timeout + PROBE_MAY_TAKE_S + HEARD_WITHIN_S
    return CheckOptions(
        given.target,
        given.exclude,
        checks,
        given.timeout,
        heard if waited is None else waited,
        given.dry_run,
        given.force,
    )


def _parser() -> Parser:
    parser = Parser(
        "clustersh check",
        "Check machines, from where they are; without a check: whether they answer and can start something.",
        EXAMPLES,
    )
    duration = reads(units.parse_duration)
    parser.set_defaults(checks=[])
    parser.add_argument("target", metavar="TARGET", help="the machines")
    for kind, (metavar, text) in _HELP.items():
        parser.add_argument(f"--{kind}", action=_Add, metavar=metavar, help=text)
    add_exclude(parser)
    parser.add_argument(
        "--timeout", type=duration, default=DEFAULT_TIMEOUT_S, metavar="TIME", help="for each check (10s)"
    )
    parser.add_argument("--wait", type=duration, metavar="TIME", help="give up waiting (CLUSTERSH_WAIT)")
    parser.add_argument("--force", action="store_true", help="pass the policy's rules that block, where you may")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be asked of which machines")
    return parser


class _Add(argparse.Action):
    """Adds a check, which may be given more than once; what makes no sense is said before anything is sent."""

    def __call__(self, _parser: Any, given: argparse.Namespace, text: Any, option: str | None = None) -> None:
        kind = (option or "").removeprefix("--")
        try:
            read(kind, text)
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        given.checks = [*given.checks, (kind, text)]

"""The arguments of ``clustersh run``: options up to the command's first word, then all is the command's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads, utf8
from ..wire import ids, units
from ..wire.jobs import DEFAULT_TIMEOUT_S, HEAD_LIMIT, BlobRef, Command
from ..wire.rest import RunRequest
from .fleet_arguments import FleetOptions, add_fleet_options, read_fleet_options
from .layouts import Layout

EXAMPLES = (
    'clustersh run ws1 "ls -la"',
    "clustersh run ws1 --timeout 10m make all",
    'clustersh run --file build.sh --file src ws1 "sh build.sh"',
    "clustersh run --script setup.sh ws1",
    "tar c . | clustersh run --stdin ws1 'tar x -C /srv/www'",
    "clustersh run ws1 -- printf '%s\\n' 'no shell sees this'",
    "clustersh run 'web[01-10]' uptime",
    "clustersh run @web -x web03 --rolling 25% --canary 1 systemctl restart nginx",
    "clustersh run all -o diff cat /etc/resolv.conf",
    "clustersh run --least-loaded @build make all",
)


class Words(NamedTuple):
    """The arguments taken apart. *target* is "" where it is missing; *vector*: a ``--`` came before the command.

    An option and its value are one word (``--cwd=-x``), so that no value is taken for an option.
    """

    options: tuple[str, ...]
    target: str
    words: tuple[str, ...]
    vector: bool


class RunOptions(NamedTuple):
    """What was asked for; *command* is None where a script is sent instead. Times in seconds, sizes in bytes."""

    target: str
    command: Command | None
    script: str | None
    files: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdin: bool
    detach: bool
    full: bool
    follow: bool
    combined: bool
    keep_files: bool
    limit: int
    timeout_s: float
    idle_timeout_s: float
    wait_s: float | None
    key: str
    fleet: FleetOptions
    dry_run: bool = False
    force: bool = False

    @property
    def raw(self) -> bool:
        """Whether one machine is asked for, whose output is printed as it is."""
        return self.fleet.raw(self.target)

    @property
    def layout(self) -> Layout:
        """How many machines' output is shown."""
        return self.fleet.layout or Layout.FOLDED


@cache
def run_parser() -> Parser:
    """Return the parser of the options (the rest is taken off by `split`): a standby makes it once."""
    parser = Parser(
        "clustersh run",
        "Run a command on a machine: its output, its exit status. Or on many: their output in sections.",
        EXAMPLES,
        any_bytes=True,
    )
    parser.usage = "clustersh run [options] TARGET [options] COMMAND ...   (or -- PROGRAM ARGUMENT ...)"
    add = parser.add_argument
    add("--file", action="append", default=[], metavar="PATH", help="send a file or directory; run in a temporary one")
    add("--keep-files", action="store_true", help="keep that temporary directory")
    add("--script", metavar="FILE", help="run this script file (- is stdin), its shebang honoured")
    add("--stdin", action="store_true", help="stream standard input to the command (it is closed otherwise)")
    add("--cwd", default="", metavar="DIR", help="directory to run in (the agent user's home otherwise)")
    add("--env", action="append", default=[], metavar="K=V", help="set a variable; NAME alone takes the caller's value")
    add("--timeout", type=reads(units.parse_duration), default=DEFAULT_TIMEOUT_S, metavar="TIME", help=_TIMEOUT_HELP)
    add("--idle-timeout", type=reads(units.parse_duration), default=0.0, metavar="TIME", help="end it after no output")
    add(
        "--wait", type=reads(units.parse_duration), metavar="TIME", help="give up waiting, not the job (CLUSTERSH_WAIT)"
    )
    add("--detach", action="store_true", help="print the uuid and don't wait")
    add("--follow", action="store_true", help="print the output as it comes")
    add("--full", action="store_true", help="no limit: stream all the output")
    add("--limit", type=reads(units.parse_size), metavar="SIZE", help="bytes of output to show (128KiB)")
    add("--combined", action="store_true", help="both streams as one, on stdout, in the order they came")
    add("--key", type=reads(_key), metavar="KEY", help="idempotency key: the same key and request run only once")
    add("--force", action="store_true", help="pass the policy's rules that block, where you may")
    add("--dry-run", action="store_true", help="only show what would run, and where")
    add_fleet_options(parser)
    return parser


_TIMEOUT_HELP = "end the command after this time: 90s, 10m, 1h30m; 0 for none (5m)"


def split(parser: Parser, arguments: Sequence[str]) -> Words:
    """Take *arguments* apart. Raises UsageError for an unknown option before the command's first word."""
    options: list[str] = []
    target: str | None = None
    rest = list(arguments)
    vector = False
    while rest:
        word = rest[0]
        if word == "--":
            del rest[0]
            if target is None:
                # `run -- ws1 ls`: the machine is the first word all the same.
                target = rest.pop(0) if rest else None
                rest = rest[1:] if rest[:1] == ["--"] else rest
            vector = True
            break
        if word.startswith("-") and word != "-":
            name, joined, _ = word.partition("=")
            if not word.startswith("--"):
                name, joined = word[:2], word[2:]  # -xEXPR
            taken = 2 if parser.takes_value(name) and not joined else 1
            options.append("=".join(rest[:taken]))
            del rest[:taken]
        elif target is None:
            target = rest.pop(0)
        else:
            break
    return Words(tuple(options), target or "", tuple(rest), vector)


def read_run_options(invocation: Invocation, arguments: Sequence[str]) -> RunOptions:
    """Return what *arguments* and the caller's environment ask for. Raises UsageError or Answer."""
    parser = run_parser()
    invocation.json = "--json" in arguments  # until it is known whose word it is
    words = split(parser, arguments)
    given = parser.read(invocation, words.options)
    if not words.target:
        raise UsageError("which machine? none was named", (EXAMPLES[0], "clustersh machines lists them"))
    fleet = read_fleet_options(invocation, given, _text(words.target))
    _check(given, words)
    return RunOptions(
        target=_text(words.target),
        command=None if given.script is not None else _command(words),
        script=given.script,
        files=tuple(given.file),
        cwd=_text(given.cwd),
        env=_environment(given.env, invocation.environ),
        stdin=given.stdin,
        detach=given.detach,
        full=given.full,
        follow=given.follow,
        combined=given.combined,
        keep_files=given.keep_files,
        limit=HEAD_LIMIT if given.limit is None else given.limit,
        timeout_s=given.timeout,
        idle_timeout_s=given.idle_timeout,
        wait_s=wait_limit(given.wait, invocation.environ),
        key=given.key or "",
        fleet=fleet._replace(exclude=_text(fleet.exclude)),
        dry_run=given.dry_run,
        force=given.force,
    )


def wait_limit(given: float | None, environ: Mapping[str, str]) -> float | None:
    """Return how long to wait (seconds; None for ever): ``--wait``, else ``$CLUSTERSH_WAIT``. Raises UsageError."""
    text = environ.get("CLUSTERSH_WAIT")
    if given is not None or not text:
        return given
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise UsageError(f"CLUSTERSH_WAIT: {error}") from error


def _check(given: argparse.Namespace, words: Words) -> None:
    if given.script is not None and words.words:
        raise UsageError("--script is the command: give no other one", ("clustersh run --script FILE MACHINE",))
    if given.script is None and not words.words:
        raise UsageError(f"what shall {words.target} run? no command was given", (EXAMPLES[0],))
    if given.script is None and not words.vector and not "".join(words.words).strip():
        raise UsageError(f"what shall {words.target} run? the command is empty", (EXAMPLES[0],))
    if "" in given.file or given.script == "":
        raise UsageError("--file and --script need a path, this one is empty")
    if given.script == "-" and given.stdin:
        raise UsageError("standard input can't be both the script and the command's own input")
    if given.full and given.limit is not None:
        raise UsageError("--full is without a limit: leave out --limit")
    if given.detach:
        for name in ("stdin", "follow", "full"):
            if getattr(given, name):
                raise UsageError(f"--detach doesn't stay for --{name}")


def _command(words: Words) -> Command:
    try:
        if words.vector:
            return Command(argv=tuple(_text(word) for word in words.words))
        return Command(shell=_text(" ".join(words.words)))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _environment(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not name:
            raise UsageError(f"--env {text}: the variable has no name", ("--env NAME=VALUE",))
        if not separator:
            if name not in environ:
                raise UsageError(f"--env {name}: there is no such variable here", (f"--env {name}=VALUE sets one",))
            value = environ[name]
        chosen[_text(name)] = _text(value)
    return chosen


def _text(text: str) -> str:
    try:
        return utf8(text)
    except UsageError as error:
        raise UsageError(error.message, ("other bytes can be sent with --file, --script or --stdin",)) from error


def _key(text: str) -> str:
    if not ids.IDEMPOTENCY_KEY.fullmatch(text):
        raise ValueError("a key is 1 to 128 printable ASCII characters without spaces")
    return text


def run_request(options: RunOptions, command: Command, files: BlobRef | None = None) -> RunRequest:
    """Return the request for *command* as *options* say. Raises UsageError."""
    try:
        return RunRequest(
            target=options.target,
            command=command,
            cwd=options.cwd,
            env=dict(options.env),
            timeout_s=options.timeout_s,
            idle_timeout_s=options.idle_timeout_s,
            stdin=options.stdin,
            files=files,
            keep_files=options.keep_files,
            limit_bytes=HEAD_LIMIT if options.full else options.limit,
            exclude=options.fleet.exclude,
            skip_offline=options.fleet.skip_offline,
            pace=options.fleet.pace,
            placement=options.fleet.placement,
            force=options.force,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error

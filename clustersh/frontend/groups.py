"""``clustersh groups``."""

from __future__ import annotations

from ..cli.commands import Start
from ..cli.groups import groups_parser, groups_start
from ..cli.invocation import Invocation
from .client import ask


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``groups``."""
    options = groups_parser("clustersh", "import-sshsync").read(invocation, arguments)
    if options.verb == "import-sshsync":
        from .sshsync import prepare_import

        return prepare_import(invocation, options.words, dry_run=options.dry_run)
    return groups_start("clustersh", ask, invocation, options)

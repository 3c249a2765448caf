"""``clusterd groups`` and ``clusterd label``: as clustersh's, for what the policy leaves to an admin."""

from __future__ import annotations

from ..cli.commands import Start
from ..cli.groups import groups_parser, groups_start
from ..cli.invocation import Invocation
from ..cli.labels import prepare_label as prepare_label_of
from .admin_client import ask


def prepare_groups(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``groups``."""
    return groups_start("clusterd", ask, invocation, groups_parser("clusterd").read(invocation, arguments))


def prepare_label(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``label``."""
    return prepare_label_of("clusterd", ask, invocation, arguments)

"""``clustersh label``."""

from __future__ import annotations

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..cli.labels import prepare_label
from .client import ask


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``label``."""
    return prepare_label("clustersh", ask, invocation, arguments)

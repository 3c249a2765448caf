"""What is said of new machines that a target would mean: nobody learns of them otherwise."""

from __future__ import annotations

from ..cli.text import printable
from ..wire.fleet import LeftOut
from .many.names import node_set


def names(left_out: LeftOut) -> str:
    """Return which ones: the first by name, the others only as a number."""
    more = left_out.count - len(left_out.machines)
    return printable(node_set(left_out.machines)) + (f" and {more} more" if more else "")


def words(left_out: LeftOut) -> str:
    """Return the part of a summary: ``1 new, left out (newbox)``."""
    return f"{left_out.count} new, left out ({names(left_out)})"


def hint(left_out: LeftOut) -> str:
    """Return how they are taken into use."""
    if left_out.count == 1:
        [name] = left_out.machines
        return f"{name} is used once a run, group or label names it, or on the coordinator: clusterd accept {name}"
    return (
        "new machines (clustersh targets @new) are used once a run, group or label names them, "
        "or on the coordinator: clusterd accept NAME"
    )

"""Placement: which machines of a target a run goes to, where it asks for some of them only.

A policy is a plugin (docs/plugins.md): an object that provides `IPlacement` and Twisted's `IPlugin`, in a module of
`twisted.plugins`. The built-in one is least_loaded.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zope.interface import Attribute, Interface

from ...wire.link import Vitals


@dataclass(frozen=True)
class Candidate:
    """A machine that may be chosen: it is there, and not new.

    *vitals* are what it said of itself *age_s* seconds ago, None where it said nothing yet; *cpus* its processors as it
    says, 0 where it doesn't. What the coordinator sees itself: *running* jobs that are under way there, and *recent*
    ones that were placed there since those vitals. *last* rises with each placement, and is that of the machine's
    last one: 0 where it has had none.
    """

    name: str
    id: str
    vitals: Vitals | None = None
    age_s: float | None = None
    cpus: int = 0
    running: int = 0
    recent: int = 0
    last: int = 0


@dataclass(frozen=True)
class Choice:
    """The chosen machine's id, and *why* in a few words: users read ``Selected NAME: WHY``."""

    id: str
    why: str


class IPlacement(Interface):
    """A placement policy."""

    name = Attribute("What ``--placement`` calls it: lower-case letters, digits and dashes.")

    def choose(candidates: Sequence[Candidate], pick: int) -> Sequence[Choice]:
        """Return *pick* of the *candidates*, of which there are at least as many, best first.

        It is called in the reactor's thread while a client waits: it computes, and waits for nothing.
        """

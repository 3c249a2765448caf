"""The guard: judges commands before they are handed out, by what they would do.

Commands are parsed, never searched, and nothing of them is run. It guards against accidents; it is no sandbox.
"""

from __future__ import annotations

from .guard import Guard
from .verdicts import RULES, Action, Finding, Rule

__all__ = ["RULES", "Action", "Finding", "Guard", "Rule"]

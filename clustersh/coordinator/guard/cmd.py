"""Lines of Windows' ``cmd.exe``, as far as they are commands one after the other."""

from __future__ import annotations

import re

from .state import State
from .values import UNKNOWN
from .windows_calls import Shell

_PARTS = re.compile(r'"[^"]*"?|[&|()]+|[^\s&|()"]+')
_ITSELF = re.compile(r"%~?0\S*\s*\|\s*(start\s+)?%~?0", re.IGNORECASE)
_LEADING = ("call", "start", "@", "do", "else")


def run_cmd(shell: Shell, text: str, state: State) -> str:
    """Judge the line *text*, which ``cmd /c`` runs."""
    shell.case.spend(1 + len(text) // 16)
    if text.startswith('"') and text.endswith('"'):
        text = text[1:-1]
    if _ITSELF.search(text):
        shell.case.report("fork-bomb", [text])
    words: list[str] = []
    stdin = UNKNOWN
    for part in [*_PARTS.findall(text), "&"]:
        if not set(part) <= set("&|()"):
            words.append(part.strip('"'))
            continue
        while words and words[0].lower() in _LEADING:
            del words[0]
        printed = shell.run_words([words[0].lstrip("@"), *words[1:]], state, stdin) if words else UNKNOWN
        stdin = printed if part == "|" else UNKNOWN
        words = []
    return UNKNOWN

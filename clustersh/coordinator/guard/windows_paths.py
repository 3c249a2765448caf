"""Which places on a Windows machine are whole systems."""

from __future__ import annotations

import ntpath
import re

from .values import HOME, UNKNOWN

PLACES = {
    "env:systemdrive": "C:",
    "env:homedrive": "C:",
    "env:systemroot": "C:\\Windows",
    "env:windir": "C:\\Windows",
    "env:programfiles": "C:\\Program Files",
    "env:programdata": "C:\\ProgramData",
    "env:allusersprofile": "C:\\ProgramData",
    "env:userprofile": HOME,
    "home": HOME,
}
"""What well-known variables stand for, in lower case, on nearly every machine."""
_SYSTEM = frozenset(
    f"c:\\{name}"
    for name in ("windows", "windows\\system32", "users", "program files", "program files (x86)", "programdata", "boot")
)
_GLOBS = ("*", "*.*")


def place_of(path: str, folder: str = UNKNOWN) -> str:
    """Return "root" where *path*, seen from *folder*, is a whole drive, "system" or "home" where it is a part of it.

    "" is any other place.
    """
    whole = path.strip("\"'").replace("/", "\\").lower().removeprefix("\\\\?\\")
    if folder != UNKNOWN and not re.match(r"[a-z]:|[\\~%]|" + HOME, whole):
        whole = ntpath.join(folder.lower(), whole)
    whole = re.sub(r"%(\w+)%", lambda found: PLACES.get(f"env:{found[1]}", found[0]).lower(), whole)
    if whole.startswith("~"):
        whole = HOME + whole[1:]
    whole = ntpath.normpath(whole) if whole else ""
    head, tail = ntpath.split(whole)
    if tail in _GLOBS:
        whole = head
    if re.fullmatch(r"([a-z]:)?\\?", whole) and whole:
        return "root"
    whole = whole.rstrip("\\")
    return "home" if whole == HOME else "system" if whole in _SYSTEM else ""

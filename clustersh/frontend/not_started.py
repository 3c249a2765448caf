"""What to do about a command that a machine did not start, by the reason that was told for it."""

from __future__ import annotations

import re

_SAFE = "nothing ran, so repeating it is safe"
_OTHERWISE = f"{_SAFE}; more: clustersh machines -l {{where}}"

_HINTS = (
    (r"^[^ ]+ is offline \(", f"{_SAFE}; clustersh machines shows what is online"),
    (
        r"^(no such directory|not allowed to enter|can't use the directory|no such user)",
        "nothing ran; --cwd takes a directory that is on {where} and that its agent's user may enter",
    ),
    (r"^(disk full|disk error|the job store can't)", "nothing ran; free space on {where}, then repeat it"),
    (r"^can't run ", "nothing ran; {where} must have that program, and its agent's user must be allowed to run it"),
    (r"^its files can't be ", "nothing ran; look at what the reason says of the files, then repeat it"),
    (r"^ssh |over ssh", "nothing ran; what the gateway's ssh needs is in the reason, the rest in docs/ssh-machines.md"),
    (
        r"executor|no pwsh|no bash and no sh",
        "nothing ran; what turns commands into processes on {where} is at fault: see its agent's log there",
    ),
    (r"came too late|never saw it|is stopping", f"{_SAFE}: its link or its agent was not there in time"),
    (r"was forgotten", "nothing ran; to have it back, on it: clusteragent enroll"),
    (r"^the coordinator was restarted", "nothing ran there; ask for it once more, for {where} alone"),
)
_KNOWN = tuple((re.compile(pattern), hint) for pattern, hint in _HINTS)


def hint_about(reason: str) -> str:
    """Return the hint for what was not started for that *reason*; ``{where}`` in it stands for the machines."""
    return next((hint for pattern, hint in _KNOWN if pattern.search(reason)), _OTHERWISE)

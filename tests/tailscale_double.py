"""A stand-in for Tailscale's program, which prints what is written down here for each state.

None of it was recorded: it was made up after what the program and its source are documented to print.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .test_tailscale import SELF, peer, status

NO_SERVICE = "failed to connect to local tailscaled; it doesn't appear to be running (systemctl start tailscaled ?)"
PEERS = (
    peer("web01", "100.64.0.2"),
    peer("laptop", "100.64.0.3", OS="windows", Online=False, LastSeen="2026-11-20T08:30:07.5Z"),
    peer("new01", "100.64.0.4"),
    peer("phone", "100.64.0.5", OS="iOS", Online=False),
    peer("guest", "100.64.0.6", ShareeNode=True),
    peer("se-got", "100.64.0.7", DNSName="se-got-wg-001.mullvad.ts.net.", Tags=["tag:mullvad-exit-node"]),
)
WHOIS = {
    "user": {
        "Node": {"ID": 1, "Name": "web01.tail1234.ts.net.", "ComputedName": "web01", "Hostinfo": {"OS": "linux"}},
        "UserProfile": {"ID": 2, "LoginName": "joshua@example.com", "DisplayName": "Joshua"},
        "CapMap": None,
    },
    "tagged": {
        "Node": {"ID": 3, "Name": "ci.tail1234.ts.net.", "ComputedName": "ci", "Tags": ["tag:ci"]},
        "UserProfile": {"ID": 4, "LoginName": "tagged-devices", "DisplayName": "Tagged Devices"},
        "CapMap": {},
    },
}
"""What ``tailscale whois --json`` prints; of an address that it doesn't know nothing, with an exit status."""
STATES = {
    "running": status(*PEERS),
    "alone": status(Peer=None),
    "stopped": status(BackendState="Stopped", Self={**SELF, "Online": False}, Peer=None),
    "logged out": status(BackendState="NeedsLogin", Self=None, Peer=None, AuthURL="", CurrentTailnet=None),
    "unapproved": status(BackendState="NeedsMachineAuth", Peer=None),
    "starting": status(BackendState="NoState", Self=None, Peer=None),
    "odd": b'{"BackendState": "Dreaming"}',
}


class Tailscale:
    """The program, in *bin*. It prints what `be` and `know` have said last, and notes how it was called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "whois").mkdir()
        program = self.bin / "tailscale"
        program.write_text(
            f'#!/bin/sh\ncd {folder}\necho "$*" >>calls\n'
            'case $1 in status) [ "$2" = --json ] || exit 2; if [ -e failed ]; then cat failed >&2; exit 1; fi\n'
            "  exec cat status ;;\n"
            'whois) [ "$2" = --json ] || exit 2; address=${3%:*}; [ -e slow ] && sleep 600\n'
            '  if [ -e "whois/$address" ]; then exec cat "whois/$address"; fi; echo peer not found >&2; exit 1 ;;\n'
            "esac\nexit 2\n"
        )
        program.chmod(0o755)
        self.be("running")

    def be(self, state: str) -> None:
        """Have the status be that one of STATES; "no service": there is none that could tell."""
        (self._folder / "failed").unlink(missing_ok=True)
        if state == "no service":
            (self._folder / "failed").write_text(NO_SERVICE)
        else:
            (self._folder / "new").write_bytes(STATES[state])
            (self._folder / "new").rename(self._folder / "status")

    def know(self, address: str, who: str) -> None:
        """Have an address be that of WHOIS."""
        (self._folder / "whois" / address).write_text(json.dumps(WHOIS[who]))

    def hang(self) -> None:
        """Have ``whois`` never answer."""
        (self._folder / "slow").touch()

    @property
    def calls(self) -> list[str]:
        """The words that it was called with."""
        path = self._folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def environ(self, path: str) -> dict[str, Any]:
        """The variables by which a program finds it."""
        return {"PATH": f"{self.bin}:{path}"}

"""The check ``service``: whether what manages services on this machine says that one is running."""

from __future__ import annotations

import os
import subprocess
import sys

from .failed import Failed, no_answer, of_os

_RUNNING = ("active", "reloading")


def check_service(name: str, timeout_s: float) -> str:
    """Ask systemd, launchd or Windows; first for the system's services, then for those of this user."""
    try:
        if sys.platform == "win32":
            return _windows(name)
        if sys.platform == "darwin":
            return _launchd(name, timeout_s)
        return _systemd(name, timeout_s)
    except subprocess.TimeoutExpired:
        raise no_answer(timeout_s) from None
    except FileNotFoundError as error:
        raise Failed(f"nothing manages services here that could be asked (there is no {error.filename})") from error
    except OSError as error:
        raise of_os(error) from error


def _systemd(name: str, timeout_s: float) -> str:
    said = _unit(["systemctl"], name, timeout_s)
    if said is None:
        # Where no manager runs for this user, the answer stays that of the system's.
        try:
            said = _unit(["systemctl", "--user"], name, timeout_s)
        except Failed:
            said = None
    if said is None:
        raise Failed("systemd knows no such unit")
    state, _, words = said.partition(" ")
    if state not in _RUNNING:
        raise Failed(f"{state} {words}")
    return f"{state} {words}"


def _unit(command: list[str], name: str, timeout_s: float) -> str | None:
    """Return the state of a unit in systemd's words; None where there is no such unit."""
    ask = [*command, "show", "--property=LoadState,ActiveState,SubState", "--", name]
    answer = _run(ask, timeout_s)
    told = dict(line.partition("=")[::2] for line in answer.stdout.splitlines() if "=" in line)
    if answer.returncode or "ActiveState" not in told:
        lines = answer.stderr.strip().splitlines()
        raise Failed(f"systemd does not answer: {lines[0] if lines else f'exit {answer.returncode}'}")
    if told.get("LoadState") == "not-found" and told["ActiveState"] == "inactive":
        return None
    return f"{told['ActiveState']} ({told.get('SubState', '')})"


def _launchd(name: str, timeout_s: float) -> str:
    for domain in ("system", f"gui/{os.getuid()}", f"user/{os.getuid()}"):
        answer = _run(["launchctl", "print", f"{domain}/{name}"], timeout_s)
        if answer.returncode:
            continue
        states = [line.partition("=")[2].strip() for line in answer.stdout.splitlines() if line.startswith("\tstate =")]
        if states[:1] != ["running"]:
            raise Failed(states[0] if states else "launchd does not say whether it runs")
        return "running"
    raise Failed("launchd knows no such service")


def _windows(name: str) -> str:
    import psutil

    try:
        status: str = psutil.win_service_get(name).status()  # type: ignore[attr-defined,unused-ignore]
    except psutil.NoSuchProcess:
        raise Failed("Windows knows no such service") from None
    if status != "running":
        raise Failed(status)
    return status


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        env=environ,
        encoding="utf-8",
        errors="replace",
    )

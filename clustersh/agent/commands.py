"""``clusteragent``: the table of its commands."""

from __future__ import annotations

from ..cli.commands import Command, Start, prepare_command
from ..cli.invocation import Invocation

ABOUT = (
    "Runs commands on this machine, for its coordinator.\n"
    "Without a command: the service, in the foreground (--home FOLDER, --logfile FILE, --log-format text|json)."
)
COMMANDS = {
    "enroll": Command("clustersh.agent.enroll:prepare", "ask a coordinator to take this machine in"),
    "leave": Command("clustersh.agent.leave:prepare", "give this machine's registration up, and delete its key"),
    "status": Command("clustersh.agent.status:prepare", "whether the agent runs here and is connected"),
    "probe": Command("clustersh.agent.probe_command:prepare", "check this machine, as clustersh check does from afar"),
    "service": Command("clustersh.agent.service_command:prepare", "have the agent start with the machine, or no more"),
}


def choose(invocation: Invocation) -> Start:
    """Return the start of the command that *invocation* names."""
    # Without a command it is the service, which `main` starts; what is left to say then is how that is.
    return prepare_command(invocation, COMMANDS, COMMANDS["status"], ABOUT)

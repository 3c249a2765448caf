"""``clusterd``: the table of its commands."""

from __future__ import annotations

from ..cli.commands import Command, Start, prepare_command
from ..cli.invocation import Invocation

ABOUT = (
    "The coordinator: lets machines and users in, hands out commands, records every one.\n"
    "Without a command: the service, in the foreground (--listen ADDRESS, --port PORT, --home FOLDER,\n"
    "--logfile FILE, --log-format text|json)."
)
_ADMIN = "clustersh.coordinator.admin_commands"
COMMANDS = {
    "approve": Command(f"{_ADMIN}:prepare_approve", "let in whoever shows this code"),
    "pending": Command(f"{_ADMIN}:prepare_pending", "list who waits to be let in"),
    "token": Command("clustersh.coordinator.token_command:prepare", "make, list and revoke join tokens"),
    "clients": Command(f"{_ADMIN}:prepare_clients", "list the users that were let in"),
    "revoke": Command(f"{_ADMIN}:prepare_revoke", "let a user in no more"),
    "machines": Command(f"{_ADMIN}:prepare_machines", "list the machines"),
    "accept": Command(f"{_ADMIN}:prepare_accept", "have a new machine be one like any other"),
    "forget": Command(f"{_ADMIN}:prepare_forget", "let a machine in no more, and free its name"),
    "groups": Command(
        "clustersh.coordinator.group_commands:prepare_groups", "list and change groups, the policy's too"
    ),
    "label": Command("clustersh.coordinator.group_commands:prepare_label", "set and list labels, the policy's too"),
    "invite": Command("clustersh.coordinator.invite_command:prepare", "the line that brings a machine in safely"),
    "wheelhouse": Command(
        "clustersh.coordinator.wheelhouse_command:prepare", "what machines without a package index install"
    ),
    "audit": Command("clustersh.coordinator.audit_command:prepare", "who ran what, where, when, and how it ended"),
    "service": Command(
        "clustersh.coordinator.service_command:prepare", "have the coordinator start with the machine, or no more"
    ),
}


def choose(invocation: Invocation) -> Start:
    """Return the start of the command that *invocation* names."""
    return prepare_command(invocation, COMMANDS, COMMANDS["pending"], ABOUT)

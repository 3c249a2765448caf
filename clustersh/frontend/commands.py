"""``clustersh``: the table of its commands."""

from __future__ import annotations

from ..cli.commands import Command, Start, prepare_command
from ..cli.invocation import Invocation

ABOUT = "Run commands on other machines, through one coordinator that records every one."
BARE = Command("clustersh.frontend.bare:prepare", "who I am, which machines are up, what to do next")
COMMANDS = {
    "run": Command("clustersh.frontend.run:prepare", "run a command on a machine, and get its output and exit status"),
    "machines": Command("clustersh.frontend.machines:prepare", "list the machines and whether they are online"),
    "discover": Command("clustersh.frontend.discover:prepare", "list the tailnet's machines, and what adds them"),
    "check": Command("clustersh.frontend.check:prepare", "check that machines are well"),
    "cat": Command("clustersh.frontend.cat:prepare", "print a job's output, all of it"),
    "history": Command("clustersh.frontend.history:prepare", "list what was run, newest first"),
    "wait": Command("clustersh.frontend.wait:prepare", "wait for a run, and get what it printed"),
    "cancel": Command("clustersh.frontend.cancel:prepare", "end a running command"),
    "targets": Command("clustersh.frontend.targets:prepare", "show which machines an expression means"),
    "groups": Command("clustersh.frontend.groups:prepare", "list and change groups of machines"),
    "label": Command("clustersh.frontend.label:prepare", "set and list labels of machines"),
    "adopt": Command("clustersh.frontend.adopt:prepare", "have an agent carry machines that only have SSH"),
    "policy": Command("clustersh.frontend.policy:prepare", "what the policy allows, and whether a command passes"),
    "login": Command("clustersh.frontend.login:prepare_login", "ask a coordinator to let this user in"),
    "logout": Command("clustersh.frontend.logout:prepare", "give this user's key up"),
    "whoami": Command("clustersh.frontend.whoami:prepare", "who the coordinator takes this user for"),
    "standby": Command("clustersh.frontend.standby.command:prepare", "show or stop what makes the next command quick"),
    "up": Command("clustersh.frontend.up:prepare_up", "start coordinator and agent here, to try it out"),
    "down": Command("clustersh.frontend.up:prepare_down", "stop what up started"),
}

COMPLETE = Command("clustersh.frontend.complete:prepare", "what the shells' completions ask for")


def choose(invocation: Invocation) -> Start:
    """Return the start of the command that *invocation* names."""
    if invocation.argv[:1] == ("__complete",):
        return COMPLETE.load()(invocation, invocation.argv[1:])
    return prepare_command(invocation, COMMANDS, BARE, ABOUT)

"""Every command of the tables is judged as it should be, and each program that the guard knows has a row of its own."""

from __future__ import annotations

import re

import pytest

from clustersh.coordinator.guard import RULES, Action, Guard, builtins, cmdlets, downloads, programs
from clustersh.wire.jobs import Command

from .tables import BASH, POWERSHELL, Row

ROWS = [("linux/amd64", row) for row in BASH] + [("windows/amd64", row) for row in POWERSHELL]
GUARD = Guard()


def rules(command: str, platform: str) -> set[str]:
    return {finding.rule for finding in GUARD.judge(Command(shell=command), None, platform)}


@pytest.mark.parametrize(("platform", "row"), ROWS, ids=lambda each: each.command if isinstance(each, Row) else "")
def test_a_command_breaks_the_rules_that_the_table_says(platform: str, row: Row) -> None:
    assert rules(row.command, platform) == row.rules


def test_the_tables_are_large_and_know_harmless_commands_too() -> None:
    for table, least in ((BASH, 300), (POWERSHELL, 90)):
        assert sum(not row.rules for row in table) >= least
        assert sum(bool(row.rules) for row in table) >= least
        assert len({row.command for row in table}) == len(table)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_rows(rule: str) -> None:
    assert len([row for _, row in ROWS if row.rules == {rule}]) >= 4


def test_on_a_machine_of_unknown_kind_all_that_is_harmful_anywhere_is_caught() -> None:
    missed = [row.command for _, row in ROWS if row.rules - rules(row.command, "")]
    assert missed == []


@pytest.mark.parametrize("row", [row for row in BASH if row.rules], ids=lambda row: row.command)
def test_what_is_denied_comes_first(row: Row) -> None:
    actions = [finding.action for finding in GUARD.judge(Command(shell=f"reboot; {row.command}"), None, "linux/amd64")]
    assert actions == sorted(actions, key=[Action.DENY, Action.BLOCK].index)


def _changes(name: str, table: list[Row], platform: str) -> bool:
    named = [row for row in table if re.search(rf"(?i)(?<![\w-]){re.escape(name.rstrip('*'))}", row.command)]
    return any(rules(row.command, platform) != row.rules for row in named)


HARMLESS_WITHOUT = {*builtins.NOTHING.split()}


@pytest.mark.parametrize("name", sorted(set(programs.PROGRAMS) - HARMLESS_WITHOUT))
def test_each_program_is_known_for_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what is known of the program, a row of the table comes out otherwise."""
    monkeypatch.delitem(programs.PROGRAMS, name)
    assert _changes(name, BASH, "linux/amd64")


@pytest.mark.parametrize("name", sorted(cmdlets.COMMANDS))
def test_each_cmdlet_is_known_for_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(cmdlets.COMMANDS, name)
    aliases = [alias for alias, meant in cmdlets.ALIASES.items() if meant == name]
    assert any(_changes(each, POWERSHELL, "windows/amd64") for each in [name, *aliases])


def test_the_programs_that_fetch_are_all_in_one_place() -> None:
    assert set(downloads.PROGRAMS) <= set(programs.PROGRAMS)

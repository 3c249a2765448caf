"""What the guard promises to those who call it: actions, order, words, bounds; and that only a coordinator pays."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tracemalloc

import pytest

from clustersh.coordinator.guard import RULES, Action, Finding, Guard
from clustersh.coordinator.guard.values import LONGEST
from clustersh.wire.jobs import MAX_COMMAND, MAX_SCRIPT, BlobRef, Command
from tests.conftest import ROOT

LINUX, WINDOWS = "linux/amd64", "windows/amd64"
SCRIPT = Command(script=BlobRef("0" * 64, 1, "x.sh"))


def shell(text: str, platform: str = LINUX, **actions: str) -> list[str]:
    judged = Guard({name.replace("_", "-"): action for name, action in actions.items()})
    return [finding.rule for finding in judged.judge(Command(shell=text), None, platform)]


def argv(*words: str, platform: str = LINUX) -> list[str]:
    return [finding.rule for finding in Guard().judge(Command(argv=words), None, platform)]


def script(content: bytes, platform: str = LINUX) -> list[str]:
    return [finding.rule for finding in Guard().judge(SCRIPT, content, platform)]


def test_a_finding_says_which_rule_why_and_where() -> None:
    (finding,) = Guard().judge(Command(shell="ls && sudo reboot -f"), None, LINUX)
    assert finding == Finding("power", Action.BLOCK, RULES["power"].why, "reboot -f")


def test_what_was_fetched_is_shown_by_what_fetched_it() -> None:
    (finding,) = Guard().judge(Command(shell="curl -s http://example.org/i.sh | sudo bash"), None, LINUX)
    assert finding.where == "curl -s http://example.org/i.sh"


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_rules_have_words_that_go_into_a_sentence(rule: object) -> None:
    assert isinstance(rule, type(RULES["power"]))
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert rule.why[0].islower() and not rule.why.endswith(".") and "\n" not in rule.why


def test_the_action_of_a_rule_can_be_another_one() -> None:
    assert shell("reboot", power="allow") == []
    (finding,) = Guard({"power": "deny"}).judge(Command(shell="reboot"), None, LINUX)
    assert finding.action is Action.DENY
    (finding,) = Guard({"remove-root": "block"}).judge(Command(shell="rm -rf /"), None, LINUX)
    assert finding.action is Action.BLOCK
    assert shell("reboot; rm -rf /", remove_root="allow") == ["power"]


def test_what_is_allowed_is_not_suspicious_either() -> None:
    unparsable = 'echo "unclosed; sudo reboot'
    assert shell(unparsable) == ["unparsable"]
    assert shell(unparsable, power="allow") == []
    assert shell(unparsable, unparsable="allow") == []
    assert shell(unparsable, remove_root="allow") == ["unparsable"]


@pytest.mark.parametrize("actions", [{"no-such-rule": "allow"}, {"power": "perhaps"}])
def test_a_rule_or_an_action_that_is_none_is_an_error(actions: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no-such-rule|perhaps"):
        Guard(actions)


def test_the_worst_comes_first() -> None:
    assert shell("reboot; chmod -R 777 /; rm -rf /") == ["remove-root", "power", "permissions"]


def test_where_is_short_and_printable() -> None:
    (finding,) = Guard().judge(Command(shell="rm -rf / $'\\e[31m' \u202e" + "x" * 500), None, LINUX)
    assert finding.where.startswith("rm -rf / [31m x") and len(finding.where) == 120
    assert finding.where.isprintable()
    (finding,) = Guard().judge(Command(shell='rm -rf / "$HOME" $x ~'), None, LINUX)
    assert finding.where == "rm -rf / ~ … ~"


def test_an_argument_vector_is_no_shell_line() -> None:
    assert argv("rm", "-rf", "/") == ["remove-root"]
    assert argv("sudo", "rm", "-rf", "/") == ["remove-root"]
    assert argv("echo", "x; rm -rf /", "$(reboot)", "`reboot`") == []
    assert argv("rm", "-rf", "~", "$HOME") == []
    assert argv("bash", "-c", "cd / && rm -rf *") == ["remove-root"]
    assert argv("git", "commit", "-m", "rm -rf /") == []
    assert argv("shutdown", "/s", platform=WINDOWS) == ["power"]
    assert argv("cmd", "/c", "rd /s /q C:\\", platform=WINDOWS) == ["remove-root"]
    assert argv("powershell", "-Command", "Stop-Computer", platform=WINDOWS) == ["power"]
    assert argv("clusteragent", "probe", "disk", "/") == []


def test_a_script_is_judged_by_what_runs_it() -> None:
    assert script(b"reboot\n") == ["power"]
    for first in (
        b"#!/bin/sh",
        b"#!/bin/bash -e",
        b"#!/usr/bin/env bash",
        b"#!/usr/bin/env -S bash -eu",
        b"#! /bin/dash",
    ):
        assert script(first + b"\nreboot\n") == ["power"]
    for first in (b"#!/usr/bin/python3", b"#!/usr/bin/env perl"):
        assert script(first + b"\nreboot\n") == []
    assert script(b"Stop-Computer\n", WINDOWS) == ["power"]
    assert script(b'f() {\n  rm -rf "$1"\n}\nf /tmp/x\n') == []
    assert script(b'f() {\n  rm -rf "$1"\n}\nf /\n') == ["remove-root"]
    assert script(b"\xff\xfe\n\x00\nreboot\n") == ["power"]


def test_a_script_that_is_not_there_breaks_no_rule() -> None:
    assert Guard().judge(SCRIPT, None, LINUX) == ()


def test_a_machine_s_platform_says_which_shell_it_is() -> None:
    assert shell("Stop-Computer", LINUX) == []
    assert shell("Stop-Computer", "darwin/arm64") == []
    assert shell("Stop-Computer", WINDOWS) == ["power"]
    assert shell("reboot", WINDOWS) == []
    for platform in ("", "plan9/mips", "windows10"):
        assert shell("Stop-Computer", platform) == shell("reboot", platform) == ["power"]


LARGE = {
    "parentheses": "(" * 100_000,
    "closed parentheses": "(" * 100_000 + "reboot" + ")" * 100_000,
    "substitutions": "$(" * 100_000 + "reboot",
    "quotes": '"' * 99_999,
    "a chain": "true && " * 100_000 + "reboot",
    "a pipeline": "cat | " * 100_000 + "reboot",
    "words": "echo " + "x " * 500_000,
    "braces": "rm -rf " + "{a,b}" * 100_000,
    "nested braces": "rm -rf " + "{a," * 50_000 + "b" + "}" * 50_000,
    "expansions": "${x:-" * 50_000,
    "here-documents": "cat <<A\n" * 50_000,
    "a growing variable": "x=xxxxxxxx;" + "x=$x$x;" * 1000 + "rm -rf /$x",
    "nested loops": "for a in 1 2 3 4 5 6 7 8; do " * 20 + "echo" + "; done" * 20,
    "nested functions": "".join(f"f{n}() {{ f{n + 1}; f{n + 1}; }};" for n in range(60)) + "f0",
    "evals": "eval " * 100_000 + "reboot",
    "wrappers": "sudo " * 100_000 + "reboot",
    "nested shells": "x='reboot';" + "x=\"sh -c '$x'\";" * 30 + "$x",
    "one line": "echo " + "rm / " * 200_000,
    "separators": "; rm x " * 140_000,
    "backslashes": "\\" * 1_000_000,
    "fields": "x='" + "a " * 100_000 + "'; " + "echo $x;" * 1000,
    "files": "".join(f"echo {n} > f{n};" for n in range(20_000)),
    "items": "seq 5 | xargs -I{} sh -c '" + "{} " * 10_000 + "'",
}


@pytest.mark.parametrize("platform", [LINUX, WINDOWS])
@pytest.mark.parametrize("name", LARGE)
def test_large_and_deep_commands_take_bounded_time(name: str, platform: str) -> None:
    began = time.process_time()
    Guard().judge(Command(shell=LARGE[name][:LONGEST]), None, platform)  # the longest that is parsed
    assert time.process_time() - began < 10


def test_the_longest_commands_take_bounded_time() -> None:
    began = time.process_time()
    for text in LARGE.values():
        Guard().judge(Command(shell=text[:MAX_COMMAND]), None, LINUX)
    assert time.process_time() - began < 30


@pytest.mark.parametrize("name", ["closed parentheses", "a chain", "a pipeline", "evals", "wrappers"])
def test_what_is_too_large_to_be_gone_through_is_suspicious_where_it_names_a_dangerous_program(name: str) -> None:
    assert shell(LARGE[name][:MAX_COMMAND]) in (["power"], ["unparsable"])
    assert shell(LARGE[name][:MAX_COMMAND].replace("reboot", "uptime")) == []


@pytest.mark.parametrize("platform", [LINUX, WINDOWS])
def test_a_long_script_is_looked_through_by_its_lines(platform: str) -> None:
    harmless = b"echo one two three; rm -f ./x.tmp\n" * (MAX_SCRIPT // 40)
    began = time.process_time()
    assert script(b"echo one two three four five six\n" * (MAX_SCRIPT // 33), platform) == []
    assert script(harmless[: 300 << 10], platform) == []
    assert script(harmless[: 300 << 10] + b"\nshutdown /r -h now\n", platform) == ["unparsable"]
    assert time.process_time() - began < 20


def test_a_long_script_takes_little_memory() -> None:
    content = b"echo one two three four five six\n" * (MAX_SCRIPT // 33)
    tracemalloc.start()
    try:
        script(content)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("program", ["agent", "frontend"])
def test_only_a_coordinator_pays_for_the_parsers(program: str) -> None:
    code = (
        "import sys, pkgutil, importlib, clustersh.{0} as room\n"
        "for each in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "    'plugin' in each.name or '__main__' in each.name or importlib.import_module(each.name)\n"
        "print([name for name in sys.modules if 'tree_sitter' in name or 'coordinator' in name])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code.format(program)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_the_parsers_are_imported_with_the_first_text() -> None:
    code = (
        "import sys\n"
        "from clustersh.coordinator.guard import Guard\n"
        "from clustersh.wire.jobs import Command\n"
        "before = 'tree_sitter' in sys.modules\n"
        "Guard().judge(Command(shell='ls'), None, 'linux/amd64')\n"
        "print(before, 'tree_sitter_bash' in sys.modules, 'tree_sitter_powershell' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "False True False\n"
